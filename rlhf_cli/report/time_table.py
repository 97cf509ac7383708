"""`rlhf show RUN --time`: where the time of each stage went, from the lines of its metrics.jsonl."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.table import Table
from rich.text import Text

from rlhf_cli.artifacts.layout import METRICS, work_folder
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.printable import one_line
from rlhf_cli.report.run_state import metric_lines
from rlhf_cli.report.table import framed
from rlhf_cli.telemetry.console import line, print_blocks
from rlhf_cli.telemetry.progress import duration
from rlhf_cli.telemetry.timing import PHASES

COLUMNS = ("start", *PHASES)
MFU = "speed/mfu"
SPEEDS = {
    "speed/tokens_per_s": "tokens/s",
    "speed/generated_tokens_per_s": "sampled/s",
    MFU: "MFU",
}
NAMES = ("total", *COLUMNS, *SPEEDS.values())
NOTES = (
    "start: imports, models, data; idle: data, logging, waiting; save: checkpoints and exports",
    "tokens/s: learned from, over whole steps; sampled/s: while generating; MFU: while learning",
)


@dataclass(slots=True)
class Spent:
    """One stage: seconds by phase, and the median of each speed over the lines that have it."""

    stage: str
    seconds: dict[str, float]
    speeds: dict[str, float]
    finished: bool = True

    @property
    def whole(self) -> float:
        return sum(self.seconds.values())


def read_time(run: Path, stages: Sequence[str]) -> list[Spent]:
    """Return what the stages of a run spent; refuse a run without timings."""
    spent = [found for stage in stages for found in spent_in(run, stage)]
    if not spent:
        raise UserError(
            f"{run} has no timings: no stage in it has begun, or an older version made it; "
            "rlhf run makes it (again)"
        )
    return spent


def show_time(run: Path, stages: Sequence[str]) -> None:
    """Print a row per stage, and in one sentence what took longest."""
    spent = read_time(run, stages)
    name = one_line(run.resolve().name)
    title = f"where the time of run {name} went, in seconds or minutes:seconds"
    print_blocks(range(len(NAMES)), lambda some: time_table(spent, title=title, columns=some))
    line(f"  {longest(spent)}")
    for note in NOTES:
        line(f"  {note}", style="dim")


def spent_in(run: Path, stage: str) -> Iterator[Spent]:
    """Yield the finished stage, and the one that is running or was interrupted."""
    for folder, finished in ((run / stage, True), (work_folder(run, stage), False)):
        lines = list(metric_lines(folder / METRICS))
        seconds = {
            part: sum((one.get(f"time/{part}", 0.0) for one in lines), 0.0) for part in COLUMNS
        }
        if any(seconds.values()):
            yield Spent(stage, seconds, _medians(lines), finished)


def _medians(lines: Sequence[Mapping[str, float]]) -> dict[str, float]:
    values_of = {name: [one[name] for one in lines if one.get(name) is not None] for name in SPEEDS}
    return {name: median(values) for name, values in values_of.items() if values}


def time_table(spent: Sequence[Spent], *, title: str, columns: Sequence[int]) -> Table:
    """Return seconds, and under them the share of the stage. columns: which of `NAMES`."""
    table = framed(title, first="stage", wide=110)
    for column in columns:
        table.add_column(NAMES[column], justify="right", no_wrap=True)
    for one in spent:
        name = Text.assemble(one.stage, ("" if one.finished else "\nso far", "dim"))
        cells = [*_seconds(one), *_speeds(one)]
        table.add_row(name, *(cells[column] for column in columns))
    if len(spent) > 1:
        table.add_section()
        cells = [*_seconds(together(spent)), *(Text() for _ in SPEEDS)]
        table.add_row("together", *(cells[column] for column in columns))
    return table


def together(spent: Sequence[Spent]) -> Spent:
    """Return all stages as one."""
    seconds = {part: sum(one.seconds[part] for one in spent) for part in COLUMNS}
    return Spent("together", seconds, {})


def longest(spent: Sequence[Spent]) -> str:
    """Return which phase took longest, and in which stage."""
    whole = together(spent)
    part = max(COLUMNS, key=whole.seconds.__getitem__)
    most = max(spent, key=lambda one: one.seconds[part])
    words = f"{whole.seconds[part] / whole.whole:.0%} of the time went into {part}"
    if len(spent) > 1:
        words += f", most of that in {most.stage}"
    return f"{words} ({_format_seconds(most.seconds[part], unit=' s')})"


def _seconds(one: Spent) -> list[Text]:
    return [Text(_format_seconds(one.whole)), *(_cell(one, part) for part in COLUMNS)]


def _cell(one: Spent, part: str) -> Text:
    seconds = one.seconds[part]
    if not seconds:
        return Text("-", style="dim")
    return Text.assemble(_format_seconds(seconds), (f"\n{seconds / one.whole:.0%}", "dim"))


def _speeds(one: Spent) -> list[Text]:
    cells = {n: f"{v:.1%}" if n == MFU else f"{v:,.0f}" for n, v in one.speeds.items()}
    return [Text(cells[n]) if n in cells else Text("-", style="dim") for n in SPEEDS]


def _format_seconds(seconds: float, unit: str = "") -> str:
    """Format 3.2 as "3.2", 65 as "1:05"."""
    return f"{seconds:.1f}{unit}" if seconds < 59.95 else duration(seconds)
