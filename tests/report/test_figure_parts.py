"""Figures of results.json in charts and tables: every figure once, unknown parts and measures too."""

from rlhf_cli.report.figure_parts import MANY, part_blocks
from rlhf_cli.report.run_groups import colours_of, grouped, means_of
from tests.support.run_files import figure, run_of

PPO, SFT = {"policy": "PPO"}, {"policy": "SFT"}


def blocks(part: str, *figures) -> list[dict]:
    groups = grouped([run_of(figures=list(figures))])
    return part_blocks(part, means_of(groups), colours_of(groups))


def shown(block: dict) -> list[tuple]:
    """Return (line, colour, value) of every dot of a chart."""
    return [(block["lines"][p["line"]], p["colour"], p["value"]) for p in block["points"]]


def legend(block: dict) -> list[str]:
    return [one["name"] for one in block["legend"]]


def test_win_rates_have_a_chart_per_judge_with_a_series_per_set_of_prompts():
    check, score = ({"judge": judge, "group": "SFT"} | PPO for judge in ("check", "score"))
    over_data = check | {"group": "reference"}
    first, second, third = blocks(
        "win_rates",
        figure(value=0.8, **check),
        figure("win_rate_controlled", 0.7, **check),
        figure(value=0.6, prompts="vicuna", **check),
        figure(value=0.9, **score),
        figure(value=0.95, prompts="vicuna", **score),
        figure(value=0.3, **over_data),
        figure(value=0.4, prompts="vicuna", **over_data),
    )
    assert first["title"] == "Over SFT, by a second reward model (check)"
    assert first["reference"] == 0.5
    assert shown(first) == [("PPO", "c1", 0.8), ("PPO", "c2", 0.7), ("PPO", "c3", 0.6)]
    assert legend(first) == [
        "held-out prompts", "held-out prompts, lengths made equal", "vicuna",
    ]  # fmt: skip
    assert second["title"] == "Over SFT, by the score that was optimised"
    assert third["title"] == "Over the data's responses, by a second reward model (check)"
    assert first["numbers"]["rows"][0] == {
        "head": ["PPO", "held-out prompts"], "cells": [["0.80", "[0.70, 0.90]"], ["20"], ["1"]],
    }  # fmt: skip


def test_values_on_other_prompts_have_a_chart_per_judge_and_gaps_a_table():
    names = {"part": "generalisation", "judge": "gold"} | PPO
    chart, table = blocks(
        "generalisation",
        figure("value", 2.0, **names),
        figure("value", 1.5, prompts="vicuna", **names),
        figure("value_gap", 0.5, prompts="vicuna", **names),
    )
    assert chart["title"] == "Mean value, by gold utility"
    assert shown(chart) == [("PPO", "c1", 2.0), ("PPO", "c2", 1.5)]
    assert table["columns"] == [["PPO"]] and table["rows"] == [
        {
            "head": ["Gap of the mean value", "vicuna, by gold utility"],
            "cells": [["0.50", "[0.40, 0.60]"]],
        }
    ]


def test_diversity_has_a_chart_per_measure_with_both_kinds():
    names = [f"ead/{kind}" for kind in ("per_input", "across_input")]
    found = [figure(name, 0.5, part="diversity", **who) for name in names for who in (PPO, SFT)]
    found += [figure("entropy", 1.0, part="diversity", **who) for who in (PPO, SFT)]
    found += [
        figure("ead/per_input", 0.9, part="diversity", group="1", **who) for who in (PPO, SFT)
    ]
    found += [figure("ead/per_input_std", 0.1, part="diversity", **PPO)]
    ead, entropy, table = blocks("diversity", *found)
    assert ead["title"] == "Distinct phrases (EAD)" and "Higher: more diverse." in ead["caption"]
    assert legend(ead) == ["several answers to one prompt", "one answer per prompt"]
    assert ead["lines"] == ["PPO", "SFT"] and len(ead["points"]) == 4
    assert shown(entropy) == [("PPO", "c1", 1.0), ("SFT", "c2", 1.0)]
    assert entropy["legend"] == []
    assert [row["head"] for row in table["rows"]] == [
        ["Distinct phrases (EAD), per input", "sequences of 1"],
        ["Distinct phrases (EAD), per input, standard deviation"],
    ]


def test_changes_of_log_probability_are_drawn_by_side_and_the_values_are_a_table():
    measures = ("logprob", "logprob_minus_base")
    found = [
        figure(measure, 1.0, part="imitation", group=side, **who)
        for measure in measures
        for side in ("chosen", "rejected")
        for who in (PPO, SFT)
    ]
    chart, table = blocks("imitation", *found)
    assert chart["title"] == "Change of log-probability per response, in nats"
    assert legend(chart) == ["preferred by people", "rejected by people"]
    assert len(table["rows"]) == 2 and len(table["columns"]) == 2


def test_scores_have_the_band_of_their_quantiles():
    names = {"part": "reward_model", "judge": "score"} | PPO
    ends = [
        figure("score", v, group=q, **names) for q, v in (("q05", -1.0), ("q50", 0.1), ("q95", 2.0))
    ]
    sft = figure("score", 0.0, part="reward_model", judge="score", **SFT)
    chart, table = blocks("reward_model", figure("score", 0.5, **names), sft, *ends)
    assert [p["band"] for p in chart["points"]] == [(-1.0, 2.0), None]
    assert [row["head"][1] for row in table["rows"]] == [
        f"{q}, by the score that was optimised" for q in ("q05", "q50", "q95")
    ]


def test_probes_are_one_chart_by_kind_with_the_length_baseline():
    found = [
        figure(measure, 0.5, part="probes", group=kind, judge=judge)
        for kind in (None, "polite")
        for measure, judge in (("accuracy", "score"), ("length_baseline", None))
    ]
    (chart,) = blocks("probes", *found)
    assert chart["lines"] == ["all kinds", "polite"] and chart["reference"] == 0.5
    assert legend(chart) == ["the score that was optimised", "Preferring the longer answer"]


def test_a_measure_with_groups_has_a_line_per_group_and_a_series_per_policy():
    found = [
        figure("xstest/refusals", 0.5, part="suites", group=group, **who)
        for group in (None, "safe", "unsafe")
        for who in (PPO, SFT)
    ]
    (chart,) = blocks("suites", *found)
    assert chart["title"] == "XSTest, refusals" and chart["lines"] == ["all", "safe", "unsafe"]
    assert legend(chart) == ["PPO", "SFT"]


def test_figures_of_one_policy_per_group_have_a_line_each():
    people = figure("agreement", 0.8, part="reward_model", judge="check", group="comparisons")
    ours = figure("agreement", 0.6, part="reward_model", judge="check", **PPO)
    (chart,) = blocks("reward_model", people, ours)
    assert chart["lines"] == ["PPO", "comparisons"] and chart["legend"] == []
    assert shown(chart) == [("PPO", "c1", 0.6), ("comparisons", "accent", 0.8)]


def test_figures_that_nothing_compares_with_are_in_a_table():
    new = [figure("some_thing", 3.0, part="news", low=None, high=None, **who) for who in (PPO, {})]
    alone = figure("other", 1234.5, part="news", low=None, high=None)
    chart, table = blocks("news", *new, alone)
    assert chart["kind"] == "dots" and chart["title"] == "Some thing"
    assert table["columns"] == [["figure"]] and table["rows"][0]["cells"] == [["1,234"]]


def test_too_many_figures_are_a_table():
    many = [figure("accuracy", 0.5, part="probes", group=str(i)) for i in range(MANY + 1)]
    (folded,) = blocks("probes", *many)
    (table,) = folded["blocks"]
    assert folded["kind"] == "fold" and folded["title"] == "more figures"
    assert table["kind"] == "table" and len(table["rows"]) == MANY + 1
    (short,) = blocks("probes", figure("accuracy", 0.5, part="probes", group="a"))
    assert short["kind"] == "table"
    (chart,) = blocks("probes", *many[1:])
    assert chart["kind"] == "dots"
