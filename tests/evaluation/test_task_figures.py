"""Figures of tasks, against values worked out by hand."""

import math
from dataclasses import replace
from statistics import stdev

import pytest
import torch

from rlhf_cli.config.schema import Source
from rlhf_cli.core.estimates import mean_interval, wilson_interval
from rlhf_cli.data.tasks.task import Task, TaskSource
from rlhf_cli.evaluation.task_figures import Asked, Outcome, figure, means, table_rows

BLANK = Task(
    name="rte",
    clusters=("nli",),
    source=TaskSource(train=Source(path="rte.jsonl")),
    options=None,
    answer=None,
    rationale=None,
    metric="accuracy",
    templates=(),
)


def outcome(row, value, **found) -> Outcome:
    plain = {"task": "rte", "template": "a", "shots": 0, "asked": Asked.direct, "read": None}
    return Outcome(**{**plain, "row": str(row), "response": "", "value": value, **found})


# Template a is right in 3 rows of 4, b in 1 of 4.
JUDGED = [
    outcome(row, value, template=template, chance=0.5, ranks={"sum": value, "token": 1.0})
    for template, values in {"a": (1, 1, 1, 0), "b": (1, 0, 0, 0)}.items()
    for row, value in enumerate(values)
]


def test_a_figure_is_the_mean_over_templates_with_spread_and_interval():
    found = figure(JUDGED, "accuracy")
    assert found["value"] == 0.5
    assert found["templates"] == {"a": 0.75, "b": 0.25}
    assert found["template_std"] == pytest.approx(stdev([0.75, 0.25]))
    assert found["rows"] == 4
    assert (found["low"], found["high"]) == pytest.approx(wilson_interval(2, 4)[1:])
    assert found["ranks"] == {"sum": 0.5, "token": 1.0}
    assert found["chance"] == 0.5
    assert found["near_chance"]


def test_every_template_has_the_same_weight_whatever_its_rows():
    """Here one row is rendered by a template of its own."""
    other = outcome(
        9, 0.0, template="c", chance=0.25, unreadable=1.0, ranks={"sum": 0.0, "token": 0}, loss=3.0
    )
    found = figure([replace(JUDGED[0], loss=1.0), *JUDGED[1:4], other], "accuracy")
    assert found["value"] == pytest.approx((0.75 + 0) / 2)
    assert found["rows"] == 5
    assert found["ranks"] == {"sum": pytest.approx(0.375), "token": 0.5}
    assert found["chance"] == pytest.approx((0.5 + 0.25) / 2)
    assert found["unreadable"] == 0.5
    assert found["loss"] == 2.0  # of the rows that have one
    assert figure(JUDGED, "accuracy")["loss"] is None


def test_a_graded_metric_has_the_interval_of_its_row_means():
    values = [0.2, 0.5, 0.4, 0.3]
    found = figure([outcome(row, value) for row, value in enumerate(values)], "rouge_l")
    expected = mean_interval(torch.tensor(values, dtype=torch.float64))
    assert (found["value"], found["low"], found["high"]) == pytest.approx(expected)
    assert found["template_std"] is None
    assert found["chance"] is None
    assert not found["near_chance"]


def test_an_interval_above_chance_is_not_near_chance():
    outcomes = [outcome(row, 1.0, chance=0.5) for row in range(40)]
    assert not figure(outcomes, "accuracy")["near_chance"]


def test_votes_and_unreadable_shares_are_means():
    outcomes = [
        outcome(0, 1.0, asked=Asked.votes, unreadable=0.5, votes={1: 0.5, 2: 1.0}),
        outcome(1, 0.0, asked=Asked.votes, unreadable=0.0, votes={1: 0.0, 2: 0.0}),
    ]
    found = figure(outcomes, "accuracy")
    assert found["unreadable"] == 0.25
    assert found["votes"] == {"1": 0.25, "2": 0.5}


def test_table_rows_have_means_of_clusters_and_groups_and_a_macro_mean():
    tasks = [
        BLANK,
        replace(BLANK, name="cb", clusters=("nli", "read"), groups=("ours",)),
        replace(BLANK, name="qa", clusters=("read",), groups=("ours",)),
    ]
    values = {"rte": 0.0, "cb": 1.0, "qa": 0.5}
    outcomes = [outcome(0, value, task=name) for name, value in values.items()]
    chains = [outcome(0, 1.0, task="qa", shots=3, asked=Asked.chain)]
    rows = table_rows({"base": [*chains, *outcomes], "SFT": outcomes[:1]}, tasks)
    keys = [(row["model"], row["shots"], row["asked"]) for row in rows]
    assert keys == [("base", 0, "direct"), ("base", 3, "chain"), ("SFT", 0, "direct")]
    assert rows[0]["clusters"] == {"nli": 0.5, "read": 0.75}
    assert rows[0]["macro"] == pytest.approx((0.5 + 0.75) / 2)
    assert rows[0]["groups"] == {"ours": 0.75}
    assert list(rows[0]["tasks"]) == ["rte", "cb", "qa"]
    assert rows[1]["clusters"] == {"read": 1.0}
    assert rows[2]["groups"] == {}


# cb is in two clusters; sum is graded.
TASKS = [
    BLANK,
    replace(BLANK, name="cb", clusters=("nli", "read"), groups=("ours",)),
    replace(BLANK, name="qa", clusters=("read",), groups=("ours",)),
    replace(BLANK, name="sum", clusters=("write",), metric="rouge_l"),
]


def bounds(found: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), found, strict=True))


def test_the_interval_of_a_mean_is_made_of_those_of_its_tasks():
    figures = {
        "rte": bounds((0.5, 0.4, 0.8)), "cb": bounds((0.3, 0.1, 0.4)), "qa": bounds((0.9, 0.6, 1.0))
    }  # fmt: skip
    found = means(figures, TASKS)["intervals"]
    nli, read = found["clusters"]["nli"], found["clusters"]["read"]
    assert nli == pytest.approx((0.4 - math.hypot(0.05, 0.1), 0.4 + math.hypot(0.15, 0.05)))
    assert read == pytest.approx((0.6 - math.hypot(0.1, 0.15), 0.6 + math.hypot(0.05, 0.05)))
    assert found["groups"] == {"ours": read}
    # cb is in both clusters: a quarter of the mean for each of them, twice.
    low, high = math.hypot(0.1 / 4, 0.2 / 2, 0.3 / 4), math.hypot(0.3 / 4, 0.1 / 2, 0.1 / 4)
    assert found["macro"] == pytest.approx((0.5 - low, 0.5 + high))


def test_the_interval_of_a_mean_over_one_task_is_its_own():
    found = means({"rte": bounds((0.5, 0.4, 0.8))}, TASKS)["intervals"]
    assert found["macro"] == pytest.approx((0.4, 0.8))
    assert found["clusters"] == {"nli": pytest.approx((0.4, 0.8))}
    assert found["groups"] == {}


def test_the_intervals_of_means_cover_the_truth_as_often_as_promised():
    """Simulated tasks of few rows: right or wrong, rarely wrong, and graded."""
    generator, runs = torch.Generator().manual_seed(2), 400
    sizes = {"rte": (40, 0.3), "cb": (25, 0.95), "qa": (60, 0.6)}
    right = {
        name: (torch.rand(runs, num, generator=generator) < p).sum(1).tolist()
        for name, (num, p) in sizes.items()
    }
    graded = torch.rand(runs, 8, generator=generator, dtype=torch.float64)
    truth = {"nli": (0.3 + 0.95) / 2, "read": (0.95 + 0.6) / 2, "write": 0.5}
    truth["macro"] = sum(truth.values()) / 3
    covered = dict.fromkeys(truth, 0)
    for run in range(runs):
        figures = {n: bounds(wilson_interval(right[n][run], num)) for n, (num, _) in sizes.items()}
        figures["sum"] = bounds(mean_interval(graded[run]))
        found = means(figures, TASKS)["intervals"]
        for name, (low, high) in (found["clusters"] | {"macro": found["macro"]}).items():
            covered[name] += low <= truth[name] <= high
    for name, count in covered.items():
        assert 0.92 <= count / runs <= 0.98, name
