"""What a stage says while it works: metrics.jsonl always, a live bar or plain lines, trackers.

Trackers are handed in (runtime.trackers opens them): this room knows no tracking library.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.panel import Panel
from rich.text import Text

from rlhf_cli.config.keys import flatten
from rlhf_cli.telemetry.console import console, line
from rlhf_cli.telemetry.progress import LiveBar, PlainLines, short


class Tracker(Protocol):
    """What accelerate's tracker classes offer."""

    def store_init_configuration(self, values: dict) -> None: ...
    def log(self, values: dict, step: int | None) -> None: ...
    def finish(self) -> None: ...


class Recorder:
    """with Recorder(...) as recorder: recorder.log({"sft/loss": 2.5}, step)

    `log` is called at every step from 1; every `every`-th and the last are written. Numbers that
    are not finite are written as null. headline: the metrics shown live.
    """

    def __init__(
        self,
        folder: Path,
        *,
        stage: str,
        total_steps: int,
        headline: tuple[str, ...],
        trackers: Sequence[Tracker],
        run_config: Mapping[str, Any],
        every: int,
    ):
        self.folder, self.stage, self.total_steps = folder, stage, total_steps
        self.headline, self.every = headline, every
        self.trackers, self.run_config = trackers, run_config
        self.started = time.monotonic()
        live = console().is_terminal
        self.progress = (LiveBar if live else PlainLines)(stage, total_steps)

    def __enter__(self) -> "Recorder":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = (self.folder / "metrics.jsonl").open("a", encoding="utf-8")
        for tracker in self.trackers:
            tracker.store_init_configuration(_loggable(flatten(dict(self.run_config))))
        self.progress.start()
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.progress.stop()
        self.file.close()
        for tracker in self.trackers:
            tracker.finish()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """One step's numbers."""
        self.progress.advance(step, self._headline(metrics))
        if step % self.every and step != self.total_steps:
            return
        values = {name: _number(value) for name, value in metrics.items()}
        entry = {"step": step, "time": round(time.monotonic() - self.started, 3), **values}
        self._write(entry)
        finite = {name: value for name, value in values.items() if value is not None}
        for tracker in self.trackers:
            tracker.log(finite, step=step)

    def note(self, text: str) -> None:
        """A line a person should read."""
        line(f"  {text}", style="dim")

    def warn(self, text: str) -> None:
        """A line a person must read; kept in metrics.jsonl too."""
        line(f"  warning: {text}", style="yellow")
        self._write({"warning": text, "time": round(time.monotonic() - self.started, 3)})

    def samples(self, title: str, rows: Sequence[Mapping[str, str]]) -> None:
        """Generations to look at, a dict a row: {"prompt": ..., "before": ..., "after": ...}."""
        with (self.folder / "samples.jsonl").open("a", encoding="utf-8") as stream:
            for row in rows:
                stream.write(json.dumps({"title": title, **row}, ensure_ascii=False) + "\n")
        if rows:
            console().print(sample_panel(title, rows))

    def _headline(self, metrics: Mapping[str, float]) -> str:
        shown = [(name, metrics[name]) for name in self.headline if name in metrics]
        return "  ".join(f"{name.rpartition('/')[2]} {short(value)}" for name, value in shown)

    def _write(self, entry: Mapping[str, Any]) -> None:
        self.file.write(json.dumps(entry, allow_nan=False) + "\n")
        self.file.flush()


def sample_panel(title: str, rows: Sequence[Mapping[str, str]]) -> Panel:
    """A panel with the rows' texts under each other, labels in one column."""
    body = Text()
    for index, row in enumerate(rows):
        width = max(len(label) for label in row)
        body.append("\n\n" if index else "")
        for place, (label, value) in enumerate(row.items()):
            body.append("\n" if place else "")
            body.append(f"{label:<{width}}  ", style="dim")
            text = str(value).strip() or "(nothing)"
            indented = text.replace("\n", "\n" + " " * (width + 2))
            body.append(indented, style="" if place else "bold")
    return Panel(body, title=title, title_align="left", border_style="dim")


def _number(value: float) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _loggable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Trackers take scalars and strings only."""
    plain = (str, int, float, bool)
    return {k: v if isinstance(v, plain) else json.dumps(v) for k, v in values.items()}
