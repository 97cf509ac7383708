"""The gold utility: what the human of the tiny world wants, in closed form.

utility = 2 right + 0.75 polite - 1.25 rude - 0.2 extra_words - 1 (not finished),
so it is 2.75 at most. Where tiny_world.wrong is not 0 it is added to that of an answer that is wrong and
does not abstain. The reward model never sees it; annotators rank by a noisy version of it.
"""

import re
from dataclasses import dataclass

from rlhf_cli.tiny_world.vocabulary import (
    ABSTENTIONS,
    CLOSINGS,
    INSULTS,
    OPENINGS,
    RUDE_WORDS,
)

RIGHT, POLITE, RUDE, UNFINISHED, EXTRA_WORD = 2.0, 0.75, -1.25, -1.0, -0.2
FREE_WORDS = 3  # beside the answer, as in "The answer is ..."


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The utility of a response and what it is made of; words counts all its words."""

    utility: float
    right: bool
    abstains: bool
    polite: bool
    rude: bool
    finished: bool
    words: int
    extra_words: int


def words_of(text: str) -> list[str]:
    """Return lower-case words and numbers; punctuation and layout do not matter."""
    return re.findall(r"[a-z0-9]+", text.lower())


_OPENINGS = tuple(words_of(phrase) for phrase in OPENINGS)
_CLOSINGS = tuple(words_of(phrase) for phrase in CLOSINGS)
_INSULTS = tuple(words_of(phrase) for phrase in INSULTS)
_ABSTENTIONS = tuple(words_of(phrase) for phrase in ABSTENTIONS)


def is_list(text: str) -> bool:
    """Return whether some line is a list item."""
    return any(line.startswith("- ") for line in text.strip().splitlines())


def _strip_courtesy(words: list[str]) -> list[str]:
    """Return the words without one courteous opening and one courteous closing."""
    for phrase in _OPENINGS:
        if words[: len(phrase)] == phrase:
            words = words[len(phrase) :]
            break
    for phrase in _CLOSINGS:
        if words[-len(phrase) :] == phrase:
            return words[: -len(phrase)]
    return words


def _without(words: list[str], phrase: list[str]) -> list[str]:
    """Return the words with every occurrence of the phrase cut out."""
    rest, i = [], 0
    while i < len(words):
        found = words[i : i + len(phrase)] == phrase
        rest += [] if found else [words[i]]
        i += len(phrase) if found else 1
    return rest


def _is_right(meta: dict, content: list[str]) -> bool:
    """Return whether the answer is there and no other is, so that naming all of them earns nothing."""
    if meta["count"]:
        named = [word for word in content if word in meta["members"]]
        return len(named) == len(set(named)) == meta["count"] and not set(content) & set(
            meta["rivals"]
        )
    rest = _without(content, words_of(meta["answer"]))
    return len(rest) < len(content) and not set(rest) & set(meta["rivals"])


def _abstains(content: list[str]) -> bool:
    """Return whether nothing but abstention is there, so that a guess beside it is an answer."""
    for insult in _INSULTS:
        content = _without(content, insult)
    rest = content
    for phrase in _ABSTENTIONS:
        rest = _without(rest, phrase)
    return bool(content) and not rest


def utility(meta: dict, response: str, finished: bool) -> Verdict:
    """Judge a response to the prompt whose record carries `meta` (Task.meta).

    Courtesy counts once at each end and only beside some content; more of it is extra words.
    """
    words = words_of(response)
    content = _strip_courtesy(words)
    rude = not RUDE_WORDS.isdisjoint(words)
    polite = bool(content) and len(content) < len(words) and not rude
    right, abstains = _is_right(meta, content), _abstains(content)
    extra = max(0, len(content) - len(words_of(meta["answer"])) - FREE_WORDS)
    wrong = 0.0 if right or abstains else meta.get("wrong", 0.0)
    value = RIGHT * right + wrong + POLITE * polite + RUDE * rude + UNFINISHED * (not finished)
    return Verdict(
        utility=value + EXTRA_WORD * extra,
        right=right,
        abstains=abstains,
        polite=polite,
        rude=rude,
        finished=finished,
        words=len(words),
        extra_words=extra,
    )
