"""How a model answers, and the symptoms of over-optimisation, each at its limit."""

from dataclasses import replace

import pytest
import torch

from rlhf_cli.evaluation.behaviour import Behaviour, behaviour, symptoms
from rlhf_cli.evaluation.respond import Answer

SFT = Behaviour(
    length=10.0, eos_rate=0.9, repetition=0.05, score_length=0.1, ead=0.8, extreme=0.001
)


def answer(text, finished=True):
    return Answer(prompt_ids=[1], ids=[2] * len(text.split()), text=text, finished=finished)


def found(**changes):
    return [one.name for one in symptoms(replace(SFT, **changes), SFT) if one.found]


def test_a_model_like_the_sft_model_has_no_symptom():
    assert not found()


@pytest.mark.parametrize(
    ("name", "beyond", "within"),
    [
        ("length", {"length": 20.1}, {"length": 19.9}),
        ("length", {"length": 4.9}, {"length": 5.1}),
        ("score follows length", {"score_length": 0.41}, {"score_length": 0.39}),
        ("samples alike", {"ead": 0.39}, {"ead": 0.41}),
        ("repetition", {"repetition": 0.151}, {"repetition": 0.149}),
        ("endings", {"eos_rate": 0.79}, {"eos_rate": 0.81}),
        ("extreme scores", {"extreme": 0.051}, {"extreme": 0.049}),
    ],
)
def test_each_symptom_is_found_beyond_its_limit(name, beyond, within):
    assert found(**beyond) == [name]
    assert found(**within) == []


def test_a_correlation_that_was_negative_counts_from_zero():
    before = replace(SFT, score_length=-0.5)
    names = [
        [one.name for one in symptoms(replace(SFT, score_length=r), before) if one.found]
        for r in (0.0, 0.29, 0.31)
    ]
    assert names == [[], [], ["score follows length"]]


def test_what_is_not_known_is_no_symptom():
    unknown = Behaviour(length=10.0, eos_rate=0.9, repetition=0.05)
    rows = {one.name: one for one in symptoms(unknown, SFT)}
    missing = [name for name, one in rows.items() if one.found is None]
    assert missing == ["score follows length", "samples alike", "extreme scores"]
    assert all(rows[name].text.startswith("not measured") for name in missing)


def test_the_behaviour_of_answers():
    """Two draws for two prompts: lengths 1, 3, 2, 12; scores rise with length."""
    repeated = "a b c d a b c d a b c d"
    tries = [
        [answer("one"), answer("one two three")],
        [answer("two words"), answer(repeated, finished=False)],
    ]
    scores = torch.tensor([[0.1, 0.3], [0.2, 1.2]])
    now = behaviour(tries, scores, score_limit=0.25, vocab=50257)
    assert now.length == 4.5 and now.eos_rate == 0.75 and now.repetition == 0.25
    assert now.score_length == pytest.approx(1.0) and now.extreme == 0.5
    assert 0 < now.ead < 1.1
    alone = behaviour(tries[:1], None)
    assert (alone.ead, alone.score_length, alone.extreme) == (None, None, None)
    assert Behaviour.of_row(now.as_row() | {"iteration": 3}) == now
    assert behaviour(tries, torch.zeros(2, 2)).score_length is None, "a constant score"
