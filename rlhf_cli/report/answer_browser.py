"""The answers of all policies by prompt, for page_answers.js to search, filter and order."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.data.embedded import utility_labels
from rlhf_cli.report.compare import names_of
from rlhf_cli.report.run_groups import BETWEEN, Group, policies_of
from rlhf_cli.report.study_charts import Block

BASELINE = STAGES["sft"].label  # changes of the score are from its answer
Place = tuple[
    str, str, int
]  # of a prompt: its set, its text, how often both came before in the run


def answers_block(groups: Sequence[Group], colours: Mapping[str, str]) -> Block | None:
    """Return every prompt with the answers of the columns: a policy, of several runs one of a run.

    Runs that were asked the same prompt share it. An answer is a dict with short names, because there
    may be thousands: r response, e ended, s score, t tokens, m other measures, j judges by name.
    """
    labels = utility_labels()
    runs = [(run, group) for group in groups for run in group.runs]
    names = names_of([run.state for run, _ in runs]) if len(runs) > 1 else [""]
    prompts: dict[Place, dict[str, Any]] = {}
    answers: dict[tuple[Place, str, str], dict[str, Any]] = {}
    coloured: dict[tuple[str, str], str] = {}
    for (run, group), name in zip(runs, names, strict=True):
        seen: Counter[tuple[str, str, str]] = Counter()
        for policy in dict.fromkeys(str(one["model"]) for one in run.answers):
            coloured[policy, name] = colours[group.column(policy)]
        for one in run.answers:
            policy, kind, text = (
                str(one["model"]),
                str(one.get("prompts") or ""),
                str(one["prompt"]),
            )
            place = (kind, text, seen[policy, kind, text])
            seen[policy, kind, text] += 1
            prompts.setdefault(place, _prompt(one))
            answers[place, policy, name] = _answer(one, labels)
    order = policies_of(groups)
    columns = sorted(coloured, key=lambda one: (order.index(one[0]), names.index(one[1])))
    for place, asked in prompts.items():
        asked["answers"] = [answers.get((place, *column)) for column in columns]
    if not prompts:
        return None
    shown = [
        {
            "name": BETWEEN.join(filter(None, column)),
            "colour": coloured[column],
            "baseline": _place_of((BASELINE, column[1]), columns),
        }
        for column in columns
    ]
    return {"kind": "answers", "columns": shown, "prompts": list(prompts.values())}


def _place_of(column: tuple[str, str], columns: Sequence[tuple[str, str]]) -> int | None:
    return columns.index(column) if column in columns else None


def _prompt(one: Mapping[str, Any]) -> dict[str, Any]:
    known = {
        "prompt": str(one["prompt"]),
        "set": one.get("prompts"),
        "reference": one.get("reference"),
    }
    return {name: value for name, value in known.items() if value}


def _answer(one: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """Return an answer. labels: of the measures of true worth, by name."""
    judges = one.get("judges") or {}
    worth = {label: one.get(name) for name, label in labels.items() if name not in judges}
    known = {
        "r": str(one["response"]),
        "e": one.get("finished"),
        "s": one.get("score"),
        "t": one.get("tokens"),
        "m": {label: value for label, value in worth.items() if value is not None},
        "j": judges,
    }
    return {name: value for name, value in known.items() if value is not None and value != {}}
