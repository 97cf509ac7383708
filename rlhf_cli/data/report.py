"""Report of a role's rows: kept, bad, left out by choice, changed. As lines to read, or as JSON."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from rlhf_cli.data.records import BadRow, DataError, Filtered, Origin, RowError

EXAMPLES = 3
NO_ROWS = {
    "demonstrations": "name a source, or set parents.sft=<a model folder> and leave stage=sft out",
    "comparisons": "name a source, or set parents.rm=<a reward model's folder>",
    "prompts": "name a source of prompts or of comparisons",
    "pretraining": "name a source of texts, or set ppo.ptx.coef=0",
}
COLOURS = {"bad": "red", "left out": "yellow", "note": "cyan", "problem": "red"}
DEEP = 6  # columns before an example
HINT = "; "  # parts what was found in a row from what to do about it
Line = tuple[int, str, str]  # indent, text, style


def key_of(role: str) -> str:
    """Return the key under which a role's sources stand: data.prompts, or evaluation.ood/NAME of a set."""
    return f"evaluation.{role}" if "/" in role else f"data.{role}"


@dataclass(slots=True, kw_only=True)
class DataReport:
    """The report of one role. bad: invalid rows . left_out: rows the configuration leaves out . notes:
    rows kept but changed, and other things to know . rows: read per source . num_examples: how many
    examples of each kind are kept; None: all . num_undrawn: of rows that a mixture draws from, the
    good ones less the records made of them.
    """

    role: str
    strict: bool = False
    max_bad_fraction: float = 1.0
    num_examples: int | None = EXAMPLES
    num_kept: int = 0
    num_undrawn: int = 0
    num_train: int = 0
    num_select: int = 0
    num_eval: int = 0
    rows: Counter = field(default_factory=Counter)
    bad: Counter = field(default_factory=Counter)
    left_out: Counter = field(default_factory=Counter)
    notes: Counter = field(default_factory=Counter)
    examples: dict[str, list[BadRow]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def num_bad(self) -> int:
        return self.bad.total()

    @property
    def bad_fraction(self) -> float:
        """Return the share of bad records among those that were not left out by choice."""
        return self.num_bad / max(1, self.num_checked)

    @property
    def num_checked(self) -> int:
        """Return how many rows were found good or bad."""
        return self.num_bad + self.num_kept + self.num_undrawn

    def reject(self, origin: Origin, error: RowError) -> None:
        """Count a row that is not used."""
        self._keep_example(BadRow(origin, error.reason, error.detail))
        counts = self.left_out if isinstance(error, Filtered) else self.bad
        counts[error.reason] += 1

    def note(self, origin: Origin, what: str, detail: str) -> None:
        """Count a row that is used, with a note."""
        self._keep_example(BadRow(origin, what, detail))
        self.notes[what] += 1

    def _keep_example(self, row: BadRow) -> None:
        examples = self.examples.setdefault(row.reason, [])
        if self.num_examples is None or len(examples) < self.num_examples:
            examples.append(row)

    def leave_out(self, reason: str, num: int) -> None:
        """Count records kept so far that the configuration leaves out."""
        self.left_out[reason] += num
        self.num_kept -= num

    def withdraw(self, origin: Origin, error: RowError) -> None:
        """Reject a record that was kept so far."""
        self.num_kept -= 1
        self.reject(origin, error)

    def enforce(self) -> None:
        """Refuse when more rows are bad than data.max_bad_fraction allows, or none is left."""
        problem = self.verdict()
        if problem:
            raise DataError(problem)

    def verdict(self) -> str | None:
        """Return the error with which a run would refuse this data, or None."""
        if self.bad and self.strict:
            row = self._first_bad()
            return f"{row} (data.strict=true stops here; data.strict=false skips the row)"
        if self.problems:
            return self.problems[0]
        if not self.rows.total():
            empty = f"nothing in {', '.join(self.rows)}" if self.rows else NO_ROWS[self.role]
            return f"{key_of(self.role)} has no rows: {empty}"
        if self.bad_fraction > self.max_bad_fraction:
            return (
                f"{key_of(self.role)}: {self.num_bad} of {self.num_checked} rows are bad "
                f"({self.bad_fraction:.1%}), more than data.max_bad_fraction="
                f"{self.max_bad_fraction:g}; first: {self._first_bad()}. "
                "Repair the rows or raise data.max_bad_fraction; `rlhf data check --all` lists them"
            )
        if self.num_kept <= 0:
            return f"{key_of(self.role)}: no row is left{self.first()}"
        return None

    def _first_bad(self) -> str:
        return str(self.examples[next(iter(self.bad))][0])

    def first(self) -> str:
        """Return the first row that was not used, as the end of a sentence."""
        unused = (self.examples[what] for what in self.examples if what not in self.notes)
        first = next((rows[0] for rows in unused if rows), None)
        return f"; first: {first}" if first else ""

    def findings(self) -> Iterator[tuple[str, str, int]]:
        """Yield (kind, what, count) of all findings, most frequent first."""
        for kind, counts in (("bad", self.bad), ("left out", self.left_out), ("note", self.notes)):
            for what, count in counts.most_common():
                yield kind, what, count

    def headline(self) -> str:
        """Return one line with the totals."""
        select = f"{self.num_select} to select by, " if self.num_select else ""
        once = self.num_train + self.num_select + self.num_eval
        train = f"{self.num_train} train"
        if self.num_kept > once:  # a mixture has records of every epoch
            train += " per epoch"
        sides = f" ({train}, {select}{self.num_eval} held out)" if self.num_train else ""
        return (
            f"{self.role}: {self.rows.total()} rows read, {self.num_kept} records kept{sides}, "
            f"{self.num_bad} bad ({self.bad_fraction:.1%}), {self.left_out.total()} left out"
        )

    def details(self) -> Iterator[Line]:
        """Yield the lines below the headline: one per finding, its examples below it."""
        for source, count in self.rows.items():
            yield 2, f"{'read':<8}{count:>7} {source}", ""
        for kind, what, count in self.findings():
            yield 2, f"{kind:<8}{count:>7} {what}", COLOURS[kind]
            yield from _examples(self.examples.get(what, []))
        for problem in self.problems:
            yield 2, f"problem: {problem}", COLOURS["problem"]

    def plain(self) -> str:
        """Return the report as lines of text."""
        below = [" " * indent + text for indent, text, _ in self.details()]
        return "\n".join([self.headline(), *below])

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs: counts, and the examples that were kept."""
        return {
            "role": self.role,
            "rows": dict(self.rows),
            "kept": self.num_kept,
            "sides": {
                "train": self.num_train,
                "select": self.num_select,
                "held_out": self.num_eval,
            },
            "bad_fraction": self.bad_fraction,
            "findings": [
                {"kind": kind, "what": what, "count": count, "rows": self._rows(what)}
                for kind, what, count in self.findings()
            ],
            "refused": self.verdict(),
        }

    def _rows(self, what: str) -> list[dict[str, Any]]:
        return [
            {
                "source": row.origin.source,
                "row": row.origin.row,
                "line": row.origin.line,
                "detail": row.detail,
            }
            for row in self.examples.get(what, [])
        ]


def _examples(rows: list[BadRow]) -> Iterator[Line]:
    """Yield a line per row; a remedy that several share comes once, above them."""
    counts = Counter(end for row in rows for end in set(_ends(row.detail)))
    shared = [next((e for e in _ends(row.detail) if counts[e] > 1), "") for row in rows]
    for common, group in groupby(zip(shared, rows, strict=True), key=lambda pair: pair[0]):
        if common:
            yield DEEP, common, ""
        for _, row in group:
            own = row.detail.removesuffix(common).removesuffix(HINT)
            place = f"{row.origin}: {own}" if own else str(row.origin)
            yield DEEP + 2 * bool(common), place, "dim"


def _ends(detail: str) -> list[str]:
    """Return the detail, and its remedy where it has one."""
    return [end for end in (detail, detail.partition(HINT)[2]) if end]
