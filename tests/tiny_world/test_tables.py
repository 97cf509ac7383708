"""Tables of questions: what a row holds, what is evaluated, and what no two tables share."""

from collections import Counter
from random import Random

import pytest

from rlhf_cli.tiny_world import vocabulary as words
from rlhf_cli.tiny_world.rows import THREE_WAY
from rlhf_cli.tiny_world.tables import EVAL, MOST, MOST_EVAL, TABLES, table_names, table_rows
from tests.support.tiny_world import outputs_of_processes

BOTH = [pytest.param(name, id=name) for name in TABLES]


def question(row: dict) -> tuple:
    return tuple(v for k, v in row.items() if k not in ("answer", "choices", "rationale"))


def every_row(name: str) -> list[dict]:
    return table_rows(name) + table_rows(name + EVAL)


def test_every_cluster_has_two_tables_or_more():
    clusters = Counter(table.cluster for table in TABLES.values())
    assert min(clusters.values()) >= 2
    assert {"nli", "paraphrase", "coreference", "reasoning", "facts", "towns"} <= clusters.keys()


@pytest.mark.parametrize("name", BOTH)
def test_questions_differ_and_none_is_trained_on_and_evaluated(name):
    rows, evaluated = table_rows(name), table_rows(name + EVAL)
    asked = [question(row) for row in rows + evaluated]
    assert len(set(asked)) == len(asked) <= MOST
    assert len(evaluated) == min(MOST_EVAL, len(asked) // 3) >= 8


@pytest.mark.parametrize("name", BOTH)
def test_the_options_hold_the_answer_once(name):
    for row in every_row(name):
        options = row.get("choices", [row["answer"]])
        assert options.count(row["answer"]) == 1
        assert len(set(options)) == len(options)
        assert name == "step_sums" or len(options) >= 2


@pytest.mark.parametrize("name", BOTH)
def test_verdicts_are_as_frequent_as_each_other(name):
    found = Counter(row["answer"] for row in every_row(name) if row["answer"] in THREE_WAY)
    assert not found or len(set(found.values())) == 1


def test_answers_are_in_no_constant_place():
    """A model that always takes the first option is right as seldom as chance is."""
    for name in ("animal_facts", "pick_kind", "odd_one_out", "pronoun", "to_past"):
        rows = every_row(name)
        first = sum(row["choices"][0] == row["answer"] for row in rows) / len(rows)
        assert abs(first - 1 / len(rows[0]["choices"])) < 0.15, name


def test_no_two_clusters_share_a_question():
    seen: dict[str, str] = {}
    for table in TABLES.values():
        rng = Random(0)
        drawn = [table.ask(table.draw(rng), rng) for _ in range(300)]
        for text in drawn:
            assert seen.setdefault(text, table.cluster) == table.cluster, text


@pytest.mark.parametrize(
    ("columns", "answer"),
    [
        ({"premise": "the big cow saw the dog", "hypothesis": "the cow saw the dog"}, "yes"),
        ({"premise": "the big cow saw the dog", "hypothesis": "the cow never saw the dog"}, "no"),
        ({"premise": "the big cow saw the dog", "hypothesis": "the dog saw the cow"}, THREE_WAY[1]),
    ],
)
def test_what_follows_from_a_sentence(columns, answer):
    """The same by rule as the table answers, on all its rows."""
    assert judged(columns) == answer
    for row in every_row("nli_events"):
        assert judged(row) == row["answer"]


def judged(row: dict) -> str:
    _, _, who, past, _, whom = row["premise"].split()
    claim = row["hypothesis"]
    if claim == f"the {who} {past} the {whom}":
        return "yes"
    return "no" if claim == f"the {who} never {past} the {whom}" else THREE_WAY[1]


def test_a_passive_sentence_is_the_same_if_agent_and_patient_are_turned_around():
    for row in every_row("same_sentence"):
        _, who, _, _, whom = row["first"].split()
        _, patient, _, _, _, _, agent = row["second"].split()
        assert (row["answer"] == "yes") == ((agent, patient) == (who, whom))


def test_pronouns_and_things_that_do_not_fit():
    for row in every_row("pronoun"):
        people = words.MEN if " he was" in row["text"] else words.WOMEN
        assert row["answer"].removeprefix("the ") in people
    for row in every_row("fit"):
        is_container = row["answer"].removeprefix("the ") in words.CONTAINERS
        assert is_container == (row["size"] == "small")


def test_sums_in_steps_are_computed_and_never_below_nothing():
    for row in every_row("step_sums"):
        number, *changes = (
            row["story"].replace(".", "").split(" She " if " She " in row["story"] else " He ")
        )
        value = int(number.split()[-2])
        for change in changes:
            verb, by = change.split()
            value += int(by) * (1 if verb in words.GAINS else -1)
            assert value >= 1
        assert row["answer"] == str(value)
        assert 2 <= row["rationale"].count(".") <= 3


def test_a_name_that_is_none_is_refused():
    assert set(table_names()) == {f"{name}{suffix}" for name in TABLES for suffix in ("", EVAL)}
    with pytest.raises(KeyError):
        table_rows("nosuch")


def test_tables_do_not_depend_on_the_process():
    code = (
        "import hashlib; from rlhf_cli.tiny_world.tables import *; "
        "print(hashlib.sha256(repr([table_rows(n) for n in ('larger', 'nli_kinds', 'step_facts')])"
        ".encode()).hexdigest())"
    )
    assert len(outputs_of_processes(code)) == 1
