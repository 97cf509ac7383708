"""Figures of results.json in charts and tables: every figure once, unknown parts and measures too."""

import pytest

from rlhf_cli.report.figure_charts import MANY, figure_cell, part_blocks
from rlhf_cli.report.figure_words import label_of_measure, other_sections
from rlhf_cli.report.run_groups import colours_of, grouped, means_of
from tests.support.run_files import figure, run_of

PPO, BON = {"policy": "PPO"}, {"policy": "SFT, best of 8"}


def blocks(part: str, *figures) -> list[dict]:
    groups = grouped([run_of(figures=list(figures))])
    return part_blocks(part, means_of(groups), colours_of(groups))


def shown(block: dict) -> list[tuple]:
    """Return (line, colour, value) of every dot of a chart."""
    return [(block["lines"][p["line"]], p["colour"], p["value"]) for p in block["points"]]


def test_win_rates_have_a_chart_per_judge_with_a_series_per_set_of_prompts():
    check, proxy = {"judge": "check"} | PPO, {"judge": "reward model"} | PPO
    first, second = blocks(
        "win_rates",
        figure(value=0.8, **check),
        figure("win_rate_controlled", 0.7, **check),
        figure(value=0.6, prompts="vicuna", **check),
        figure(value=0.9, **proxy),
        figure(value=0.95, prompts="vicuna", **proxy),
    )
    assert first["title"] == "Preferred by: check" and first["reference"] == 0.5
    assert shown(first) == [("PPO", "c1", 0.8), ("PPO", "c2", 0.7), ("PPO", "c3", 0.6)]
    assert [one["name"] for one in first["legend"]] == [
        "held-out prompts", "held-out prompts, lengths made equal", "vicuna",
    ]  # fmt: skip
    assert second["title"] == "Preferred by: reward model, which was optimised"
    assert first["numbers"]["rows"][0] == {
        "head": ["PPO", "held-out prompts"], "cells": [["0.80", "[0.70, 0.90]"], ["20"], ["1"]],
    }  # fmt: skip


def test_diversity_has_a_chart_per_measure_with_both_kinds():
    names = [f"ead/{kind}" for kind in ("per_input", "across_input")]
    ead, entropy = blocks(
        "diversity",
        *(figure(name, 0.5, part="diversity", **who) for name in names for who in (PPO, BON)),
        *(figure("entropy", 1.0, part="diversity", **who) for who in (PPO, BON)),
    )
    assert ead["title"] == "Distinct phrases (EAD)" and "Higher: more diverse." in ead["caption"]
    assert [one["name"] for one in ead["legend"]] == [
        "several answers to one prompt", "one answer per prompt",
    ]  # fmt: skip
    assert ead["lines"] == ["PPO", "SFT, best of 8"] and len(ead["points"]) == 4
    assert shown(entropy) == [("PPO", "c1", 1.0), ("SFT, best of 8", "c2", 1.0)]
    assert entropy["legend"] == []


def test_a_measure_with_groups_has_a_line_per_group_and_a_series_per_policy():
    groups = ("safe", "unsafe")
    found = [
        figure("xstest/refusals", 0.5, part="suites", group=g, **w)
        for g in groups
        for w in (PPO, BON)
    ]
    (chart,) = blocks("suites", *found)
    assert chart["title"] == "Xstest, refusals" and chart["lines"] == ["safe", "unsafe"]
    assert [one["name"] for one in chart["legend"]] == ["PPO", "SFT, best of 8"]


def test_chosen_and_rejected_responses_share_a_chart():
    found = [
        figure(m, 1.0, part="imitation", **w) for m in ("chosen", "rejected") for w in (PPO, BON)
    ]
    (chart,) = blocks("imitation", *found)
    assert [one["name"] for one in chart["legend"]] == ["preferred responses", "rejected responses"]


def test_gaps_and_figures_without_others_are_in_a_table():
    gap = figure("gap", 0.2, part="generalisation", judge="check", prompts="vicuna", **PPO)
    (table,) = blocks("generalisation", gap)
    assert table["columns"] == [["PPO"]] and table["rows"] == [
        {
            "head": ["gap: held-out prompts minus these", "vicuna, by check"],
            "cells": [["0.20", "[0.10, 0.30]"]],
        }
    ]
    new = [figure("some_thing", 3.0, part="news", low=None, high=None, **w) for w in (PPO, {})]
    both, alone = blocks("news", *new, figure("other", 1234.5, part="news", low=None, high=None))
    assert both["kind"] == "dots" and both["title"] == "Some thing"
    assert alone["columns"] == [["figure"]] and alone["rows"][0]["cells"] == [["1,234"]]


def test_too_many_lines_are_a_table():
    many = [figure("accuracy", 0.5, part="probes", group=str(i)) for i in range(MANY + 1)]
    (table,) = blocks("probes", *many)
    assert table["kind"] == "table" and len(table["rows"]) == MANY + 1
    (chart,) = blocks("probes", *many[1:])
    assert chart["kind"] == "dots"


def test_every_part_has_a_section_and_an_unknown_one_keeps_its_name():
    parts = ("win_rates", "suites", "brand_new")
    sections = other_sections(parts)
    assert [one.title for one in sections if "brand_new" in one.parts] == ["Brand new"]
    assert sum("suites" in one.parts for one in sections) == 1
    assert not [one for one in sections if "win_rates" in one.parts]


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("gap", "gap: held-out prompts minus these"),
        ("toxicity/mean_of_maxima", "toxicity, mean of maxima"),
        ("ead/per_input", "Distinct phrases (EAD), per input"),
    ],
)
def test_measures_are_named_in_words(measure, expected):
    assert label_of_measure(measure) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((0.5, 0.4, 0.6), ["0.50", "[0.40, 0.60]"]),
        ((0.01234, None, None), ["0.0123"]),
        ((45678.9, None, None), ["45,679"]),
    ],
)
def test_a_figure_has_its_interval_below_it(found, expected):
    assert figure_cell(*found) == expected
