"""What each suite asks, as read of its file. torch is not imported here."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Any

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Suites
from rlhf_cli.config.suites import suite_files
from rlhf_cli.data.records import Origin
from rlhf_cli.evaluation.suites.files import TextRow, text_rows

GENDERS = ("male", "female", "neutral")
REFERENTS = MappingProxyType({"0": "occupation", "1": "participant"})  # of a Winogender pronoun


@dataclass(slots=True, frozen=True, kw_only=True)
class Beginning:
    """The beginning of a text. group: whom it is about; context: what it has in common with others."""

    text: str
    origin: Origin
    group: str = ""
    context: str = ""


@dataclass(slots=True, frozen=True, kw_only=True)
class SentencePair:
    """Two sentences that differ in whom they are about; `first` is the stereotype, or about a man.

    group: the type of bias (CrowS-Pairs), or whom the pronoun stands for (Winogender).
    """

    first: str
    second: str
    group: str
    origin: Origin


@dataclass(slots=True, frozen=True, kw_only=True)
class TruthQuestion:
    """A question with its true answers, the best one first, and its false ones."""

    question: str
    true: tuple[str, ...]
    false: tuple[str, ...]
    origin: Origin


@dataclass(slots=True, frozen=True, kw_only=True)
class SafetyPrompt:
    """A request that a model should answer (safe) or refuse. kind: its type in the file."""

    text: str
    kind: str
    safe: bool
    origin: Origin


def read_suites(suites: Suites, seed: int) -> dict[str, list[Any]]:
    """Return {suite: its rows} of all suites that are named, `limit` of each at most, drawn by the seed.

    UserError where a file cannot be used.
    """
    named = suite_files(suites)
    found = {suite: READERS[suite](text_rows(suite, path)) for suite, path in named.items()}
    return {suite: _drawn(rows, suites.limit, f"{seed}/{suite}") for suite, rows in found.items()}


def _drawn(rows: list[Any], limit: int | None, purpose: str) -> list[Any]:
    """Return at most `limit` rows, in the order of the file."""
    if limit is None or len(rows) <= limit:
        return rows
    chosen = Random(purpose).sample(range(len(rows)), limit)
    return [rows[i] for i in sorted(chosen)]


def _beginnings(rows: Iterable[TextRow]) -> list[Beginning]:
    return [
        Beginning(
            text=row["prompt"],
            origin=origin,
            group=row.get("demographic", ""),
            context=row.get("context", ""),
        )
        for origin, row in rows
    ]


def _crows_pairs(rows: Iterable[TextRow]) -> list[SentencePair]:
    return [
        SentencePair(
            first=row["sent_more"], second=row["sent_less"], group=row["bias_type"], origin=origin
        )
        for origin, row in rows
    ]


def _winogender(rows: Iterable[TextRow]) -> list[SentencePair]:
    """Return the male and the female version of every sentence.

    sentid is occupation.participant.referent.gender.txt, the referent 0 for the occupation, else 1.
    """
    versions: dict[tuple[str, ...], dict[str, TextRow]] = defaultdict(dict)
    for origin, row in rows:
        *sentence, gender = row["sentid"].removesuffix(".txt").split(".")
        if len(sentence) != 3 or sentence[2] not in REFERENTS or gender not in GENDERS:
            raise UserError(
                f"{origin}: sentid {row['sentid']!r} is not of the form occupation.participant.0 or 1"
                ".male, female or neutral: repair it, or take the row out"
            )
        versions[tuple(sentence)][gender] = origin, row
    return [_by_gender(sentence, found) for sentence, found in versions.items()]


def _by_gender(sentence: tuple[str, ...], versions: Mapping[str, TextRow]) -> SentencePair:
    for gender in GENDERS[:2]:
        if gender not in versions:
            origin, _ = next(iter(versions.values()))
            raise UserError(
                f"{origin}: sentence {'.'.join(sentence)} has no {gender} version: add it, or take its "
                "other versions out"
            )
    (origin, male), (_, female) = versions["male"], versions["female"]
    return SentencePair(
        first=male["sentence"],
        second=female["sentence"],
        group=REFERENTS[sentence[2]],
        origin=origin,
    )


def _truthfulqa(rows: Iterable[TextRow]) -> list[TruthQuestion]:
    """Return the questions; the best answer counts once, in whichever column it stands."""
    return [
        TruthQuestion(
            question=row["Question"],
            true=tuple(
                dict.fromkeys((row["Best Answer"], *_answers(origin, row, "Correct Answers")))
            ),
            false=_answers(origin, row, "Incorrect Answers"),
            origin=origin,
        )
        for origin, row in rows
    ]


def _answers(origin: Origin, row: Mapping[str, str], column: str) -> tuple[str, ...]:
    """Return the different answers of a cell, in which semicolons stand between them."""
    found = tuple(dict.fromkeys(text for each in row[column].split(";") if (text := each.strip())))
    if not found:
        raise UserError(f"{origin}: column {column} names no answer; add one, or take the row out")
    return found


def _xstest(rows: Iterable[TextRow]) -> list[SafetyPrompt]:
    found = []
    for origin, row in rows:
        if row["label"] not in ("safe", "unsafe"):
            raise UserError(
                f"{origin}: label {row['label']!r} is neither safe nor unsafe: repair it, or take the "
                "row out"
            )
        safe = row["label"] == "safe"
        found.append(SafetyPrompt(text=row["prompt"], kind=row["type"], safe=safe, origin=origin))
    return found


READERS: Mapping[str, Callable[[list[TextRow]], list[Any]]] = MappingProxyType(
    {
        "toxicity": _beginnings,
        "bias": _beginnings,
        "crows_pairs": _crows_pairs,
        "winogender": _winogender,
        "truthfulqa": _truthfulqa,
        "xstest": _xstest,
    }
)
