"""Checks of generated rationales: in order, and the first one that a rationale fails drops it.

A rationale was written by a model that was given the answer (CoT Collection, section 2).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_cli.config.schema import Check, Keep, Rationales
from rlhf_cli.core.means import mean_of_known
from rlhf_cli.data.split import normalised
from rlhf_cli.data.tasks.render import STEP_BY_STEP, chain_target
from rlhf_cli.evaluation.numerals import numbers_in, quantity

QUOTES = "\"'”’)\\]"  # what may follow the sign that ends a sentence
BETWEEN = re.compile(rf"((?:(?<=[.!?…。])|(?<=[.!?…。][{QUOTES}]))\s+|\n+)")  # two sentences
ENDED = re.compile(rf"[.!?…。][{QUOTES}]*$")
CLOSING = re.compile(r"(?:\A|(?<=\s))The answer is (?P<answer>[^\n]*?)\.?\s*\Z")
NOT_BEST = "not the best"  # passed all checks, another rationale of its row is kept


@dataclass(slots=True, kw_only=True)
class Rationale:
    """A generated rationale. question, answer: of its row by a template.

    stated: the answer of a closing "The answer is ...", which is no part of the rationale. is_complete:
    it ended, and with the answer after it it fits data.max_response_tokens. gain:
    log P(answer | question, rationale) - log P(answer | question) in nats, of the rationale without
    sentences that contain the answer; gain_stated: with them; None where the scorer has no room for it.
    steps: whether each of its steps is right, where an embedded task can check that.
    """

    task: str
    template: str
    row: int
    origin: str
    question: str
    answer: str
    rationale: str
    num_tokens: int
    is_complete: bool
    stated: str | None = None
    gain: float | None = None
    gain_stated: float | None = None
    steps: list[bool] | None = None

    def demonstration(self) -> dict[str, Any]:
        """Return a row that is read as a demonstration, or by a task file as question and answer."""
        asked, target = (
            f"{self.question}\n{STEP_BY_STEP}",
            chain_target(self.rationale, self.answer),
        )
        turns = [("user", asked), ("assistant", target)]
        return {
            "messages": [{"role": role, "content": content} for role, content in turns],
            "task": self.task,
            "template": self.template,
            "question": self.question,
            "answer": self.answer,
            "rationale": self.rationale,
            "gain": self.gain,
            "gain_stated": self.gain_stated,
            "origin": self.origin,
        }


def contains(text: str, answer: str) -> bool:
    """Return whether a text names an answer: a number by its value, any other by its words."""
    if found := quantity(answer):
        return found[0] in numbers_in(text)
    words = r"\s+".join(map(re.escape, answer.split()))
    return bool(re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE))


def without_closing(text: str) -> tuple[str, str | None]:
    """Return a text without a last "The answer is ...", and the answer that this states.

    A model that learned chains of thought closes so; a demonstration states the right answer there.
    """
    closing = CLOSING.search(text)
    return (text[: closing.start()].rstrip(), closing["answer"]) if closing else (text, None)


def without_answer(text: str, answer: str) -> str:
    """Return a text without the sentences that contain the answer; each line is at least a sentence."""
    parts = [*BETWEEN.split(text), ""]
    sentences = zip(parts[::2], parts[1::2], strict=True)
    return "".join(s + space for s, space in sentences if not contains(s, answer)).strip()


def first_failed(found: Sequence[Rationale], settings: Rationales) -> list[Check | None]:
    """Return for each rationale the first check that drops it, None where it passes all of them.

    It is a duplicate of an earlier one of its task that came as far as this check.
    """
    most_tokens, least_gain = settings.max_tokens, settings.gain
    seen: set[tuple[str, str]] = set()

    def passes(check: Check, one: Rationale) -> bool:
        if check is Check.answer:
            return contains(one.rationale if one.stated is None else one.stated, one.answer)
        if check is Check.length:
            return one.is_complete and bool(one.rationale) and one.num_tokens <= most_tokens
        if check is Check.ending:
            return bool(ENDED.search(one.rationale))
        if check is Check.duplicate:
            key = (one.task, normalised(one.rationale))
            is_new = key not in seen
            seen.add(key)
            return is_new
        return one.gain is not None and one.gain > least_gain

    return [
        next((check for check in settings.checks if not passes(check, one)), None) for one in found
    ]


def verdicts(found: Sequence[Rationale], settings: Rationales) -> list[str | None]:
    """Return for each rationale why it is dropped, None where it is kept."""
    failed = first_failed(found, settings)
    best: dict[tuple[str, int], int] = {}
    for index, (one, check) in enumerate(zip(found, failed, strict=True)):
        if check is None and settings.keep is Keep.best:
            before = best.setdefault((one.task, one.row), index)
            if _worth(one) > _worth(found[before]):
                best[one.task, one.row] = index
    kept = set(best.values())
    return [
        check.name if check else None if not best or index in kept else NOT_BEST
        for index, check in enumerate(failed)
    ]


def _worth(one: Rationale) -> float:
    return -float("inf") if one.gain is None else one.gain


def figures(
    found: Sequence[Rationale], dropped: Sequence[str | None], settings: Rationales
) -> list[dict[str, Any]]:
    """Return what is left after each step: its name, the rationales, their rows and mean gains.

    right, dropped_right: shares of right ones, of what is left and of what this step dropped; None
    where steps are not checked.
    """
    order = [check.name for check in settings.checks]
    left = list(zip(found, dropped, strict=True))
    steps = [_step("generated", found, ())]
    for name in [*order, *([NOT_BEST] if settings.keep is Keep.best else [])]:
        gone = [one for one, why in left if why == name]
        left = [(one, why) for one, why in left if why != name]
        steps.append(_step("best" if name == NOT_BEST else name, [one for one, _ in left], gone))
    return steps


def _step(name: str, left: Sequence[Rationale], gone: Sequence[Rationale]) -> dict[str, Any]:
    return {
        "step": name,
        "rationales": len(left),
        "rows": len({(one.task, one.row) for one in left}),
        "gain": mean_of_known(one.gain for one in left),
        "gain_stated": mean_of_known(one.gain_stated for one in left),
        "right": _rightness(left),
        "dropped_right": _rightness(gone),
    }


def _rightness(rationales: Sequence[Rationale]) -> dict[str, float | None]:
    """Return the share of rationales with right steps alone, and the share of steps that are right."""
    checked = [one.steps for one in rationales if one.steps is not None]
    return {
        "rationales": mean_of_known(bool(steps) and all(steps) for steps in checked),
        "steps": mean_of_known(right for steps in checked for right in steps),
    }
