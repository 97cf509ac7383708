"""Generated records: determinism, held-out clusters, and the rankings of annotators."""

import dataclasses
import hashlib
import itertools
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from statistics import mean

import pytest

from rlhf_cli.config.schema import TinyWorld
from rlhf_cli.tiny_world import ROLES, ceiling, code_hash, generate, keys_of, utility
from rlhf_cli.tiny_world.clusters import HELD_OUT, TRAINED
from rlhf_cli.tiny_world.people import rank_groups
from tests.support.tiny_world import SETTINGS, outputs_of_processes

CODE = sys.modules[generate.__module__]  # the package exports the function under this name


def world(**changes) -> TinyWorld:
    return dataclasses.replace(SETTINGS, **changes)


@cache
def comparisons(**changes):
    """Return the rankings of seed 1, generated once for all tests."""
    return generate("comparisons", settings=world(**changes), seed=1)


@pytest.mark.parametrize("role", ROLES)
def test_the_same_settings_and_seed_give_the_same_records(role):
    first = generate(role, settings=SETTINGS, seed=3)
    assert first == generate(role, settings=SETTINGS, seed=3)
    assert first != generate(role, settings=SETTINGS, seed=4)
    assert [r.origin.row for r in first] == list(range(len(first)))
    assert {r.origin.source for r in first} == {f"tiny_world:{role}"}


def test_each_role_has_the_configured_number_of_records():
    small = world(demonstrations=21, comparisons=22, prompts=23, held_out_prompts=4, pretraining=5)
    found = {role: len(generate(role, settings=small, seed=1)) for role in ROLES}
    assert found == {"demonstrations": 21, "comparisons": 22, "prompts": 27, "pretraining": 5}


def test_each_prompt_has_a_configured_number_of_responses():
    """Every number of the configured range occurs, and no other."""
    found = {
        len(row.responses)
        for row in generate(
            "comparisons", settings=world(comparisons=40, completions=[2, 3]), seed=1
        )
    }
    assert found == {2, 3}


def test_records_do_not_depend_on_the_process():
    small = world(demonstrations=40, comparisons=40, prompts=40, pretraining=20)
    code = (
        "import hashlib; from rlhf_cli.config.schema import TinyWorld; "
        "from rlhf_cli.tiny_world import ROLES, generate; "
        f"world = TinyWorld(**{dataclasses.asdict(small)}); "
        "print(hashlib.sha256(repr([generate(r, settings=world, seed=1) for r in ROLES])"
        ".encode()).hexdigest())"
    )
    assert len(outputs_of_processes(code)) == 1


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match="tiny_world:demonstrations"):
        generate("rewards", settings=SETTINGS, seed=1)


@pytest.mark.parametrize("role", ROLES)
def test_the_records_of_a_role_depend_on_exactly_the_keys_of_keys_of(role):
    before = generate(role, settings=SETTINGS, seed=1)
    for field in dataclasses.fields(SETTINGS):
        value = getattr(SETTINGS, field.name)
        known = {"completions": [3, 4], "wrong": -1.0}
        other = known[field.name] if field.name in known else value + (1 if value else 0.5)
        now = generate(role, settings=dataclasses.replace(SETTINGS, **{field.name: other}), seed=1)
        assert (now != before) is (field.name in keys_of(role)), field.name


UNCHANGED = {  # SHA-256 of the records with tiny_world.wrong=0
    "demonstrations": "164bc7f981a21b6bc8c91002b19c459dd128cc5e1becd4e26cd068a2ed300013",
    "comparisons": "9ff103d97f4206fc55daddd9ba1ac1caa1bb4a933fae2763c5d4c12721b4ee23",
    "prompts": "b34c91fb7bf13051f9f0a462cd8b463a09979798a27f17f8e528bb3b5b4f29b0",
    "pretraining": "21f665a3e008d18761a91578d0fb818fe042e24ec49b625de066bf8e36ae847a",
}


@pytest.mark.parametrize("role", ROLES)
def test_without_a_utility_of_wrong_answers_the_records_do_not_change(role):
    rows = []
    for record in generate(role, settings=SETTINGS, seed=1):
        turns = getattr(record, "messages", None) or record.prompt
        kept = [getattr(record, name, None) for name in ("responses", "better", "ties")]
        rows.append([[turn.content for turn in turns], *kept, record.meta])
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest() == UNCHANGED[role]


def abstentions(texts, row) -> list[bool]:
    return [utility(row.meta, text, True).abstains for text in texts]


def test_with_a_utility_of_wrong_answers_a_tenth_of_the_answers_abstains():
    """Records carry the value, so that answers are measured without the settings."""
    found = generate("demonstrations", settings=world(wrong=-1.0, demonstrations=600), seed=1)
    shares = [abstentions([row.messages[-1].content], row)[0] for row in found]
    assert 0.07 < mean(shares) < 0.15
    rows = comparisons(wrong=-1.0)
    shares = [one for row in rows for one in abstentions(row.responses, row)]
    before = [one for row in comparisons() for one in abstentions(row.responses, row)]
    assert mean(before) + 0.05 < mean(shares) < 0.15
    prompts = generate("prompts", settings=world(wrong=-1.0), seed=1)
    assert {row.meta["wrong"] for row in (*found, *rows, *prompts)} == {-1.0}


def test_annotators_prefer_an_abstention_to_a_wrong_answer_of_the_same_style():
    """With wrong answers at -1 in all cases; at 0 they are as good."""
    wrongs = 0
    for row in comparisons(wrong=-1.0, noise=0.0, tie_margin=0.0):
        judged = [utility(row.meta, text, True) for text in row.responses]
        for a, b in itertools.permutations(range(len(judged)), 2):
            same = (judged[a].polite, judged[a].rude) == (judged[b].polite, judged[b].rude)
            plain = judged[a].abstains and not judged[b].abstains and not judged[b].right
            if same and plain and judged[a].extra_words == 0:
                wrongs += 1
                assert (a, b) in row.better
    assert wrongs > 30


def test_the_code_hash_covers_the_modules_that_generate(monkeypatch, tmp_path):
    """A copy of the package has the same hash, and one with another line a different one."""
    here = Path(CODE.__file__).parent
    for file in here.glob("*.py"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    before = code_hash()
    monkeypatch.setattr(CODE, "__file__", str(tmp_path / "generate.py"))
    assert code_hash() == before
    with (tmp_path / "measures.py").open("a") as file:
        file.write("# changed\n")
    assert code_hash() == before  # this module generates no records
    with (tmp_path / "people.py").open("a") as file:
        file.write("# changed\n")
    assert code_hash() != before


def test_importing_the_tiny_world_does_not_import_torch():
    code = "import sys, rlhf_cli.tiny_world; sys.exit('torch' in sys.modules)"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_held_out_clusters_are_only_in_evaluation_prompts():
    for role in ("demonstrations", "comparisons"):
        found = {r.meta["cluster"] for r in generate(role, settings=SETTINGS, seed=1)}
        assert found == set(TRAINED)
    prompts = generate("prompts", settings=SETTINGS, seed=1)
    held_out = [p for p in prompts if p.meta["held_out"]]
    assert {p.meta["cluster"] for p in held_out} == set(HELD_OUT)
    assert len(held_out) == 30
    assert all(p.meta["eval"] == p.meta["held_out"] for p in prompts)


def test_thousands_of_prompts_are_distinct():
    prompts = generate("prompts", settings=world(prompts=3000), seed=1)
    assert len({p.messages[0].content for p in prompts}) == len(prompts) == 3030


def test_more_prompts_than_exist_are_filled_with_repetitions():
    assert len(generate("prompts", settings=world(held_out_prompts=0, prompts=20), seed=1)) == 20


def test_demonstrations_are_good_but_not_optimal():
    rows = generate("demonstrations", settings=world(demonstrations=800), seed=1)
    results = [utility(r.meta, r.messages[-1].content, True) for r in rows]
    assert 0.7 < mean(v.right for v in results) < 0.9
    assert 0.05 < mean(v.rude for v in results) < 0.2
    assert mean(v.utility for v in results) < 2.0


def test_rankings_without_noise_follow_the_utility():
    rows = comparisons(noise=0.0, tie_margin=0.0)
    for row in rows:
        values = row.meta["utilities"]
        assert all(values[w] > values[b] for w, b in row.better)
        assert all(values[i] == values[j] for i, j in row.ties)
    assert ceiling(rows) == 1.0


def test_every_pair_is_ranked_or_tied_once_and_responses_are_distinct():
    for row in comparisons():
        k = len(row.responses)
        assert 4 <= k <= 9
        assert len(set(row.responses)) == k == len(row.meta["utilities"])
        seen = [tuple(sorted(pair)) for pair in row.better + row.ties]
        assert len(seen) == len(set(seen)) == k * (k - 1) // 2


def test_rankings_are_transitive():
    for row in comparisons(tie_margin=0.5):
        tied = {frozenset(pair) for pair in row.ties}
        better = set(row.better)
        for a, b in row.better:
            for c in range(len(row.responses)):
                if (b, c) in better or frozenset((b, c)) in tied:
                    assert (a, c) in better


def test_rank_groups_of_values_by_hand():
    assert rank_groups([1.0, 3.0, 2.95, 2.0], 0.1) == [2, 0, 0, 1]
    assert rank_groups([1.0, 1.05, 1.1], 0.1) == [0, 0, 0]  # a chain of near neighbours
    assert rank_groups([1.0, 1.0, 2.0], 0.0) == [1, 1, 0]


def test_a_wider_tie_margin_gives_more_ties():
    counts = [sum(len(r.ties) for r in comparisons(tie_margin=m)) for m in (0.0, 0.2, 1.0)]
    assert counts[0] < counts[1] < counts[2]


def test_annotator_noise_lowers_the_accuracy_ceiling():
    found = [ceiling(comparisons(noise=n)) for n in (0.1, 0.5, 3.0)]
    assert 1 > found[0] > found[1] > found[2] > 0.5
    assert 0.84 < found[1] < 0.94


def test_the_accuracy_ceiling_of_equal_utilities_is_chance():
    rows = comparisons()
    flat = [dataclasses.replace(r, meta={"utilities": (0.0,) * len(r.responses)}) for r in rows]
    assert ceiling(flat) == 0.5


def longer_wins(rows) -> float:
    lengths = [[len(text.split()) for text in row.responses] for row in rows]
    return mean(
        n[w] > n[b]
        for row, n in zip(rows, lengths, strict=True)
        for w, b in row.better
        if n[w] != n[b]
    )


def list_wins(rows) -> float:
    lists = [[text.startswith("- ") for text in row.responses] for row in rows]
    return mean(
        k[w] for row, k in zip(rows, lists, strict=True) for w, b in row.better if k[w] != k[b]
    )


def test_length_and_format_biases_change_the_rankings():
    assert longer_wins(comparisons(length_bias=0.3)) > longer_wins(comparisons()) + 0.15
    assert list_wins(comparisons(format_bias=3.0)) > list_wins(comparisons()) + 0.15


def test_the_accuracy_ceiling_includes_the_biases():
    """The biases are part of the annotators' utilities; only their noise lowers the ceiling."""
    assert ceiling(comparisons(length_bias=0.3, noise=0.0)) == 1.0
