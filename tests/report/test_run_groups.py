"""Runs that differ in the seed alone are one column: which do, and the means of their figures."""

import pytest
from scipy import stats

from rlhf_cli.report.run_groups import (
    closing_rows,
    colours_of,
    grouped,
    heading_of,
    means_of,
    policies_of,
)
from tests.support.run_files import answer, figure, run_of


def test_runs_with_the_same_settings_but_the_seed_are_one_group():
    config = {"sft.epochs": 2, "data.date": "2026-01-01"}
    later = {"sft.epochs": 2, "data.date": "2026-01-02"}
    runs = [
        run_of("a", seed=1, stages={"sft": {"config": config | {"seed": 1}}}),
        run_of("b", seed=2, stages={"sft": {"config": later | {"seed": 2}}}),
        run_of("c", seed=1, stages={"sft": {"config": {"sft.epochs": 3, "seed": 1}}}),
    ]
    groups = grouped(runs)
    assert [[run.state.name for run in group.runs] for group in groups] == [["a", "b"], ["c"]]
    assert [group.label for group in groups] == ["a and 1 more", "c"]
    assert grouped(runs[:2])[0].label == grouped(runs[2:])[0].label == ""


@pytest.mark.parametrize(
    ("changes", "others"),
    [
        (
            {"data": {"data.prompts": {"a.jsonl": "1"}}},
            {"data": {"data.prompts": {"a.jsonl": "2"}}},
        ),
        ({"parents": {"base": "1"}}, {"parents": {"base": "2"}}),
        ({"config": {"sft.optim.lr": 1}}, {"config": {"sft.optim.lr": 2}}),
    ],
)
def test_other_content_another_parent_or_setting_is_another_group(changes, others):
    assert (
        len(grouped([run_of("a", stages={"sft": changes}), run_of("b", stages={"sft": others})]))
        == 2
    )


def test_the_name_of_a_file_and_a_parent_made_in_the_run_do_not_count():
    one = {"sft": {"data": {"d": {"a.jsonl": "1"}}}, "rm": {"parents": {"sft": "x"}}}
    other = {"sft": {"data": {"d": {"b.jsonl": "1"}}}, "rm": {"parents": {"sft": "y"}}}
    assert len(grouped([run_of("a", stages=one), run_of("b", seed=2, stages=other)])) == 1


def test_a_figure_of_several_seeds_is_their_mean_with_students_interval():
    values = {1: 0.5, 2: 0.6, 3: 0.9}
    runs = [
        run_of(f"s{s}", seed=s, figures=[figure(value=v, policy="PPO")]) for s, v in values.items()
    ]
    (mean,) = means_of(grouped(runs))
    low, high = stats.t.interval(0.95, 2, loc=2 / 3, scale=stats.sem([0.5, 0.6, 0.9]))
    assert (mean.column, mean.runs, mean.count) == ("PPO", 3, 60)
    assert (mean.value, mean.low, mean.high) == pytest.approx((2 / 3, low, high))


def test_a_figure_of_one_run_keeps_its_own_interval():
    (mean,) = means_of(grouped([run_of(figures=[figure(value=0.5, policy="PPO")])]))
    assert (mean.value, mean.low, mean.high, mean.runs) == (0.5, 0.4, 0.6, 1)
    bare = figure(value=2.0, low=None, high=None)
    (mean,) = means_of(grouped([run_of(figures=[bare])]))
    assert (mean.column, mean.value, mean.low) == ("figure", 2.0, None)


def test_figures_that_differ_in_a_name_are_not_one():
    names = [{}, {"judge": "check"}, {"prompts": "vicuna"}, {"group": "safe"}, {"policy": "SFT"}]
    found = [figure(value=0.1 * i, **({"policy": "PPO"} | one)) for i, one in enumerate(names)]
    runs = [run_of("a", figures=found), run_of("b", seed=2, figures=found)]
    assert sorted(mean.value for mean in means_of(grouped(runs))) == pytest.approx(
        [0.0, 0.1, 0.2, 0.3, 0.4]
    )


def test_columns_are_ordered_and_coloured_by_policy_then_group():
    rows = {"base": {}, "SFT": {}}
    runs = [
        run_of("a", rows=rows, stages={"sft": {"config": {"x": 1}}}),
        run_of("b", rows=rows | {"PPO": {}}, stages={"sft": {"config": {"x": 2}}}),
    ]
    groups = grouped(runs)
    assert colours_of(groups) == {
        "base · a": "neutral", "base · b": "neutral", "SFT · a": "c1", "SFT · b": "c2",
        "PPO · a": "c3", "PPO · b": "c4",
    }  # fmt: skip
    assert heading_of("SFT · a") == ["SFT", "a"] and heading_of("SFT") == ["SFT"]
    many = {f"p{i}": {} for i in range(11)}
    assert list(colours_of(grouped([run_of(rows=many)])).values())[8:] == ["c9", "c1", "c2"]


def test_policies_are_those_of_tables_figures_and_answers():
    run = run_of(rows={"SFT": {}}, figures=[figure(policy="PPO")], answers=[answer("DPO")])
    assert policies_of(grouped([run])) == ["SFT", "PPO", "DPO"]


def test_the_closing_rows_are_means_over_seeds():
    runs = [
        run_of("a", seed=1, rows={"SFT": {"score": [1.0, 0.9, 1.1], "kl": None}}),
        run_of("b", seed=2, rows={"SFT": {"score": [2.0, 1.9, 2.1], "kl": None}}),
    ]
    half = 12.706205 * 0.5  # Student's quantile with one degree of freedom, standard error 1/2
    rows = closing_rows(grouped(runs))
    assert rows["SFT"]["score"] == pytest.approx((1.5, 1.5 - half, 1.5 + half))
    assert rows["SFT"]["kl"] is None
    assert closing_rows(grouped(runs[:1]))["SFT"]["score"] == (1.0, 0.9, 1.1)
