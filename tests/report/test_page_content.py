"""What stands on the page of runs, and in which order; nothing for what is absent."""

import json

from rich.table import Table

from rlhf_cli.report.page_content import content_of, page_table
from tests.support.run_files import answer, figure, run_of
from tests.support.studies import study
from tests.support.task_figures import content

ROWS = {
    "SFT": {"score": [0.5, 0.4, 0.6], "kl": None},
    "PPO": {"score": [1.0, 0.9, 1.1], "kl": [1.0, 0.9, 1.1]},
}
VERDICT = {"policy": "PPO", "verdict": "gained", "text": "Better."}
PARTS = (
    "suites", "win_rates", "generalisation", "diversity", "imitation", "abstention", "probes",
    "reward_model", "brand_new",
)  # fmt: skip


def whole_run(**changes):
    """Return a run that has something for every section."""
    figures = [figure(part=part, policy="PPO") for part in PARTS]
    run = run_of(
        stages={"sft": {"metrics": {"cost/seconds": 1.0}}, "ppo": {}, "evaluate": {}},
        rows=ROWS,
        figures=figures,
        verdicts=[VERDICT],
        metrics={"sft": [{"step": 1, "sft/loss": 1.0}]},
        reward_report={"ece": 0.5},
        answers=[answer(score=1.0, tokens=5)],
        **changes,
    )
    run.state.tasks = content()
    return run


def titles(found: dict) -> list[str]:
    return [section["title"] for section in found["sections"]]


def section(found: dict, title: str) -> list[dict]:
    return next(one["blocks"] for one in found["sections"] if one["title"] == title)


def test_a_run_that_has_everything_has_its_sections_in_order():
    found = content_of([whole_run()], study())
    assert titles(found) == [
        "Verdict",
        "Stages and their cost",
        "Closing table",
        "Learning curves",
        "Score and quality by distance from SFT",
        "Win rates",
        "On other kinds of prompts",
        "Diversity",
        "Score against length",
        "The reward model on held-out comparisons",
        "Scores of the reward model",
        "Probes of the reward model",
        "Harm, bias, truth",
        "Preferred and rejected responses",
        "Answering that one does not know",
        "Brand new",
        "Instruction tuning",
        "Tasks",
        "Answers",
        "Lineage",
    ]
    assert found["title"] == "one" and json.loads(json.dumps(found))
    assert found["about"] == ["finished 2026-01-01 10:01 · seed 1 · rlhf 0.1 (abcdef0)"]
    assert all(
        one["note"]
        for one in found["sections"]
        if one["title"] not in ("Brand new", "Instruction tuning", "Tasks")
    )


def test_what_a_run_lacks_leaves_no_hole():
    bare = content_of([run_of(problems=["sft was edited"])], {})
    assert titles(bare) == ["Stages and their cost", "Lineage"]
    assert bare["problems"] == ["sft was edited"]
    assert titles(content_of([run_of(rows=ROWS, stages={"evaluate": {}})], {})) == [
        "Stages and their cost", "Closing table", "Score and quality by distance from SFT", "Lineage",
    ]  # fmt: skip


def test_seeds_are_one_column_and_other_settings_one_each():
    seeds = [whole_run(name="a"), whole_run(name="b", seed=2)]
    found = content_of(seeds, {})
    assert found["title"] == "2 runs" and found["about"][0] == "a, b"
    assert "differ in the seed only" in found["about"][1]
    table, notes = section(found, "Closing table")
    assert table["columns"] == [["SFT"], ["PPO"]] and "over seeds" in notes["lines"][0]
    other = whole_run(name="c")
    other.state.manifests["sft"].config["sft.epochs"] = 9
    found = content_of([seeds[0], other], {})
    table, notes = section(found, "Closing table")
    assert table["columns"] == [["SFT", "a"], ["SFT", "c"], ["PPO", "a"], ["PPO", "c"]]
    assert found["about"] == ["a, c"] and notes["lines"] == ["a note"]
    for title in ("Tasks", "Lineage"):
        assert [one["title"] for one in section(found, title)] == ["a", "c"]
        assert {one["kind"] for one in section(found, title)} == {"fold"}


def test_the_closing_table_has_a_column_per_policy():
    table, notes = section(content_of([run_of(rows=ROWS)], {}), "Closing table")
    assert table["title"] == "Evaluation on 24 held-out prompts" and notes["lines"] == ["a note"]
    assert table["columns"] == [["SFT"], ["PPO"]]
    assert table["rows"][0] == {
        "head": ["score"], "cells": [["0.50", "[0.40, 0.60]"], ["1.00", "[0.90, 1.10]"]],
    }  # fmt: skip


def test_tasks_have_a_line_each_and_a_column_per_way_to_ask():
    means, tasks, notes = section(content_of([whole_run()], {}), "Tasks")
    assert tasks["columns"][:2] == [["base", "3-shot direct"], ["base", "3-shot CoT + SC"]]
    rows = {name: row["cells"] for row in tasks["rows"] for name in row["head"]}
    assert "tracking_shuffled_objects_seven_objects" in rows
    assert rows["gsm8k"][:2] == [["0.22 ±0.03", "[0.17, 0.27]"], ["0.25 ±0.03", "[0.20, 0.30]"]]
    assert rows["rte"][:2] == [["~0.51", "[0.46, 0.56]"], ["-"]]
    assert {"head": ["mean of clusters"], "cells": [["0.30"]] * 4} in means["rows"]
    assert ["unreadable"] in [row["head"] for row in means["rows"]]
    assert "rte: 3 x bad" in notes["lines"] and any("~:" in one for one in notes["lines"])


def test_a_table_keeps_its_cells_when_it_is_turned():
    table = Table(title="t")
    for head in ("", "a\nb", "c"):
        table.add_column(head)
    table.add_row("x", "1", "2\n3")
    plain, turned = page_table(table), page_table(table, joined_by="-")
    assert plain["columns"] == [["a", "b"], ["c"]]
    assert plain["rows"] == [{"head": ["x"], "cells": [["1"], ["2", "3"]]}]
    assert turned["columns"] == [["x"]]
    assert turned["rows"] == [
        {"head": ["a-b"], "cells": [["1"]]},
        {"head": ["c"], "cells": [["2", "3"]]},
    ]
