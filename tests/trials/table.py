"""The table of docs/trials.md: what is tried, the output, the verdict."""

from collections import Counter
from itertools import groupby

from tests.trials.row import Outcome

HEAD = """# Trials of the command line

What comes of commands as a new user types them, and of what an adversary does: data files that are
damaged, misnamed or odd, values without sense, models that do not fit, interruptions. `python -m
tests.trials --write docs/trials.md` tries all of them and writes this page; `tests/trials/` holds
the commands and what must come. Every refusal is one line on stderr with exit code 2; a run that
fails ends with exit code 1. Long lines are shortened (...). *good*: does what was asked, or refuses
and says where and what to do. *defended*: kept as it is, with the reason. *not tried*: needs what
the machine that wrote this page does not have.
"""


def page(sections: dict[str, list[Outcome]]) -> str:
    """Return the complete page."""
    parts = [HEAD, _totals(sections)]
    for title, outcomes in sections.items():
        parts += [f"\n## {title}\n", "| tried | what comes | verdict |", "|---|---|---|"]
        parts += [
            f"| {_cell('; '.join(_joined(same)))} | {_cell(comes)} | {_cell(verdict)} |"
            for (comes, verdict), same in groupby(outcomes, lambda o: (o.comes, o.verdict))
        ]
    return "\n".join(parts) + "\n"


def _totals(sections: dict[str, list[Outcome]]) -> str:
    kinds = ("good", "defended", "not tried", "fails")
    text = [f"| part | tried | {' | '.join(kinds)} |", "|---|" + "---|" * (len(kinds) + 1)]
    for title, outcomes in sections.items():
        count = Counter(outcome.verdict.partition(":")[0] for outcome in outcomes)
        numbers = " | ".join(str(count[kind]) for kind in kinds)
        text.append(f"| {title} | {len(outcomes)} | {numbers} |")
    return "\n".join(text)


def _joined(outcomes) -> list[str]:
    """Return what is tried in rows with equal output; a role that all share is listed once."""
    tried = [outcome.row.tried for outcome in outcomes]
    role = tried[0].partition(": ")[0] + ": "
    if len(tried) > 1 and " " not in role[:-1] and all(t.startswith(role) for t in tried):
        return [tried[0], *(text.removeprefix(role) for text in tried[1:])]
    return tried


def _cell(text: str) -> str:
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return plain.replace("|", "\\|")
