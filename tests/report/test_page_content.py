"""What stands on the page of runs: facts, the tables of `rlhf show`, charts; nothing for what is absent."""

import json

import pytest
from rich.table import Table

from rlhf_cli.artifacts.lock import locked
from rlhf_cli.report.page_content import content_of, page_table
from rlhf_cli.report.run_state import read_run
from tests.support.run_folders import STAGES, finish
from tests.support.studies import study
from tests.support.task_figures import content

TABLE = {
    "title": "Evaluation on 24 held-out prompts",
    "rows": {"SFT": {"score": [0.5, 0.4, 0.6], "kl": None}, "PPO": {"score": [1.0, 0.9, 1.1]}},
    "notes": ["a note"],
}


@pytest.fixture
def made(tmp_path):
    """made("one", table=..) -> the state of a finished run of that name, with an evaluation."""

    def make(name: str, *, command: str = "", **evaluation):
        if command:
            with locked(tmp_path / name, command):
                pass
        run = finish(tmp_path / name)
        finish(run, "evaluate", **evaluation)
        return read_run(run, STAGES)

    return make


def titles(found: dict) -> list[str]:
    return [section["title"] for section in found["sections"]]


def test_one_run_has_its_command_and_tables_open(made):
    command = "rlhf run 'name=my run' stage=[sft,evaluate]"
    found = content_of([made("my run", command=command, table=TABLE, tasks=content())], study())
    assert found["title"] == "my run"
    assert titles(found) == ["", "Closing table", "Instruction tuning", "Tasks"]
    facts = {row["name"]: row for row in found["sections"][0]["blocks"][0]["rows"]}
    assert facts["command"] == {"name": "command", "text": command, "code": True}
    assert facts["stages"]["text"] == "sft, evaluate" and "problems" not in facts
    assert facts["finished"]["text"] == "2026-01-01 10:01"
    assert facts["made by"]["text"] == "rlhf 0.1 (abcdef0)"
    assert json.loads(json.dumps(found))


def test_what_a_run_lacks_leaves_no_hole(made):
    assert titles(content_of([made("one", table=TABLE)], {})) == ["", "Closing table"]
    assert titles(content_of([made("two", tasks=content())], {})) == ["", "Tasks"]
    (facts,) = content_of([made("three")], {})["sections"][0]["blocks"]
    assert "command" not in {row["name"] for row in facts["rows"]}


def test_several_runs_have_charts_first_and_folded_tables(made):
    runs = [made("a", table=TABLE), made("b", table=TABLE, tasks=content())]
    found = content_of(runs, study())
    assert found["title"] == "2 runs"
    assert [(one["title"], one["folded"]) for one in found["sections"]] == [
        ("Instruction tuning", False),
        ("a", True),
        ("b", True),
    ]
    assert [len(one["blocks"]) for one in found["sections"][1:]] == [3, 6]


def test_the_closing_table_has_a_column_per_policy(made):
    table, notes = content_of([made("one", table=TABLE)], {})["sections"][1]["blocks"]
    assert table["title"] == TABLE["title"] and notes["lines"] == ["a note"]
    assert table["columns"] == [["SFT"], ["PPO"]]
    assert table["rows"] == [
        {"head": ["score"], "cells": [["0.50", "[0.40, 0.60]"], ["1.00", "[0.90, 1.10]"]]}
    ]


def test_tasks_have_a_line_each_and_a_column_per_way_to_ask(made):
    means, tasks, notes = content_of([made("one", tasks=content())], {})["sections"][1]["blocks"]
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
