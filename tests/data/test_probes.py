"""The shipped probes are balanced in length; a file of another form is refused in one line."""

from collections import Counter

import pytest

from rlhf_cli.config.keys import probes_file
from rlhf_cli.config.schema import Ties
from rlhf_cli.data.probes import read_probes
from rlhf_cli.data.records import DataError
from rlhf_cli.data.validate import validate
from rlhf_cli.evaluation.probes import unknown_share

KINDS = ("informative", "polite", "overview", "honest_doubt", "plain")


def test_in_every_kind_of_the_shipped_probes_half_of_the_better_answers_are_shorter():
    """So a reward model of the length alone is right half of the time, whatever it counts."""
    probes = read_probes(probes_file("probes"))
    assert Counter(one.meta["subset"] for one in probes) == dict.fromkeys(KINDS, 12)
    for size in (len, lambda text: len(text.split()), lambda text: len(text.encode())):
        shorter = Counter(
            one.meta["subset"] for one in probes if size(one.responses[0]) < size(one.responses[1])
        )
        longer = Counter(
            one.meta["subset"] for one in probes if size(one.responses[0]) > size(one.responses[1])
        )
        assert shorter == longer == dict.fromkeys(KINDS, 6)
    assert len({one.prompt for one in probes}) == 60
    for one in probes:
        validate(one, ties=Ties.drop)


def test_real_tokenizers_have_tokens_for_the_shipped_probes(gpt2, stories):
    """All but pictures and a few signs; and by their tokens too half of the better are shorter."""
    probes = read_probes(probes_file("probes"))
    texts = [text for one in probes for text in (one.prompt[0].content, *one.responses)]
    for tokenizer in (gpt2, stories):
        assert unknown_share(tokenizer, texts) < 0.03
        sizes = [[len(tokenizer(text)["input_ids"]) for text in one.responses] for one in probes]
        assert sum(better < worse for better, worse in sizes) == 30


def test_a_file_of_ones_own_gives_comparisons_whose_first_answer_is_better(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "short:\n- {prompt: a, better: b, worse: c}\nlong:\n- {prompt: d, better: e, worse: 5}"
    )
    one, two = read_probes(path)
    assert (one.prompt[0].role, one.prompt[0].content) == ("user", "a")
    assert (one.responses, one.better, one.meta) == (("b", "c"), ((0, 1),), {"subset": "short"})
    assert (two.responses, two.meta) == (("e", "5"), {"subset": "long"})
    assert str(two.origin) == f"{path} row 1"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("- {prompt: a}", "expected kinds, each with a list of {prompt, better, worse}"),
        ("", "found empty, expected kinds"),
        ("kind: []", ": kind is empty; it must be a list"),
        ("kind: {prompt: a}", ": kind is a mapping; it must be a list"),
        ("kind:\n- {prompt: a, better: b}", ": kind, entry 1: worse is missing; it must be a text"),
        (
            "kind:\n- {prompt: a, better: b, worse: c}\n- {prompt: a, beter: b, worse: c}",
            ": kind, entry 2: unknown key 'beter': did you mean better?",
        ),
        ("kind:\n- {prompt: a, better: b, worse: ' '}", "entry 1: worse is ' '; it must be a text"),
        ("kind:\n- {prompt: a, better: b, worse: b }", "entry 1: better and worse are the same"),
        ("kind:\n- {prompt: 'a}", ":3: found unexpected end of stream"),
    ],
)
def test_a_file_of_another_form_is_refused_with_its_entry(tmp_path, content, expected):
    path = tmp_path / "mine.yaml"
    path.write_text(content + "\n")
    with pytest.raises(DataError) as error:
        read_probes(path)
    assert str(path) in str(error.value) and expected in str(error.value)
    assert "\n" not in str(error.value)
