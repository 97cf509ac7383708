"""What became of every row: kept, bad, left out by choice, changed. Printed as a table or plain."""

from collections import Counter
from dataclasses import dataclass, field

from rlhf_cli.data.records import BadRow, DataError, LeftOut, Origin, RowError

EXAMPLES = 3


@dataclass(slots=True, kw_only=True)
class Report:
    """The account of one role. bad: rows that break a law . left_out: rows the configuration
    leaves out . notes: rows kept but changed, and other things to know . rows: read per source.
    """

    role: str
    strict: bool = False
    max_bad_fraction: float = 1.0
    num_kept: int = 0
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
        """Share of bad records among those that were not left out by choice."""
        return self.num_bad / max(1, self.num_bad + self.num_kept)

    def reject(self, origin: Origin, error: RowError) -> None:
        """Count a row that is not used; in strict mode a bad one ends the run here."""
        row = BadRow(origin, error.reason, error.detail)
        self._keep_example(row)
        if isinstance(error, LeftOut):
            self.left_out[error.reason] += 1
            return
        self.bad[error.reason] += 1
        if self.strict:
            raise DataError(f"{row} (data.strict=true stops here; data.strict=false skips the row)")

    def note(self, origin: Origin, what: str, detail: str) -> None:
        """Count a row that is used, with something to know about it."""
        self._keep_example(BadRow(origin, what, detail))
        self.notes[what] += 1

    def _keep_example(self, row: BadRow) -> None:
        examples = self.examples.setdefault(row.reason, [])
        if len(examples) < EXAMPLES:
            examples.append(row)

    def leave_out(self, reason: str, num: int) -> None:
        """Records kept so far that the configuration leaves out."""
        self.left_out[reason] += num
        self.num_kept -= num

    def withdraw(self, origin: Origin, error: RowError) -> None:
        """A record kept so far turns out to be unusable."""
        self.num_kept -= 1
        self.reject(origin, error)

    def enforce(self) -> None:
        """Refuse when more rows are bad than data.max_bad_fraction allows, or none is left."""
        problem = self.verdict()
        if problem:
            raise DataError(problem)

    def verdict(self) -> str | None:
        """The line with which a run would refuse this data, or None."""
        if self.problems:
            return self.problems[0]
        if self.bad_fraction > self.max_bad_fraction:
            return (
                f"data.{self.role}: {self.num_bad} of {self.num_bad + self.num_kept} rows are bad "
                f"({self.bad_fraction:.1%}), more than data.max_bad_fraction="
                f"{self.max_bad_fraction:g}; first: {self._first_bad()}. "
                "Mend the rows or raise data.max_bad_fraction; `rlhf data check` lists them"
            )
        if self.rows and self.num_kept <= 0:
            return f"data.{self.role}: no row is left{self.first()}"
        return None

    def _first_bad(self) -> str:
        return str(self.examples[next(iter(self.bad))][0])

    def first(self) -> str:
        """The first row that was not used, as the tail of a sentence."""
        unused = (self.examples[what] for what in self.examples if what not in self.notes)
        first = next((rows[0] for rows in unused if rows), None)
        return f"; first: {first}" if first else ""

    def lines(self) -> list[tuple[str, str, int, str]]:
        """(kind, what, count, example) of all that is to be said, most frequent first."""
        found = []
        for kind, counts in (("bad", self.bad), ("left out", self.left_out), ("note", self.notes)):
            for what, count in counts.most_common():
                examples = self.examples.get(what, [])
                found.append((kind, what, count, "\n".join(map(_example, examples))))
        return found

    def headline(self) -> str:
        """One line with the totals."""
        select = f"{self.num_select} to select by, " if self.num_select else ""
        sides = f" ({self.num_train} train, {select}{self.num_eval} held out)"
        sides = sides if self.num_train else ""
        return (
            f"{self.role}: {self.rows.total()} rows read, {self.num_kept} records kept{sides}, "
            f"{self.num_bad} bad ({self.bad_fraction:.1%}), {self.left_out.total()} left out"
        )

    def plain(self) -> str:
        """The report for logs and pipes: no colour, no box, one finding a line."""
        text = [self.headline()]
        text += [f"  read {count:>7}  {source}" for source, count in self.rows.items()]
        for kind, what, count, examples in self.lines():
            text.append(f"  {kind:<8} {count:>7}  {what}")
            text += [f"{'':>20}{line}" for line in examples.splitlines()]
        text += [f"  problem: {problem}" for problem in self.problems]
        return "\n".join(text)

    def table(self):
        """The report as a rich table."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self.headline(), title_justify="left", expand=False)
        for name in ("", "rows", "what", "first examples"):
            table.add_column(name, justify="right" if name == "rows" else "left")
        colours = {"bad": "red", "left out": "yellow", "note": "cyan"}
        for source, count in self.rows.items():
            table.add_row("read", str(count), Text(source), "")
        for kind, what, count, examples in self.lines():
            table.add_row(Text(kind, colours[kind]), str(count), Text(what), Text(examples))
        for problem in self.problems:
            table.add_row(Text("problem", "red"), "", Text(problem), "")
        return table


def _example(row: BadRow) -> str:
    return f"{row.origin}: {row.detail}" if row.detail else str(row.origin)


@dataclass(slots=True, kw_only=True)
class Loaded:
    """The records of a role by their side, and the account of its rows."""

    train: list
    select: list
    eval: list
    report: Report
