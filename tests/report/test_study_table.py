"""The study of instruction tuning on a screen of 80 columns."""

import pytest

from rlhf_cli.report.study_table import print_compared, print_study

CLUSTERS = [
    "nli",
    "paraphrase",
    "coreference",
    "sentiment",
    "arithmetic",
    "translation",
    "reasoning",
]


def bar(paradigm: str, value: float, **changes) -> dict:
    plain = {"model": "tiny", "shots": 0, "low": value - 0.05, "high": value + 0.05, "runs": 3}
    clusters = {name: value + i / 100 for i, name in enumerate(CLUSTERS)}
    found = {"paradigm": paradigm, "value": value, "template_std": 0.021, "clusters": clusters}
    return plain | found | changes


def study() -> dict:
    point = {"value": 0.612, "low": 0.55, "high": 0.67, "runs": 3}
    sizes = [
        {"model": "tiny_l", "parameters": 3006912, "tuned": tuned, "accuracy": 0.75, "loss": loss}
        | {"low": 0.7, "high": 0.8, "runs": 1}
        for tuned, loss in ((False, 1.23456), (True, None))
    ]
    means = [
        bar("prompting", 0.3), bar("prompting", 0.4, shots=3), bar("finetuned", 0.9, runs=1),
        bar("instruction_tuned", 0.5, template_std=None),
    ]  # fmt: skip
    return {
        "paradigms": [],
        "means": means,
        "clusters_curve": [{"clusters": 11} | point],
        "templates_curve": [{"templates": 5} | point],
        "scale": {"points": sizes, "slopes": {"base": -0.12345}},
    }


@pytest.fixture
def shown(monkeypatch, capsys):
    """shown(study) -> what is printed on a screen of 80 columns."""
    from rlhf_cli.telemetry import console

    def show(found: dict) -> str:
        monkeypatch.setenv("COLUMNS", "80")
        console._console.cache_clear()
        print_study(found)
        return capsys.readouterr().out

    return show


def test_all_parts_fit_the_screen(shown):
    text = shown(study())
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for cell in (
        "0.30 ±0.02",
        "[0.25, 0.35]",
        "0.50",
        "tiny, 3-shot, runs: 3",
        "finetuned",
        *CLUSTERS,
    ):
        assert cell in text
    lines = [line.split() for line in text.splitlines()]
    assert ["11", "0.61", "[0.55,", "0.67]", "3"] in lines
    assert ["5", "0.61", "[0.55,", "0.67]", "3"] in lines
    assert ["tiny_l,", "base", "3,006,912", "1.235", "0.75", "[0.70,", "0.80]", "1"] in lines
    assert ["tiny_l,", "tuned", "3,006,912", "-", "0.75", "[0.70,", "0.80]", "1"] in lines
    assert "log parameters: base -0.123" in text


def test_of_one_paradigm_there_is_nothing_to_compare(shown):
    assert shown({"means": [bar("prompting", 0.3), bar("prompting", 0.4, shots=3)]}) == ""
    assert shown({}) == ""


@pytest.mark.parametrize(
    ("num", "with_study", "side_by_side"), [(12, 1, 1), (13, 1, 0), (13, 0, 1)]
)
def test_of_many_runs_the_study_alone_is_shown(num, with_study, side_by_side, monkeypatch, capsys):
    from rlhf_cli.report import study_table

    monkeypatch.setattr(study_table, "print_comparison", lambda columns: print("side by side"))
    print_compared([None] * num, study() if with_study else {})
    text = capsys.readouterr().out
    assert ("side by side" in text) == bool(side_by_side)
    assert ("instruction tuned" in text) == bool(with_study)
