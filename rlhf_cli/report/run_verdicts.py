"""The verdicts of an evaluation for a person: each with its evidence, symptoms and doubts."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_cli.report.compare import names_of
from rlhf_cli.report.run_files import RunFiles
from rlhf_cli.report.study_charts import Block

FOUND = {True: "found", False: "not found", None: "not measured"}


def verdict_blocks(runs: Sequence[RunFiles]) -> list[Block]:
    """Return a card per policy of one run; of several runs their verdicts, and the cards folded."""
    if len(runs) == 1:
        return _cards(runs[0])
    judged = {
        name: run
        for name, run in zip(names_of([run.state for run in runs]), runs, strict=True)
        if run.results.verdicts
    }
    folded = [
        {"kind": "fold", "title": f"Evidence: {name}", "blocks": _cards(run)}
        for name, run in judged.items()
    ]
    return [_overview(judged), *folded] if judged else []


def _overview(runs: Mapping[str, RunFiles]) -> Block:
    words = [
        {one["policy"]: one["verdict"] for one in run.results.verdicts} for run in runs.values()
    ]
    policies = dict.fromkeys(policy for found in words for policy in found)
    return {
        "kind": "table",
        "title": "",
        "columns": [[name] for name in runs],
        "rows": [
            {"head": [policy], "cells": [[found.get(policy, "-")] for found in words]}
            for policy in policies
        ],
    }


def _cards(run: RunFiles) -> list[Block]:
    """Return the cards of a run, and what could not be measured."""
    cards = [_card(one) for one in run.results.verdicts]
    lines = [f"not measured: {one}" for one in run.results.missing]
    return [
        *([{"kind": "verdicts", "cards": cards}] if cards else []),
        *([{"kind": "notes", "lines": lines}] if lines else []),
    ]


def _measured(symptom: Mapping[str, Any]) -> str:
    text = str(symptom.get("text") or "").removeprefix(f"{FOUND[None]}: ")
    return f" ({text})" if text else ""


def _card(verdict: Mapping[str, Any]) -> Block:
    """Return the verdict on a policy. lists: what supports it and what does not, where there is some."""
    text = str(verdict.get("text") or "")
    symptoms = [
        f"{FOUND[one.get('found')]}: {one['name']}{_measured(one)}"
        for one in verdict.get("symptoms") or ()
    ]
    lists = {
        "Evidence": verdict.get("evidence") or [],
        "Symptoms of an exploited reward": symptoms,
        "Which stage to doubt": verdict.get("doubt") or [],
        "What would decide": [one for one in [verdict.get("decide")] if one],
        "The checkpoint to take": [one for one in [verdict.get("best")] if one],
    }
    return {
        "policy": verdict["policy"],
        "verdict": verdict["verdict"],
        "text": text[:1].upper() + text[1:],
        "lists": [{"title": title, "lines": lines} for title, lines in lists.items() if lines],
    }
