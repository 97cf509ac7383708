"""Costs of stages, the reward model's report and the lineage, as tables."""

from rlhf_cli.artifacts.lock import locked
from rlhf_cli.report.run_groups import grouped
from rlhf_cli.report.run_tables import cost_table, lineage_blocks, reward_report_table
from tests.support.run_files import run_of

SFT = {"cost/seconds": 65.0, "cost/trained_tokens": 60236.0, "sft/loss": 0.5, "sft/eval_loss": None}
PPO = {"cost/seconds": 81.4, "cost/trained_tokens": 1000.0, "cost/sampled_tokens": 31275.0}
REPORT = {
    "num_pairs": 12,
    "accuracy": [0.75, 0.5, 0.9],
    "accuracy_ceiling": None,
    "accuracy_by_source": {"a_b": [0.5, 0.25, 0.75], "c": None},
    "ece": 0.0123456,
    "calibration": [{"low": 0.5}],
    "members": [{"accuracy": [1, 1, 1]}],
}


def cells(table: dict) -> dict[str, list]:
    return {row["head"][0]: row["cells"] for row in table["rows"]}


def test_costs_are_those_of_the_manifests_and_their_sum():
    run = run_of(stages={"ppo": {"metrics": PPO}, "sft": {"metrics": SFT}})
    table = cost_table(grouped([run]))
    assert table["columns"] == [["time"], ["tokens trained on"], ["tokens sampled"]]
    assert cells(table) == {
        "sft": [["1:05"], ["60,236"], ["-"]],
        "ppo": [["1:21"], ["1,000"], ["31,275"]],
        "all stages": [["2:26"], ["61,236"], ["31,275"]],
    }
    assert table["rows"][0]["head"] == ["sft", "imitate the demonstrations", "loss 0.5"]


def test_energy_and_money_have_a_column_where_they_are_known():
    metrics = SFT | {"cost/energy_kwh": 0.0012, "cost/money": 2.5}
    table = cost_table(grouped([run_of(stages={"sft": {"metrics": metrics}})]))
    assert table["columns"][2:] == [["energy, kWh"], ["money"]]
    assert cells(table)["sft"][2:] == [["0.0012"], ["2.5000"]]


def test_costs_of_seeds_are_means_and_groups_have_a_row_each():
    def run(name, seed, seconds, epochs):
        sft = {"config": {"sft.epochs": epochs}, "metrics": {"cost/seconds": seconds}}
        return run_of(name, seed=seed, stages={"sft": sft})

    seeds = [run("a", 1, 60.0, 1), run("b", 2, 120.0, 1)]
    assert cells(cost_table(grouped(seeds))) == {"sft": [["1:30"]]}
    rows = cost_table(grouped([*seeds, run("c", 1, 10.0, 2)]))["rows"]
    assert [(row["head"][1], row["cells"]) for row in rows] == [
        ("a and 1 more", [["1:30"]]), ("c", [["0:10"]]),
    ]  # fmt: skip


def test_the_report_of_the_reward_model_is_read_whatever_it_breaks_down_by():
    table = reward_report_table(grouped([run_of(reward_report=REPORT)]))
    assert cells(table) == {
        "pairs": [["12"]],
        "accuracy": [["0.75", "[0.50, 0.90]"]],
        "accuracy by source: a b": [["0.50", "[0.25, 0.75]"]],
        "calibration error (ECE)": [["0.0123"]],
    }
    assert reward_report_table(grouped([run_of()])) is None


def test_the_report_of_seeds_is_their_mean():
    runs = [run_of(f"{s}", seed=s, reward_report={"ece": 0.1 * s}) for s in (1, 2, 3)]
    assert cells(reward_report_table(grouped(runs)))["calibration error (ECE)"][0][0] == "0.20"


def test_lineage_names_the_command_and_what_every_stage_was_made_of(tmp_path):
    digest = "f" * 64
    rm = {
        "parents": {"sft": digest}, "origins": {"sft": "runs/other/sft"}, "digest": "e" * 64,
        "data": {"data.comparisons": {"a.jsonl": digest}, "data.template": {"auto": "auto"}},
    }  # fmt: skip
    run = run_of(stages={"rm": rm}, seed=3)
    run.state.folder = tmp_path
    with locked(tmp_path, "rlhf run stage=rm 'name=my run'"):
        pass
    facts, table = lineage_blocks(run)
    assert [row["text"] for row in facts["rows"]] == ["rlhf run stage=rm 'name=my run'", "3"]
    assert table["rows"] == [
        {
            "head": ["rm", "2026-01-01 10:01"],
            "cells": [
                ["rlhf 0.1 (abcdef0)"],
                ["7"],
                [
                    f"sft runs/other/sft {'f' * 12}",
                    f"data.comparisons a.jsonl {'f' * 12}",
                    "data.template auto",
                ],
                ["e" * 12],
            ],
        }
    ]
