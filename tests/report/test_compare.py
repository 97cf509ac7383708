"""`rlhf show A B` and the end of a sweep: the keys and the figures that differ."""

import json

import pytest

from rlhf_cli.cli import main
from rlhf_cli.report.compare import compare, differences, differing_figures
from rlhf_cli.report.comparison_page import print_comparison
from rlhf_cli.report.run_state import read_run
from tests.support.run_folders import HEADLINES, STAGES, finish


def columns(*runs, **how):
    return compare([read_run(run, STAGES) for run in runs], HEADLINES, **how)


def sft(folder, *, seed=1, loss=0.5, **more):
    return finish(folder, seed=seed, metrics={"sft/loss": loss}, **more)


def test_differences_name_only_the_keys_that_differ(tmp_path):
    one = sft(
        tmp_path / "one", config={"sft": {"epochs": 2, "lr": 0.1}, "data": {"x": [{"path": "a"}]}}
    )
    two = sft(
        tmp_path / "two", config={"sft": {"epochs": 3, "lr": 0.1}, "data": {"x": [{"path": "b"}]}}
    )
    assert differences(columns(one, two)) == {
        "sft.epochs": ["2", "3"],
        "data.x": ["[{path: a}]", "[{path: b}]"],
    }


def test_a_change_of_the_content_of_a_file_is_a_difference(tmp_path):
    data = [{"demonstrations": {"a.jsonl": digest}} for digest in ("0123456789", "9876543210")]
    one, two = (sft(tmp_path / name, data=d) for name, d in zip("ab", data, strict=True))
    assert differences(columns(one, two)) == {
        "content: demonstrations": ["a.jsonl 01234567", "a.jsonl 98765432"]
    }


def test_the_section_of_a_stage_counts_only_where_the_stage_is_finished(tmp_path):
    """The rm keys do not affect a finished sft stage."""
    one, two = sft(tmp_path / "one"), sft(tmp_path / "two", config={"rm": {"margin": 1}})
    assert differences(columns(one, two)) == {}
    finish(one, "rm", config={"rm": {"margin": 0}})
    assert differences(columns(one, two)) == {"stages": ["sft, rm", "sft"]}


def test_figures_that_differ_are_shown_with_their_intervals(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name, gold in (("one", 0.9), ("two", 0.5)):
        rows = {
            "base": {"gold": [0.1, 0.0, 0.2]},
            "PPO": {"gold": [gold, gold - 0.1, gold + 0.1], "kl": [1.0, 1.0, 1.0]},
        }
        table = {"title": "t", "rows": rows, "notes": []}
        run = finish(sft(tmp_path / "runs" / name), "evaluate", table=table)
        accuracy = {"rm/accuracy": gold, "rm/accuracy_low": gold - 0.1, "rm/accuracy_high": 1.0}
        finish(run, "rm", metrics=accuracy)
    assert main(["show", "one", "two"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["gold", "utility", "0.90", "[0.80,", "1.00]", "0.50", "[0.40,", "0.60]"] in shown
    assert ["accuracy", "0.90", "[0.80,", "1.00]", "0.50", "[0.40,", "1.00]"] in shown
    assert ["base"] not in shown  # the same in both
    assert not any(line[:3] == ["KL", "to", "SFT"] for line in shown)
    assert main(["show", "one", "two", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in found["runs"]] == ["one", "two"]
    assert found["differences"] == {}


def test_seeds_of_a_sweep_are_shown_as_mean_and_standard_deviation(tmp_path, capsys):
    losses = {("a", 1): 0.4, ("a", 2): 0.6, ("b", 1): 0.1, ("b", 2): 0.3}
    runs = [
        sft(tmp_path / f"{lr}{seed}", seed=seed, loss=loss, config={"sft": {"lr": lr}})
        for (lr, seed), loss in losses.items()
    ]
    found = columns(*runs, merge_seeds=True)
    assert [column.num_runs for column in found] == [2, 2]
    assert differences(found) == {"sft.lr": ["a", "b"]}
    print_comparison(found)
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["loss", "0.50", "±", "0.14", "0.20", "±", "0.14"] in shown
    assert any("differ in the seed alone" in " ".join(line) for line in shown)


def test_runs_that_differ_only_in_the_seed_are_one_column(tmp_path, capsys):
    """The rows of the embedded task depend on the seed and are not another setting."""
    runs = [
        sft(
            tmp_path / f"s{n}",
            seed=n,
            loss=n / 10,
            data={"demonstrations": {"tiny_world:x": str(n)}},
        )
        for n in (1, 2, 3)
    ]
    print_comparison(columns(*runs, merge_seeds=True))
    shown = capsys.readouterr().out
    assert "the same but for the seed (1, 2, 3)" in shown
    assert "0.20 ± 0.10" in shown


@pytest.mark.parametrize("width", ["60", "80", "140"])
def test_many_runs_are_shown_completely_at_every_width(tmp_path, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    rows = {"SFT, best of 16": {"right_held_out": [0.5, 0.25, 0.75]}}
    runs = []
    for n in range(7):
        rows["SFT, best of 16"]["right_held_out"][0] += 0.01
        table = {"title": "t", "rows": rows, "notes": []}
        config = {"ppo": {}, "runtime": {"a_long_name_of_a_key": n}}
        runs.append(
            finish(tmp_path / f"quite-a-long-name-{n}", "evaluate", config=config, table=table)
        )
    found = columns(*runs)
    print_comparison(found)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= int(width)
    assert "…" not in shown
    assert shown.count("[0.25, 0.75]") == 7
    assert "A  quite-a-long-name-0" in shown and "G  quite-a-long-name-6" in shown
    assert differing_figures(found) == [("SFT, best of 16", "right, held out")]


def test_runs_with_the_same_name_are_shown_by_folder(tmp_path):
    found = columns(sft(tmp_path / "a" / "x"), sft(tmp_path / "b" / "x"))
    assert [column.name for column in found] == [str(tmp_path / "a/x"), str(tmp_path / "b/x")]
