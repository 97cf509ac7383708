"""The study of instruction tuning, from run folders made by hand; its numbers are worked out by hand."""

import json
import math
from pathlib import Path
from statistics import stdev

import pytest

from rlhf_cli.artifacts.manifest import read_manifest
from rlhf_cli.pipeline.messages import close_sweep
from rlhf_cli.report.show_request import answer, parse
from rlhf_cli.report.task_study import task_study
from tests.support.run_folders import HEADLINES, finish

CLUSTERS = {
    "rte": ["nli"],
    "cb": ["nli"],
    "mrpc": ["paraphrase"],
    "sst": ["sentiment"],
    "qa": ["qa"],
}
CLUSTERS |= {"sums": ["arithmetic"], "copa": ["causes"]}


def figure(value: float, loss: float | None = None) -> dict:
    plain = {"value": value, "low": value - 0.1, "high": value + 0.1, "template_std": 0.02}
    plain |= {"unreadable": 0.0, "near_chance": False, "chance": 0.5, "ranks": {}, "votes": {}}
    return plain | {"loss": loss}


def row(model: str, tasks: dict, shots: int = 0) -> dict:
    means = {"macro": 0.5, "clusters": {}, "groups": {}}
    return {"model": model, "shots": shots, "asked": "direct", "tasks": tasks, **means}


@pytest.fixture
def make(tmp_path):
    """make(trained, base, tuned, ...) -> a run folder. base, tuned: {task: value or (value, loss)}."""

    def made(
        trained: list[str], base: dict, tuned: dict, *, seed: int = 1, templates: int = 10,
        model: str = "tiny", parameters: int = 1000, lr: float = 0.1, few: dict | None = None,
    ) -> Path:  # fmt: skip
        run = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        settings = {"seed": seed, "tasks.templates": templates, "sft.optim.lr": lr}
        sources = {f"tasks:train {task}": task for task in trained}
        finish(run, made_of=settings, data={"data.demonstrations": sources}, seed=seed)
        listed = [("base", base, 0), ("SFT", tuned, 0), ("base", few or {}, 3)]
        rows = [
            row(
                name,
                {t: figure(*(v if isinstance(v, tuple) else (v,))) for t, v in some.items()},
                n,
            )
            for name, some, n in listed
            if some
        ]
        finish(
            run,
            "evaluate",
            config={"tasks": {"exclusive": [["nli", "paraphrase"]]}},
            made_of={"seed": seed, "evaluation.tasks.limit": 9},
            data={"tasks": dict.fromkeys([*base, *tuned], "content")},
            tasks={
                "title": "t", "notes": [], "rows": rows, "clusters": CLUSTERS,
                "tasks": {}, "parameters": {"base": parameters},
            },
            seed=seed,
            parents={"sft": read_manifest(run / "sft").digest, "base": f"digest of {model}"},
            origins={"sft": str(run / "sft"), "base": f"/models/{model}"},
        )  # fmt: skip
        return run

    return made


def bars_of(study: dict, task: str) -> dict:
    (found,) = [one for one in study["paradigms"] if one["task"] == task]
    return {(bar["paradigm"], bar["shots"]): bar for bar in found["bars"]}


def test_a_paradigm_is_known_by_what_was_trained_on(make):
    study = task_study([
        make(["rte"], {"rte": 0.3}, {"rte": 0.9}),
        make(["sst", "qa"], {"rte": 0.3}, {"rte": 0.6}, few={"rte": 0.4}),
    ])  # fmt: skip
    bars = bars_of(study, "rte")
    values = {key: bar["value"] for key, bar in bars.items()}
    assert values == {
        ("prompting", 0): 0.3,
        ("prompting", 3): 0.4,
        ("finetuned", 0): 0.9,
        ("instruction_tuned", 0): 0.6,
    }
    (found,) = study["paradigms"]
    assert (found["cluster"], found["chance"]) == ("nli", 0.5)
    assert bars["finetuned", 0] | {"low": 0.8, "high": 1.0} == bars["finetuned", 0]
    assert bars["finetuned", 0]["template_std"] == 0.02
    assert all(bar["runs"] == 1 and bar["model"] == "tiny" for bar in bars.values())


@pytest.mark.parametrize("trained", [["rte", "sst"], ["cb", "sst"], ["mrpc", "sst"], ["other"], []])
def test_a_model_that_saw_the_cluster_or_one_exclusive_with_it_is_of_no_paradigm(make, trained):
    study = task_study([make(trained, {"rte": 0.3}, {"rte": 0.9})])
    assert set(bars_of(study, "rte")) == {("prompting", 0)}


def test_runs_that_differ_in_the_seed_alone_are_one_figure_with_an_interval_over_seeds(make):
    runs = [
        make(["sst"], {"rte": 0.3}, {"rte": v}, seed=s) for s, v in ((1, 0.5), (2, 0.6), (3, 0.7))
    ]
    bar = bars_of(task_study(runs), "rte")["instruction_tuned", 0]
    # Student's quantile with 2 degrees of freedom is 4.303.
    half = 4.302653 * stdev([0.5, 0.6, 0.7]) / math.sqrt(3)
    assert bar["value"] == pytest.approx(0.6)
    assert (bar["low"], bar["high"]) == pytest.approx((0.6 - half, 0.6 + half))
    assert bar["runs"] == 3
    again = bars_of(task_study([*runs, runs[0]]), "rte")["instruction_tuned", 0]
    assert again["runs"] == 3 and again["value"] == pytest.approx(0.6)


def test_of_several_mixtures_the_broadest_counts(make):
    few = [make(["sst"], {"rte": 0.3}, {"rte": 0.5}, seed=seed) for seed in (1, 2)]
    broad = make(["sst", "qa"], {"rte": 0.3}, {"rte": 0.8})
    one = make(["sst", "qa"], {"rte": 0.3}, {"rte": 0.1}, templates=1)
    bar = bars_of(task_study([*few, one, broad]), "rte")["instruction_tuned", 0]
    assert (bar["value"], bar["runs"]) == (0.8, 1)


def test_means_are_over_clusters_of_the_tasks_that_all_bars_have(make):
    values = {"rte": 0.2, "cb": 0.4, "sums": 0.8}
    tuned = {"rte": 0.6, "cb": 0.6, "sums": 0.9}
    runs = [
        make(["sst"], values | {"qa": 0.9}, tuned),
        make(["rte"], {"rte": 0.2}, {"rte": 0.7}),
        make(["cb"], {"cb": 0.4}, {"cb": 0.9}),
        make(["sums"], {"sums": 0.8}, {"sums": 1.0}),
    ]
    means = {bar["paradigm"]: bar for bar in task_study(runs)["means"]}
    assert means["prompting"]["value"] == pytest.approx((0.3 + 0.8) / 2)
    assert means["finetuned"]["value"] == pytest.approx((0.8 + 1.0) / 2)
    assert means["instruction_tuned"]["value"] == pytest.approx((0.6 + 0.9) / 2)
    assert means["prompting"]["clusters"] == pytest.approx({"nli": 0.3, "arithmetic": 0.8})
    # Weights 1/4, 1/4 and 1/2, half a width of 0.1 each.
    half = 0.1 * math.sqrt(1 / 16 + 1 / 16 + 1 / 4)
    assert means["prompting"]["high"] == pytest.approx(0.55 + half)
    assert means["prompting"]["template_std"] == pytest.approx(0.02)


def test_a_run_on_another_task_takes_no_mean_away(make):
    runs = [
        make(["sst"], {"rte": 0.3, "sums": 0.5}, {"rte": 0.6, "sums": 0.8}),
        make(["qa"], {"qa": 0.1}, {"qa": 0.9}),
    ]
    means = {bar["paradigm"]: bar["value"] for bar in task_study(runs)["means"]}
    assert means == pytest.approx({"prompting": 0.4, "instruction_tuned": 0.7})


def test_a_mean_counts_the_seeds_in_which_every_task_has_a_figure(make):
    runs = [
        make(["sst"], {}, {"rte": value}, seed=seed)
        for seed, value in ((1, 0.4), (2, 0.6), (3, 1.0))
    ] + [make(["sst"], {}, {"sums": value}, seed=seed) for seed, value in ((1, 0.5), (2, 0.5))]
    (bar,) = task_study(runs)["means"]
    assert (bar["value"], bar["runs"]) == (pytest.approx(0.5), 2)


def test_the_curve_over_clusters_has_the_base_model_and_runs_that_differ_in_nothing_else(make):
    base = {"rte": 0.2, "sums": 0.4}
    runs = [
        make(trained, base, {"rte": value, "sums": value}, seed=seed)
        for seed in (1, 2)
        for trained, value in ((["sst"], 0.5), (["sst", "qa"], 0.6), (["sst", "qa", "copa"], 0.7))
    ]
    others = [
        make(["sst", "qa"], {"rte": 0.2}, {"rte": 0.9}),  # evaluates other tasks
        make(["sst"], base, {"rte": 0.9, "sums": 0.9}, templates=1),
    ]
    curve = task_study([*others, *runs])["clusters_curve"]
    found = [(one["clusters"], round(one["value"], 6), one["runs"]) for one in curve]
    assert found == [(0, 0.3, 2), (1, 0.5, 2), (2, 0.6, 2), (3, 0.7, 2)]
    assert (curve[1]["low"], curve[1]["high"]) == (0.5, 0.5)  # the same with both seeds
    assert "clusters_curve" not in task_study(others[:1])


def test_the_curve_over_templates_is_of_one_mixture(make):
    runs = [
        make(["sst", "qa"], {"rte": 0.2}, {"rte": n / 10}, templates=n) for n in (5, 1, 2)
    ] + [make(["sst"], {"rte": 0.2}, {"rte": 0.9}, templates=7)]  # fmt: skip
    curve = task_study(runs)["templates_curve"]
    assert [(one["templates"], one["value"]) for one in curve] == [(1, 0.1), (2, 0.2), (5, 0.5)]
    assert "scale" not in task_study(runs)


def test_scale_has_the_slope_of_log_loss_over_log_parameters(make):
    """The losses fall as parameters to the power -1/2 (base) and -1 (tuned)."""
    runs = [
        make(
            ["sst", "qa"], {"rte": (0.3, 3 / factor**0.5)}, {"rte": (0.5 + factor / 100, 2 / factor)},
            model=f"m{factor}", parameters=1000 * factor, lr=0.1 / factor,
        )
        for factor in (9, 1, 3)
    ]  # fmt: skip
    scale = task_study(runs)["scale"]
    assert scale["slopes"] == {"base": pytest.approx(-0.5), "tuned": pytest.approx(-1.0)}
    found = [(one["model"], one["parameters"], one["tuned"]) for one in scale["points"]]
    sizes = [("m1", 1000), ("m3", 3000), ("m9", 9000)]
    assert found == [(*size, tuned) for tuned in (False, True) for size in sizes]
    assert [one["accuracy"] for one in scale["points"][3:]] == pytest.approx([0.51, 0.53, 0.59])
    assert scale["points"][0]["loss"] == pytest.approx(3.0)
    assert scale["points"][1]["low"] == pytest.approx(0.2)


def test_without_losses_there_is_no_slope(make):
    runs = [
        make(["sst"], {"rte": 0.3}, {"rte": 0.5}, model=f"m{n}", parameters=n) for n in (10, 20)
    ]
    scale = task_study(runs)["scale"]
    assert scale["slopes"] == {}
    assert [one["loss"] for one in scale["points"]] == [None] * 4


def test_runs_without_figures_of_tasks_hold_nothing(tmp_path, make):
    assert task_study([]) == task_study([finish(tmp_path / "plain"), tmp_path / "none"]) == {}
    run = make(["sst"], {"rte": 0.3}, {"rte": 0.5})
    (run / "sft" / "manifest.json").unlink()  # what it was trained on is not known any more
    assert set(bars_of(task_study([run]), "rte")) == {("prompting", 0)}


def test_the_study_is_printed_after_runs_side_by_side_and_at_the_end_of_a_sweep(make, capsys):
    runs = [
        make(["rte"], {"rte": 0.31}, {"rte": 0.91}),
        make(["sst", "qa"], {"rte": 0.31}, {"rte": 0.61}),
    ]
    words = [str(run) for run in runs]
    answer(parse(words), HEADLINES)
    for shown in (capsys.readouterr().out, (close_sweep(runs), capsys.readouterr().out)[1]):
        assert shown.index("what differs") < shown.index("instruction tuned")
        for value in ("0.31", "0.91", "0.61"):
            assert value in shown.partition("three paradigms")[2]
    answer(parse([*words, "--json"]), HEADLINES)
    assert json.loads(capsys.readouterr().out)["study"] == task_study(runs)
