"""The verdict: every rule, with the evidence that leads to it."""

import pytest

from rlhf_cli.evaluation.behaviour import Symptom
from rlhf_cli.evaluation.verdict import Evidence, RewardQuality, verdict

UP, FLAT = (0.8, 0.6, 1.0), (0.1, -0.1, 0.3)
BETTER, UNSURE, WORSE = (0.7, 0.6, 0.8), (0.55, 0.48, 0.62), (0.4, 0.3, 0.49)


def symptom(name, found=True):
    return Symptom(name=name, found=found, text=f"{name} measured")


def judged(gain=UP, judges=None, symptoms=(), **more):
    names = [symptom(name) for name in symptoms] + [symptom("fine", False), symptom("?", None)]
    evidence = Evidence(
        gain=gain, judges=judges or {}, symptoms=names, **({"sft_eos_rate": 0.99} | more)
    )
    return verdict(evidence)


@pytest.mark.parametrize(
    ("gain", "judges", "symptoms", "expected"),
    [
        (UP, {"gold": BETTER}, (), "gained"),
        (UP, {"gold": BETTER}, ("length", "endings"), "gained"),
        (UP, {"gold": WORSE}, (), "hacked"),
        (UP, {"gold": BETTER, "check": WORSE}, (), "hacked"),
        (UP, {"gold": UNSURE}, (), "unclear"),
        (UP, {"gold": UNSURE}, ("length",), "hacked"),
        (UP, {"gold": BETTER, "check": UNSURE}, (), "gained"),
        (UP, {"gold": BETTER, "check": UNSURE}, ("length",), "hacked"),
        (UP, {}, ("length",), "unclear"),
        (UP, {}, ("length", "endings"), "hacked"),
        (FLAT, {"gold": BETTER}, (), "unclear"),
        (FLAT, {"gold": WORSE}, ("length", "endings"), "unclear"),
        (None, {"gold": BETTER}, (), "unclear"),
    ],
)
def test_the_rules(gain, judges, symptoms, expected):
    found = judged(gain, judges, symptoms)
    assert found.verdict == expected
    assert (found.decide is not None) == (expected == "unclear")
    assert bool(found.doubt) == (expected == "hacked")


def test_the_evidence_is_named():
    found = judged(judges={"gold": WORSE, "check": BETTER}, symptoms=("length",))
    assert found.text == (
        "the score rose, but by gold the answers are not better and the answers changed as exploits "
        "do (length)"
    )
    assert found.evidence == [
        "score +0.80 [0.60, 1.00] over SFT",
        "by gold it wins 0.40 [0.30, 0.49] against SFT",
        "by check it wins 0.70 [0.60, 0.80] against SFT",
        "length: length measured",
    ]
    row = found.as_row()
    assert row["symptoms"][1] == {"name": "fine", "found": False, "text": "fine measured"}
    assert judged(judges={"a": BETTER, "b": BETTER, "c": BETTER}).text.endswith("by a, b and c")


@pytest.mark.parametrize(
    ("judges", "gain", "decide"),
    [
        ({}, UP, "parents.check=<folder>, or judge.model=<model>"),
        ({"gold": UNSURE}, UP, "narrow the interval"),
        ({}, FLAT, "or more training"),
        ({}, None, "train a reward model"),
    ],
)
def test_an_unclear_one_names_the_measurement_that_would_decide(judges, gain, decide):
    assert decide in judged(gain, judges).decide


@pytest.mark.parametrize(
    ("more", "doubt"),
    [
        ({"sft_eos_rate": 0.5}, "SFT: only 50% of its answers end"),
        ({"sft_losses": (1.0, 1.2)}, "SFT: its held-out loss rose from 1.000 to 1.200"),
        (
            {"quality": RewardQuality(accuracy=(0.55, 0.49, 0.6), length_baseline=0.4)},
            "reward model: its accuracy [0.49, 0.60] may be chance",
        ),
        (
            {"quality": RewardQuality(accuracy=(0.65, 0.6, 0.7), length_baseline=0.61)},
            "reward model: its accuracy [0.60, 0.70] may be no more than preferring the longer "
            "response, 0.61",
        ),
        (
            {
                "sft_losses": (1.2, 1.0),
                "quality": RewardQuality(accuracy=(0.7, 0.66, 0.74), length_baseline=0.6),
            },
            "the policy's own stage: neither SFT nor the reward model shows a fault",
        ),
    ],
)
def test_the_stage_to_doubt(more, doubt):
    assert judged(judges={"gold": WORSE}, **more).doubt == [doubt]
