"""How far a stage is: a live bar on a terminal, about ten plain lines elsewhere."""

import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from rlhf_cli.telemetry.console import console, line

LINES = 10  # plain lines per stage
PATIENCE = 30.0  # seconds without a plain line before one more is due


def short(value: float | None) -> str:
    """Return a number for the screen, about four significant digits; None was not finite."""
    if value is None:
        return "nan"
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.2e}"


def duration(seconds: float) -> str:
    """Return 65.2 seconds as "1:05"."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


class _Clock:
    """Time left, by the speed since the start; steps of an earlier attempt are not counted."""

    def __init__(self, total: int):
        self.total, self.first, self.began = total, 0, time.monotonic()

    def start(self, step: int = 0) -> None:
        self.first, self.began = step, time.monotonic()

    def left(self, step: int) -> str:
        done = step - self.first
        if done <= 0:
            return ""
        return f"{duration((time.monotonic() - self.began) / done * (self.total - step))} left"


class LiveBar:
    """stage [bar] 12/84  loss 3.2  0:14 left"""

    def __init__(self, stage: str, total: int):
        self.clock = _Clock(total)
        self.bar = Progress(
            SpinnerColumn("line", "dim"),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("[dim]{task.fields[left]}"),
            console=console(),
            transient=True,
        )
        self.task = self.bar.add_task(stage, total=total, numbers="", left="")

    def start(self, step: int = 0) -> None:
        self.clock.start(step)
        self.bar.update(self.task, completed=step)
        self.bar.start()

    def advance(self, step: int, numbers: str) -> None:
        left = self.clock.left(step)
        self.bar.update(self.task, completed=step, numbers=numbers, left=left)

    def stop(self) -> None:
        self.bar.stop()


class PlainLines:
    """sft 12/84  loss 3.2  0:14 left"""

    def __init__(self, stage: str, total: int):
        self.stage, self.total, self.clock = stage, total, _Clock(total)
        self.shown_step, self.shown_at = 0, time.monotonic()

    def start(self, step: int = 0) -> None:
        self.shown_step, self.shown_at = step, time.monotonic()
        self.clock.start(step)

    def advance(self, step: int, numbers: str) -> None:
        crossed = step * LINES // self.total != self.shown_step * LINES // self.total
        first = step == self.clock.first + 1
        if first or crossed or time.monotonic() - self.shown_at > PATIENCE:
            self.shown_step, self.shown_at = step, time.monotonic()
            words = [f"  {self.stage} {step}/{self.total}", numbers, self.clock.left(step)]
            line("  ".join(word for word in words if word))

    def stop(self) -> None:
        pass


class RowCounter:
    """reading data.comparisons: 120,000 rows, 5,300 a second"""

    def __init__(self, what: str, *, silent: bool = False):
        self.what, self.live, self.silent = what, console().is_terminal, silent
        self.bar = Progress(
            SpinnerColumn("line"),
            TextColumn("{task.description}"),
            console=console(),
            transient=True,
        )
        self.task = self.bar.add_task(f"{what} ...")

    def __enter__(self) -> "RowCounter":
        self.began = self.shown_at = time.monotonic()
        if self.live and not self.silent:
            self.bar.start()
        elif not self.silent:
            line(f"  {self.what} ...", style="dim")
        return self

    def __exit__(self, *error: object) -> None:
        if self.live and not self.silent:
            self.bar.stop()

    def reached(self, num: int) -> None:
        """Show that `num` rows are done."""
        now = time.monotonic()
        text = f"{self.what}: {num:,} rows, {num / max(now - self.began, 1e-9):,.0f} a second"
        self.bar.update(self.task, description=text)
        if not self.live and not self.silent and now - self.shown_at > PATIENCE:
            self.shown_at = now
            line(f"  {text}", style="dim")


class NoProgress:
    """The screen of a process that has none."""

    def start(self, step: int = 0) -> None:
        pass

    def advance(self, step: int, numbers: str) -> None:
        pass

    def stop(self) -> None:
        pass
