"""Verdicts on the page: cards of one run, a table of several."""

from rlhf_cli.report.run_verdicts import verdict_blocks
from tests.support.run_files import run_of

VERDICT = {
    "policy": "PPO",
    "stage": "ppo",
    "verdict": "hacked",
    "text": "the score rose.",
    "evidence": ["score: 0 to 1"],
    "symptoms": [
        {"name": "length", "text": "twice as long", "found": True},
        {"name": "ead", "found": False},
        {"name": "endings", "text": "not measured: no", "found": None},
    ],
    "doubt": [],
    "decide": None,
    "best": "iteration 8",
}


def test_a_card_has_its_evidence_and_no_empty_list():
    block, notes = verdict_blocks([run_of(verdicts=[VERDICT], missing=["a judge"])])
    assert block["cards"] == [
        {
            "policy": "PPO",
            "verdict": "hacked",
            "text": "The score rose.",
            "lists": [
                {"title": "Evidence", "lines": ["score: 0 to 1"]},
                {
                    "title": "Symptoms of an exploited reward",
                    "lines": [
                        "found: length (twice as long)",
                        "not found: ead",
                        "not measured: endings (no)",
                    ],
                },
                {"title": "The checkpoint to take", "lines": ["iteration 8"]},
            ],
        }
    ]
    assert notes == {"kind": "notes", "lines": ["not measured: a judge"]}
    assert verdict_blocks([run_of()]) == []


def test_several_runs_are_side_by_side_with_their_evidence_folded():
    dpo = {"policy": "DPO", "verdict": "gained"}
    runs = [
        run_of("a", verdicts=[VERDICT]),
        run_of("b", verdicts=[VERDICT | dpo, VERDICT]),
        run_of("c"),
    ]
    table, *folded = verdict_blocks(runs)
    assert table["columns"] == [["a"], ["b"]]
    assert table["rows"] == [
        {"head": ["PPO"], "cells": [["hacked"], ["hacked"]]},
        {"head": ["DPO"], "cells": [["-"], ["gained"]]},
    ]
    assert [one["title"] for one in folded] == ["Evidence: a", "Evidence: b"]
    assert len(folded[1]["blocks"][0]["cards"]) == 2
    assert verdict_blocks([run_of("a"), run_of("b")]) == []
