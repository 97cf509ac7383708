"""What a stage records: metrics.jsonl always, a live bar or plain lines, trackers.

Trackers are handed in (runtime.trackers opens them): this package imports no tracking library. An
interrupted stage resumes with its files as they were when it was saved.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.panel import Panel
from rich.table import Table

from rlhf_cli.artifacts.layout import METRICS, SAMPLES
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.keys import flatten
from rlhf_cli.telemetry.console import console, line, plain_name, plain_text
from rlhf_cli.telemetry.progress import LiveBar, NoProgress, PlainLines, short
from rlhf_cli.telemetry.timing import Clock


class Tracker(Protocol):
    """run_id: the service's id of the run, to resume it after an interruption."""

    name: str
    run_id: str | None

    def store_init_configuration(self, values: dict) -> None: ...
    def log(self, values: dict, step: int | None) -> None: ...
    def finish(self) -> None: ...


@dataclass(slots=True, frozen=True, kw_only=True)
class RecordedStage:
    """The stage that is recorded. headline: the metrics shown live. every: steps per written line.

    config: of the run, for the trackers. price: of an hour of all processes, None where it is not known.
    """

    name: str
    total_steps: int
    headline: tuple[str, ...]
    every: int
    config: Mapping[str, Any]
    price: float | None = None


class Recorder:
    """with Recorder(...) as recorder: recorder.log({"sft/loss": 2.5}, step)

    `log` is called at every step from 1; every `stage.every`-th and the last are written. Numbers that
    are not finite are written as null. resumed: what `state` gave when the stage was saved; lines
    written after that are taken back. silent: nothing is written or shown, for all processes of a
    stage but one. clock: its intervals are the lines, so that their time/* add up to the stage's; what
    came before the first step and after the last has a line of its own.
    """

    def __init__(
        self,
        folder: Path,
        stage: RecordedStage,
        *,
        trackers: Sequence[Tracker],
        silent: bool = False,
        resumed: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ):
        self.folder, self.stage, self.trackers, self.silent = folder, stage, trackers, silent
        self.resumed, self.clock = resumed or {}, clock
        self.step = self.resumed.get("step", 0)
        self.started = time.monotonic() - self.resumed.get("seconds", 0.0)
        shown = LiveBar if console().is_terminal else PlainLines
        self.progress = NoProgress() if silent else shown(stage.name, stage.total_steps)

    def __enter__(self) -> "Recorder":
        if self.silent:
            return self
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for name in (METRICS, SAMPLES):
            self._take_back(self.folder / name)
        for tracker in self.trackers:
            tracker.store_init_configuration(_loggable(flatten(dict(self.stage.config))))
        self._start_clock()
        self.progress.start(self.step)
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.progress.stop()
        if kind is None and self.clock:
            timings, seconds = self.clock.interval(), self._seconds()
            costs = {f"cost/{name}": value for name, value in self.clock.costs.items()}
            costs["cost/seconds"] = seconds
            if self.stage.price is not None:
                costs["cost/money"] = seconds / 3600 * self.stage.price
            self._write(METRICS, [{"time": seconds, **timings, **costs}])
        for tracker in self.trackers:
            tracker.finish()

    def state(self) -> dict[str, Any]:
        """Return what `resumed` needs to continue from here; the files are synced to the disk."""
        sizes = {name: _synced_size(self.folder / name) for name in (METRICS, SAMPLES)}
        run_ids = {tracker.name: tracker.run_id for tracker in self.trackers if tracker.run_id}
        state = {"step": self.step, "seconds": self._seconds(), "sizes": sizes, "run_ids": run_ids}
        return state | ({"clock": self.clock.state()} if self.clock else {})

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log one step's numbers."""
        self.step = step
        self.progress.advance(step, self._headline(metrics))
        if self.silent or (step % self.stage.every and step != self.stage.total_steps):
            return
        timings = self.clock.interval() if self.clock else {}
        values = {name: _number(value) for name, value in {**metrics, **timings}.items()}
        self._write(METRICS, [{"step": step, "time": self._seconds(), **values}])
        finite = {name: value for name, value in values.items() if value is not None}
        for tracker in self.trackers:
            tracker.log(finite, step=step)

    def note(self, text: str) -> None:
        """Print a line for the user."""
        if not self.silent:
            line(f"  {text}", style="dim")

    def warn(self, text: str) -> None:
        """Print a warning and write it to metrics.jsonl."""
        if not self.silent:
            line(f"  warning: {text}", style="yellow")
        self._write(METRICS, [{"warning": text, "time": self._seconds()}])

    def samples(self, title: str, rows: Sequence[Mapping[str, str]]) -> None:
        """Write generations, a dict per row: {"prompt": ..., "before": ..., "after": ...}."""
        self._write(SAMPLES, [{"title": title, **row} for row in rows])
        if rows and not self.silent:
            console().print(sample_panel(title, rows))

    def _start_clock(self) -> None:
        """Start the first interval, or continue that of the interrupted attempt."""
        if self.clock:
            begun = {"time": self._seconds(), "total_steps": self.stage.total_steps}
            self._write(METRICS, [begun | self.clock.start()])
            if "clock" in self.resumed:
                self.clock.load_state(self.resumed["clock"])

    def _seconds(self) -> float:
        """Return the time in the stage, that of earlier attempts included."""
        return round(time.monotonic() - self.started, 3)

    def _take_back(self, path: Path) -> None:
        """Cut what was written after the stage was saved, and a line torn by a crash."""
        size = self.resumed.get("sizes", {}).get(path.name, 0)
        with _writing(path):
            found = path.stat().st_size if path.is_file() else 0
            if found > size:
                os.truncate(path, size)
        if found < size:
            self.warn(f"{path.name} has lost lines: {found} bytes instead of {size}")

    def _headline(self, metrics: Mapping[str, float]) -> str:
        shown = [(name, metrics[name]) for name in self.stage.headline if name in metrics]
        return "  ".join(f"{name.rpartition('/')[2]} {short(value)}" for name, value in shown)

    def _write(self, name: str, entries: Sequence[Mapping[str, Any]]) -> None:
        """Append complete lines at once."""
        if self.silent or not entries:
            return
        lines = [json.dumps(e, ensure_ascii=False, allow_nan=False) + "\n" for e in entries]
        path = self.folder / name
        with _writing(path), path.open("a", encoding="utf-8") as stream:
            stream.write("".join(lines))


def sample_panel(title: str, rows: Sequence[Mapping[str, str]]) -> Panel:
    """Return a panel with the rows' texts below each other, labels in one column, texts in another."""
    body = Table.grid(padding=(0, 2, 0, 0))
    body.add_column(style="dim", no_wrap=True)
    body.add_column()
    for index, row in enumerate(rows):
        if index:
            body.add_row()
        for place, (label, value) in enumerate(row.items()):
            text = str(value).strip() or "(nothing)"
            body.add_row(plain_name(label), plain_text(text, "" if place else "bold"))
    return Panel(body, title=plain_name(title), title_align="left", border_style="dim")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn the system's error into one line."""
    try:
        yield
    except OSError as error:
        remedy = "free space there, then run the same command again"
        raise UserError(f"{path} cannot be written ({error.strerror}); {remedy}") from error


def _synced_size(path: Path) -> int:
    """Return the bytes of a file, all of them on the disk; 0 when it does not exist."""
    with _writing(path):
        if not path.is_file():
            return 0
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
            return path.stat().st_size


def _number(value: float) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _loggable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what trackers take: scalars and strings only."""
    plain = (str, int, float, bool)
    return {k: v if isinstance(v, plain) else json.dumps(v) for k, v in values.items()}
