"""The answer that a response gives: what follows "The answer is" or "####", else the last one named.

Where nothing is found a response is unreadable: None, never a guess. Self-consistency takes the answer
that most of several sampled chains of thought give.
"""

import re
from collections import Counter
from collections.abc import Sequence

from rlhf_cli.evaluation.numerals import canonical, numbers_in

# "The answer is", "Answer:", CoT Collection's "[ANSWER]", GSM8K's "####", LaTeX's \boxed{
MARKER = re.compile(r"\banswer(?:\s+is\b|\s*[:\]])|#{4}|\\boxed\s*\{", re.IGNORECASE)
LABEL = re.compile(
    r"\(([A-Za-z])\)(?=\s|$)|([A-Z])[).](?=\s|$)|([A-Z])$"
)  # at the start of an option
# A bare letter is a label if it is a capital, or all there is: "a" may be an article.
LETTER = re.compile(r"\W*(?:([A-Z])(?![\w'])|([a-z])\W*$)")
MARKS = " \t\"'`*$"  # quotes and marks of emphasis


def read_answer(text: str, *, options: Sequence[str] = (), numeric: bool = False) -> str | None:
    """Return the answer that a response gives, None where it is unreadable.

    With options it is the one named; a numeric answer is written as `canonical` writes it; any other is
    the line after the last marker, without which a free text gives no answer.
    """
    stated = _after_marker(text)
    if options:
        return _option(text.strip() if stated is None else stated, options, stated is not None)
    if stated is None:
        found = numbers_in(text)[-1:] if numeric else []
    elif numeric:
        found = _stated_numbers(stated)
    else:
        return _free_text(stated)
    return canonical(found[0]) if found else None


def without_more_questions(text: str, *, finished: bool) -> str:
    """Return a response up to the end of its own answer.

    A response without an end token may continue with questions of its own making: it is cut at the first
    blank line after its first answer.
    """
    marker = MARKER.search(text)
    if finished or marker is None:
        return text
    answer = text[marker.end() :].lstrip()
    return text[: len(text) - len(answer)] + answer.partition("\n\n")[0]


def _after_marker(text: str) -> str | None:
    """Return the first line after the last marker, None without a marker."""
    found = list(MARKER.finditer(text))
    if not found:
        return None
    after = text[found[-1].end() :]
    if found[-1][0].endswith("{"):
        after = _in_braces(after)
    return after.lstrip(": \t\n\"'`*").partition("\n")[0].strip()


def _in_braces(text: str) -> str:
    """Return the text up to the brace that closes one opened before it."""
    depth = 1
    for place, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[:place]
    return text


def _free_text(line: str) -> str | None:
    """Return a line without quotes, marks of emphasis and its full stop."""
    return " ".join(line.strip(MARKS).removesuffix(".").strip(MARKS).split()) or None


def _stated_numbers(line: str) -> list:
    """Return the numbers of the first sentence; of an equation those after the last sign of equality."""
    sentence = re.split(r"[.!?;](?:\s|$)", line, maxsplit=1)[0]
    return numbers_in(sentence.rpartition("=")[2]) or numbers_in(sentence)


def _option(text: str, options: Sequence[str], is_stated: bool) -> str | None:
    """Return the first option that a statement names; of any other text the last one, or a bare letter."""
    labels = {label: option for option in options if (label := _label(option))}
    letter = LETTER.match(text) if is_stated else LETTER.fullmatch(text.rstrip(".):"))
    if letter and (found := labels.get((letter[1] or letter[2]).upper())):
        return found
    ordered = sorted(options, key=len, reverse=True)
    names = re.compile("|".join(f"({_named(option)})" for option in ordered))
    found = list(names.finditer(text))
    return ordered[found[0 if is_stated else -1].lastindex - 1] if found else None


def _label(option: str) -> str | None:
    """Return the letter that an option is called by, as B in "(B)", "B" and "(B) two"."""
    found = LABEL.match(option)
    return found[found.lastindex].upper() if found else None


def _named(option: str) -> str:
    """Return the pattern of a text that names an option: its words, or the letter with its mark."""
    words = rf"(?i:(?<!\w){re.escape(option)}(?!\w))"
    if (label := _label(option)) is None:
        return words
    marked = rf"(?i:\({label}\))|(?<![\w'(]){label}(?:\)|(?=[.:]?(?:\s*$)))"
    return marked if len(option) <= len("(A)") else f"{words}|{marked}"


def plurality(answers: Sequence[str | None]) -> str | None:
    """Return the most frequent answer, of equally frequent ones the first seen.

    Unreadable answers (None) do not vote; None where none is readable.
    """
    counts = Counter(answer for answer in answers if answer is not None)
    return max(counts, key=counts.__getitem__, default=None)


def block_votes(answers: Sequence[str | None]) -> dict[int, list[str | None]]:
    """Return {n: the votes of consecutive blocks of n answers} for every n that divides their number.

    The blocks are disjoint, so the mean over them estimates the accuracy of n votes without bias.
    """
    total = len(answers)
    sizes = [n for n in range(1, total + 1) if total % n == 0]
    return {
        n: [plurality(answers[start : start + n]) for start in range(0, total, n)] for n in sizes
    }
