"""One trial: its commands, the expected output, and the comparison with the output."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.trials.place import Place

NEVER = (
    r"Traceback \(most recent",
    r"\bunexpected [A-Z]\w+",
    r"\b[A-Z]\w*(?:Error|Exception)\b(?! \()",
    r"AnyNode|ListConfig|DictConfig|OmegaConf|omegaconf|is not a subclass of|LexerNoViable",
    r"ignore_mismatched_sizes|backend tokenizer",
)
PASSING = re.compile(r"(?<=process )\d+ on \S+ \(since [\d: -]+")  # not of the product
LONGEST = 230  # characters of the column "what comes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """The result of a command: its exit code, all its output, and its errors."""

    code: int
    text: str
    errors: str = ""

    def __add__(self, later: "Came") -> "Came":
        """Return both outputs with the later exit code."""
        return Came(code=later.code, text=self.text + later.text, errors=self.errors + later.errors)

    def told(self, **facts: object) -> "Came":
        """Return the same with facts for the patterns, one per line."""
        lines = "".join(f"\n[{name.replace('_', ' ')}: {fact}]" for name, fact in facts.items())
        return Came(code=self.code, text=self.text + lines + "\n", errors=self.errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """has: patterns that must be found . lacks: patterns that must not, beside NEVER .
    kept, defended: an outcome that is kept though awkward, and why .
    needs: what this machine may lack; without `play` the row cannot be tried here at all .
    quick: in this process, in well under a second . one_line: a refusal is one line on stderr .
    """

    tried: str
    play: "Callable[[Place], Came] | None"
    has: tuple[str, ...] = ()
    code: tuple[int, ...] = (0,)
    lacks: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    defended: str = ""
    needs: str = ""
    quick: bool = False
    one_line: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a row. faults: expected output that is missing; empty when the row holds."""

    row: Row
    comes: str
    verdict: str
    faults: tuple[str, ...] = ()
    seconds: float = 0.0
    came: Came | None = None


def judged(row: Row, came: Came, seconds: float) -> Outcome:
    """Compare the output with the expected one, and with the documented outcome."""
    faults = tuple(_faults(row, came))
    comes = _excerpt(row.has, came)
    verdict = "good"
    if faults and row.defended and all(re.search(p, came.text, re.M) for p in row.kept):
        faults, verdict = tuple(_never(row, came)), f"defended: {row.defended}"
        comes = _excerpt(row.kept, came)
    if faults:
        verdict = "fails: " + "; ".join(faults)
    return Outcome(row=row, comes=comes, verdict=verdict, faults=faults, seconds=seconds, came=came)


def _faults(row: Row, came: Came):
    if came.code not in row.code:
        yield f"exit code {came.code} instead of {' or '.join(map(str, row.code))}"
    for pattern in row.has:
        if not re.search(pattern, came.text, re.M):
            yield f"/{pattern}/ is missing"
    yield from _never(row, came)
    if came.code == 2 and row.one_line and len(came.errors.strip().splitlines()) != 1:
        yield f"{len(came.errors.strip().splitlines())} lines on stderr instead of one"


def _never(row: Row, came: Came):
    for pattern in (*NEVER, *row.lacks):
        if pattern not in row.may and (found := re.search(pattern, came.text, re.M)):
            yield f"{found.group()[:60]!r} must not come"


def _excerpt(patterns: tuple[str, ...], came: Came) -> str:
    """Return the lines that match the patterns, else the last one, with the exit code."""
    spots = [found for p in patterns if p and (found := re.search(p, came.text, re.M))]
    starts = sorted(spots, key=lambda found: found.start())
    lines = [_line_of(came.text, found) for found in starts] or _last(came)
    plain = (" ".join(PASSING.sub("...", line.strip("│ ")).split()) for line in lines)
    unique = list(dict.fromkeys(line for line in plain if line))
    text = "; ".join(line.removeprefix("rlhf: ") for line in unique)
    begins = {0: "", 1: "fails: ", 2: "refused: ", 130: "stopped: "}.get(came.code, "")
    return begins + (text if len(text) <= LONGEST else text[: LONGEST - 4].rstrip() + " ...")


def _line_of(text: str, found: re.Match) -> str:
    start = text.rfind("\n", 0, found.start() + 1) + 1
    end = text.find("\n", max(found.end() - 1, start))
    return text[start : end if end >= 0 else len(text)]


def _last(came: Came) -> list[str]:
    if came.code == 0:
        return ["taken"]
    return (came.errors or came.text).strip().splitlines()[-1:]
