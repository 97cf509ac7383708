"""The constraints on a record, whatever form it came in. Each raises RowError with the reason."""

import re
from collections.abc import Iterator
from itertools import pairwise

from rlhf_cli.config.schema import Ties
from rlhf_cli.data.formats.dialogue import has_inline_role
from rlhf_cli.data.records import (
    Comparison,
    Demonstration,
    Filtered,
    Prompt,
    Record,
    RowError,
    context_of,
)

END_MARKS = ("<|endoftext|>", "</s>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<eos>")
NO_OUTPUT = re.compile(r"\s*<\s*no\s*output\s*>.*", re.IGNORECASE | re.DOTALL)


def validate(record: Record, *, ties: Ties) -> None:
    """Raise RowError where a record is invalid, Filtered where the configuration leaves it out."""
    if isinstance(record, Comparison):
        validate_comparison(record, ties=ties)
    elif isinstance(record, Demonstration):
        validate_demonstration(record)
    else:
        validate_prompt(record)


def validate_demonstration(record: Demonstration) -> None:
    """Refuse a demonstration without a response to learn, or with an empty one."""
    if record.messages and record.messages[0].role == "text":
        if not record.messages[0].content.strip():
            raise RowError("empty text")
        return
    spoken = [m for m in record.messages if m.role == "assistant"]
    if not spoken:
        raise RowError("no assistant turn")
    if not any(m.supervised for m in spoken):
        raise RowError("nothing left to supervise", "every assistant turn has loss weight 0")
    if any(m.supervised and not m.content for m in spoken):
        raise RowError("empty response")
    if NO_OUTPUT.fullmatch(spoken[-1].content):
        raise RowError("empty response", repr(spoken[-1].content[:40]))
    last = max(i for i, m in enumerate(record.messages) if m.role == "assistant")
    if not any(m.role == "user" for m in record.messages[:last]):
        raise RowError("no user turn", "no user turn before the last answer")
    _check_asked(record.messages)


def validate_comparison(record: Comparison, *, ties: Ties) -> None:
    """Refuse fewer than two different responses, an empty one, and cyclic preferences."""
    _check_asked(record.prompt)
    _check_end(record.prompt)
    for index, response in enumerate(record.responses):
        if not response:
            raise RowError(_empty(index, record))
    _check_different(record)
    cycle = strict_cycle(record.better, len(record.responses))
    if cycle:
        raise RowError("intransitive labels", " > ".join(map(str, cycle)))
    if not record.better and not record.ties:
        raise RowError("no pair is labelled")
    if not record.better and ties is Ties.drop:
        raise Filtered(
            "only ties, which rm.ties=drop and dpo.ties=drop leave out (soft learns from them)"
        )


def _empty(index: int, record: Comparison) -> str:
    if len(record.responses) > 2 or record.better != ((0, 1),):
        return "empty response"
    return "empty rejected" if index else "empty chosen"


def _check_different(record: Comparison) -> None:
    if len(set(record.responses)) == len(record.responses):
        return
    if len(record.responses) == 2 and record.better:
        raise RowError("chosen == rejected", repr(record.responses[0][:40]))
    twice = next(r for i, r in enumerate(record.responses) if r in record.responses[:i])
    raise RowError("duplicated response", repr(twice[:40]))


def validate_prompt(record: Prompt) -> None:
    """Refuse a prompt without a user turn, or whose last turn is the assistant's."""
    _check_asked(record.messages)
    _check_end(record.messages)


def _check_asked(messages) -> None:
    if not any(m.role in ("user", "text") for m in messages):
        raise RowError("no user turn")
    if any(m.role == "user" and not m.content for m in messages):
        raise RowError("empty prompt", "a user turn without text")


def _check_end(messages) -> None:
    if messages[-1].role == "assistant":
        raise RowError("the prompt ends with an assistant turn", repr(messages[-1].content[:40]))


def strict_cycle(better: tuple[tuple[int, int], ...], num: int) -> list[int]:
    """Return a cycle of strict preferences such as [0, 2, 1, 0], or nothing. Ties do not count.

    Removes unbeaten responses until none is left; what cannot be removed is a cycle.
    """
    if len(better) == 1 and better[0][0] != better[0][1]:
        return []
    beats = {i: {loser for winner, loser in better if winner == i} for i in range(num)}
    left = set(beats)
    while left:
        unbeaten = left - set().union(*(beats[i] for i in left))
        if not unbeaten:
            return _walk_back(better, left)
        left -= unbeaten
    return []


def _walk_back(better, left: set[int]) -> list[int]:
    """Follow winners up from any node that is beaten within `left` until one comes again."""
    path = [min(left)]
    while path[-1] not in path[:-1]:
        path.append(min(w for w, loser in better if loser == path[-1] and w in left))
    cycle = path[path.index(path[-1]) :]
    return cycle[::-1]


def without_end_marks(text: str) -> str:
    """Return the text without literal end-of-text tokens that a data set wrote after it."""
    while text.rstrip().endswith(END_MARKS):
        text = text.rstrip()
        for mark in END_MARKS:
            text = text.removesuffix(mark)
        text = text.rstrip()
    return text


def ranking_exists(comparison: Comparison) -> bool:
    """Return whether some ranking with ties agrees with every label, "equal" taken to be transitive."""
    group = list(range(len(comparison.responses)))
    for first, second in comparison.ties:
        old, new = group[first], group[second]
        group = [new if g == old else g for g in group]
    between = tuple((group[winner], group[loser]) for winner, loser in comparison.better)
    return all(winner != loser for winner, loser in between) and not strict_cycle(
        between, len(group)
    )


def notes_on(record: Record) -> Iterator[str]:
    """Yield notes on a record that is kept."""
    messages = context_of(record)
    if isinstance(record, Comparison) and record.ties:
        yield "comparisons with a tie"
        if not ranking_exists(record):
            yield "ties that fit no ranking, pairs used as labelled"
    if isinstance(record, Demonstration) and messages[-1].role not in ("assistant", "text"):
        yield "turns after the last answer, left out"
    if any(a.role == b.role != "tool" for a, b in pairwise(messages)):
        yield "two turns of one role in a row, kept as they are"
    if messages[0].role != "text" and has_inline_role(messages):
        yield "a role word inside a turn, kept as text"
