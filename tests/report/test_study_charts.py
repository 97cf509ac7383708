"""The charts of instruction tuning: what is drawn and the numbers below it, from figures made by hand."""

import json

import pytest

from rlhf_cli.report.study_charts import charts_of
from tests.support.studies import HOSTILE, bar, study


def charts(found: dict) -> dict[str, dict]:
    return {one["title"]: one for one in charts_of(found)}


def test_a_part_that_is_absent_leaves_no_chart():
    titles = {
        "means": {"Paradigms"},
        "paradigms": {"Every task"},
        "clusters_curve": {"Unseen clusters, by number of clusters trained on"},
        "templates_curve": {"Unseen clusters, by templates per task"},
        "scale": {"Unseen clusters, by model", "Loss, by model"},
    }
    whole = study()
    assert set(charts(whole)) == set.union(*titles.values())
    for part, shown in titles.items():
        assert set(charts({part: whole[part]})) == shown
    assert charts_of({}) == []
    assert charts_of({"paradigms": [], "clusters_curve": [], "scale": {"points": []}}) == []


def test_bars_stand_in_groups_in_the_order_of_clusters():
    chart = charts(study())["Every task"]
    groups = [row["group"] for row in chart["rows"] if "group" in row]
    assert groups == [f"arithmetic: {HOSTILE}", "nli: rte"]
    assert [row["id"] for row in chart["rows"]] == ["0", "0.0", "1", "1.0", "1.1", "1.2"]
    assert chart["spans"] == [
        {"first": "0.0", "last": "0.0", "chance": None},
        {"first": "1.0", "last": "1.2", "chance": 0.5},
    ]
    assert "random option" in chart["caption"]
    one_model = charts({"means": [bar(), bar("finetuned", shots=2)]})["Paradigms"]["rows"]
    assert [row["label"] for row in one_model[1:]] == ["0-shot", "2-shot"]
    last = chart["rows"][-1]
    assert (last["label"], last["colour"], last["std"]) == ("SFT, 3-shot", "accent", None)
    assert last["tip"].split("\n")[3:] == ["0.62 [0.45, 0.55]", "mean of 3 seeds"]


def test_a_legend_names_the_paradigms_that_are_there():
    chart = charts({"means": [bar("instruction_tuned"), bar()]})["Paradigms"]
    assert [one["colour"] for one in chart["legend"]] == ["neutral", "accent"]
    assert "random option" not in chart["caption"]


def test_the_numbers_of_bars_have_value_interval_and_spread():
    rows = charts(study())["Every task"]["numbers"]["rows"]
    assert [row["head"] for row in rows] == [[f"arithmetic: {HOSTILE}"]] + [["nli: rte"]] * 3
    assert rows[2]["cells"] == [
        ["finetuned on the task"],
        [f"SFT {HOSTILE}, 0-shot"],
        ["0.91", "[0.88, 0.94]"],
        ["±0.03"],
        ["0.50"],
        ["1"],
    ]
    assert rows[0]["cells"][4] == ["-"] and rows[3]["cells"][3] == ["-"]


def test_a_curve_is_in_the_order_of_its_axis():
    chart = charts(study())["Unseen clusters, by number of clusters trained on"]
    (series,) = chart["series"]
    found = [(p["x"], round(p["y"], 3), round(p["low"], 3)) for p in series["points"]]
    assert found == [(0, 0.2, 0.15), (4, 0.6, 0.55), (7, 0.9, 0.85)]
    assert "At 0 the base model" in chart["caption"]
    assert "At 0" not in charts(study())["Unseen clusters, by templates per task"]["caption"]
    assert [row["head"] for row in chart["numbers"]["rows"]] == [["0"], ["4"], ["7"]]
    assert series["points"][0]["tip"].startswith("0 clusters trained on\n0.20 [0.15, 0.25]")


def test_the_line_of_a_power_law_goes_through_its_points():
    chart = charts(study())["Loss, by model"]
    (base,) = chart["series"]  # the tuned points have no loss
    assert [point["x"] for point in base["points"]] == [10**5, 10**6, 10**7]
    for end, exact in zip(base["fit"], (base["points"][0], base["points"][-1]), strict=True):
        assert end == pytest.approx([exact["x"], exact["y"]])
    assert chart["x"]["log"] and chart["y"]["log"]
    assert "base -0.100" in chart["caption"] and "tuned" not in chart["caption"]
    assert chart["numbers"]["rows"][0]["cells"] == [["100,000"], ["2.512"], ["2"]]


def test_accuracy_against_parameters_has_intervals_and_no_fitted_line():
    chart = charts(study())["Unseen clusters, by model"]
    assert [one["name"] for one in chart["series"]] == ["base", "tuned"]
    assert all(one["fit"] is None for one in chart["series"])
    assert {(p["low"], p["high"]) for one in chart["series"] for p in one["points"]} == {
        (0.41, 0.59)
    }
    assert chart["x"]["log"] and not chart["y"]["log"]


def test_one_size_has_no_slope():
    points = study()["scale"]["points"][:1]
    chart = charts({"scale": {"points": points, "slopes": {}}})["Loss, by model"]
    assert chart["series"][0]["fit"] is None and "least squares" not in chart["caption"]


def test_charts_are_json():
    assert json.loads(json.dumps(charts_of(study())))
