"""Which steps of a written rationale are right: its sentences, against the world and the question.

A step is right if it is true and follows: both numbers of a sum, or one of the two terms of a fact,
stand in the question or in a right step before it. A sentence that is no such statement is not right.
"""

import re
from collections.abc import Callable

from rlhf_cli.data.embedded import Step
from rlhf_cli.tiny_world import vocabulary as words


def _is_sum(a: str, sign: str, b: str, c: str) -> bool:
    return int(a) + int(b) * (1 if sign == "plus" else -1) == int(c)


def _has(attribute: int) -> Callable[[str, str], bool]:
    def is_true(animal: str, value: str) -> bool:
        return animal in words.ANIMALS and words.ANIMALS[animal][attribute] == value

    return is_true


def _is_zibi(english: str, zibi: str) -> bool:
    return words.TOY_NOUNS.get(english) == zibi


def _are_opposites(word: str, other: str) -> bool:
    return any({word, other} == set(pair) for pair in words.OPPOSITES)


# (form of a sentence, whether it is true of its terms); the colour stands last: its form is the widest
FORMS: tuple[tuple[re.Pattern[str], Callable[..., bool]], ...] = (
    (re.compile(r"(\d{1,3}) (plus|minus) (\d{1,3}) is (\d{1,3})"), _is_sum),
    (re.compile(r"the opposite of (\w+) is (\w+)"), _are_opposites),
    (re.compile(r"in zibi, (\w+) is (\w+)"), _is_zibi),
    (re.compile(r"the (\w+) says (\w+)"), _has(0)),
    (re.compile(r"the (\w+) lives in the (\w+)"), _has(2)),
    (re.compile(r"the (\w+) eats (\w+)"), _has(3)),
    (re.compile(r"the (\w+) is (\w+)"), _has(1)),
)


def check_steps(rationale: str, *, question: str) -> list[Step]:
    """Return the steps of a rationale in their order, each with whether it is right."""
    known, steps = _words(question), []
    for sentence in sentences(rationale):
        found = _terms(sentence)
        right = found is not None and _follows(found, known)
        known |= set(found) if right and found else set()
        steps.append(Step(text=sentence, right=right))
    return steps


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, without the marks and spaces around them."""
    return [part.strip() for part in re.split(r"[.!?\n]+", text) if part.strip()]


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+|\d+", text.lower()))


def _terms(sentence: str) -> tuple[str, ...] | None:
    """Return the terms of a true statement; None for any other sentence."""
    for form, is_true in FORMS:
        if match := form.fullmatch(sentence.lower()):
            return match.groups() if is_true(*match.groups()) else None
    return None


def _follows(terms: tuple[str, ...], known: set[str]) -> bool:
    """Return whether what the statement starts from is known."""
    if len(terms) == 4:
        return {terms[0], terms[2]} <= known
    return not known.isdisjoint(terms)
