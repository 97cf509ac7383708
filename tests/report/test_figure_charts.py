"""A chart of dots, and the cells of figures."""

import pytest

from rlhf_cli.report.figure_charts import Dots, dots_chart, figure_cell, figure_table
from rlhf_cli.report.run_groups import grouped, means_of
from tests.support.run_files import figure, run_of


def test_a_dot_has_its_names_figure_and_counts_as_its_tip():
    runs = [run_of(str(s), seed=s, figures=[figure(value=0.5, policy="PPO")]) for s in (1, 2)]
    (mean,) = means_of(grouped(runs))
    dots = Dots(title="t", caption="c", line=lambda one: one.column, series=lambda one: "held out")
    chart = dots_chart(dots, [mean], {})
    (point,) = chart["points"]
    assert point["tip"] == "PPO\nheld out\n0.500\n[0.500, 0.500]\n40 observations\nmean of 2 runs"
    assert chart["numbers"]["rows"][0]["cells"][1:] == [["40"], ["2"]]
    assert chart["legend"] == [] and point["colour"] == "accent"


def test_a_table_has_a_row_per_name_and_a_column_per_policy():
    found = [
        figure(value=0.5, policy="PPO", judge="check"),
        figure(value=0.6, policy="SFT", judge="check"),
        figure(value=0.7, policy="SFT", judge="check", prompts="vicuna"),
    ]
    table = figure_table(means_of(grouped([run_of(figures=found)])))
    assert table["columns"] == [["PPO"], ["SFT"]]
    assert [(row["head"][1], [cell[0] for cell in row["cells"]]) for row in table["rows"]] == [
        ("by a second reward model (check)", ["0.50", "0.60"]),
        ("vicuna, by a second reward model (check)", ["-", "0.70"]),
    ]


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
