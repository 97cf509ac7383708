"""Messages of a run: what will run and why, its results and their folder, or why it failed."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from rlhf_cli.artifacts.layout import METRICS
from rlhf_cli.artifacts.manifest import ArtifactError, StageManifest
from rlhf_cli.config.errors import ExitCode, UserError
from rlhf_cli.config.printable import one_line
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.launch.exit_report import RunResult
from rlhf_cli.pipeline.plan import Judgement, Planner, State
from rlhf_cli.report.compare import compare
from rlhf_cli.report.page import write_page
from rlhf_cli.report.rationale_table import print_rationales
from rlhf_cli.report.run_state import metric_lines, read_run
from rlhf_cli.report.show import command_for
from rlhf_cli.report.study_table import print_compared
from rlhf_cli.report.table import print_table
from rlhf_cli.report.task_study import task_study
from rlhf_cli.report.task_table import print_tasks
from rlhf_cli.report.verdicts import print_verdicts
from rlhf_cli.telemetry.console import line
from rlhf_cli.telemetry.progress import duration, short


def foreseen(planner: Planner, steps: list[Judgement]) -> Iterator[str]:
    """Return what a run would refuse, and what is known of time and memory before it."""
    for step in steps:
        try:
            planner.require_parents(step.spec)
        except ArtifactError as refusal:
            yield f"a run would refuse this: {refusal}"
    runs = [step for step in steps if step.state is State.run]
    for step in runs:
        if step.manifest is not None:
            yield f"{step.spec.name} {_spent(step.manifest, step.folder)} when it was last made here"
    unknown = [step.spec.name for step in runs if step.manifest is None]
    if unknown:
        yield f"time and memory of {', '.join(unknown)}: known only after a first run here"


def _spent(manifest: StageManifest, folder: Path) -> str:
    seconds = max((entry.get("time", 0.0) for entry in metric_lines(folder / METRICS)), default=0.0)
    peak = manifest.metrics.get("mem/peak_gib")
    memory = f" and {peak:.1f} GiB of memory" if peak else ""
    return f"took {duration(seconds)}{memory} for {manifest.step} steps"


def plan_rows(
    planner: Planner, steps: list[Judgement], *, would: str = ""
) -> list[tuple[str, str, str]]:
    """Return (stage, title, what will happen) for the header, given parents included.

    would: "would " where nothing will.
    """
    given = [j for j in planner.judged.values() if j.state is State.given]
    rows = [(j.spec.name, j.spec.title, f"taken from {_folders(j)} ({j.why})") for j in given]
    run, kept = (f"{would}run: ", f"{would}be kept: ") if would else ("", "")
    for step in steps:
        fresh = step.state is State.fresh
        does = kept + step.kept if fresh else run + first_of(step.reason, limit=1)
        rows.append((step.spec.name, step.spec.title, does))
    return sorted(rows, key=lambda row: list(STAGES).index(row[0]))


def _folders(given: Judgement) -> str:
    return ", ".join(str(one.folder) for one in (given, *given.others))


def first_of(why: str, limit: int = 3) -> str:
    reasons = why.split("; ")
    more = len(reasons) - limit
    return "; ".join(reasons[:limit]) + (f"; and {more} more" if more > 0 else "")


def say_kept(step: Judgement) -> None:
    assert step.manifest is not None
    done = step.kept if step.aside else f"{step.kept}, skipped"
    line(f"{step.spec.name}: {done} (finished {step.manifest.finished})", style="green")


def say_left_out(planner: Planner, step: Judgement) -> None:
    """Print which parents a stage does without; of those beyond stage=all, only what is there."""
    used = planner.parents(step.spec)
    for name in (name for name in step.spec.parents(planner.cfg) if name not in used):
        out = planner.judge(name)
        if out.why == "new" and not out.spec.default:
            continue
        why = "not there" if out.why == "new" else f"stale: {first_of(out.why)}"
        line(f"  without {out.spec.name} ({why})", style="yellow")


def say_other_text(planner: Planner, step: Judgement) -> None:
    """Print where a given parent has another tokenizer or template; parents made here share theirs."""
    parents = [p for p in planner.parents(step.spec).values() if p.manifest is not None]
    for kind in ("tokenizer_hash", "template_hash"):
        hashes = {p.spec.name: getattr(p.manifest, kind) for p in parents}
        if len(set(hashes.values())) > 1:
            names = " and ".join(hashes)
            word = kind.removesuffix("_hash").replace("template", "chat template")
            if not any(p.state is State.given for p in parents):
                raise UserError(
                    f"{step.spec.name}: {names} differ in their {word}; run them again together"
                )
            line(f"  {names} differ in their {word}", style="yellow")


def say_done(step: Judgement, seconds: float) -> None:
    assert step.manifest is not None
    metrics = step.manifest.metrics
    shown = [f"{name} {short(metrics[name])}" for name in step.spec.headline if name in metrics]
    words = [f"{step.spec.name}: done in {duration(seconds)}", *shown]
    line("  ".join(words), style="green")


def close_run(planner: Planner) -> None:
    """Print the closing table, when there is one, and where to look."""
    evaluation = planner.judged.get("evaluate")
    if evaluation is not None and evaluation.state is State.fresh:
        print_table(evaluation.folder)
        print_verdicts(evaluation.folder)
        print_tasks(evaluation.folder)
    rationales = planner.judged.get("rationales")
    if rationales is not None and rationales.state is State.fresh:
        print_rationales(rationales.folder)
    if page := _written_page(planner.folder):
        line("The page of this run, for a browser:", style="dim")
        line(f"  {page}", whole=True)
    line(f"Results: {one_line(str(planner.folder))}; show them with", style="dim")
    line(f"  {command_for(planner.folder)}", whole=True)


def _written_page(run: Path) -> Path | None:
    """Write the page of the run; what prevents it is a warning, because the run's results are complete."""
    try:
        return write_page(run, tuple(STAGES))
    except Exception as error:  # noqa: BLE001
        reason = one_line(str(error) or type(error).__name__)
        line(f"warning: the page of the run was not written ({reason})", style="yellow")
        return None


def close_sweep(runs: list[Path]) -> None:
    """Print the runs of a sweep side by side; those that differ in the seed alone are one column."""
    headlines = {name: spec.headline for name, spec in STAGES.items()}
    states = [read_run(folder, tuple(headlines)) for folder in runs]
    line(f"the {len(runs)} runs of the sweep", style="bold")
    print_compared(compare(states, headlines, merge_seeds=True), task_study(runs))
    line("compare them seed by seed with:", style="dim")
    line(f"  {command_for(*runs)}", whole=True)


class StageFailed(UserError):
    """A worker that did not finish; `code` is the exit code of the command."""

    def __init__(self, message: str, *, code: int):
        super().__init__(message)
        self.code = code


def stage_failure(stage: str, work: Path, outcome: RunResult, command: list[str]) -> StageFailed:
    """Return the error of a stage whose workers failed or were stopped."""
    if outcome.was_stopped:
        saved = f", {outcome.saved} ({work})" if outcome.saved else ""
        return stopped(f"during {stage}{saved}", command)
    where = f" (traceback: {outcome.traceback})" if outcome.traceback is not None else ""
    return StageFailed(f"{stage} failed: {outcome.explanation}{where}", code=ExitCode.FAILURE)


def stopped(when: str, command: list[str]) -> StageFailed:
    """Return the error of a run that was stopped, with the command that resumes it."""
    again = shlex.join(word for word in command if not word.startswith("resume="))
    message = f"stopped {when}; finished stages are kept. Resume with: {again}"
    return StageFailed(message, code=ExitCode.INTERRUPTED)
