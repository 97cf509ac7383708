"""The driver of a run: keep what is unchanged, run the rest, each stage in a process of its own.

Everything a run writes lies under <runs_dir>/<name>/. torch is not imported here.
"""

import json
import shlex
import subprocess
import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from rlhf_cli import __version__
from rlhf_cli.artifacts.attempts import LEFT_OUT, RESULT, begin, forget
from rlhf_cli.artifacts.lock import locked
from rlhf_cli.artifacts.manifest import FINISHED, StageManifest
from rlhf_cli.artifacts.store import FREE, place, publish, work_folder, write_text, writing
from rlhf_cli.artifacts.text_hash import keep_date, template_hash, tokenizer_hash
from rlhf_cli.config.compose import PACKAGE, freeze
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Config
from rlhf_cli.report.header import print_header
from rlhf_cli.report.table import print_table
from rlhf_cli.runtime.launch import Outcome, run_worker
from rlhf_cli.runtime.nodes import assembled, lead
from rlhf_cli.runtime.trackers import require_installed
from rlhf_cli.stages import STAGES
from rlhf_cli.stages.plan import Judgement, Planner, State
from rlhf_cli.telemetry.console import line
from rlhf_cli.telemetry.progress import duration, short

INTERRUPTED = 130


class StageFailed(UserError):
    """A worker that did not finish; `code` is the exit code of the command."""

    def __init__(self, message: str, *, code: int):
        super().__init__(message)
        self.code = code


def run(cfg: Config, *, command: list[str]) -> None:
    """Run the selected stages that are not fresh, in order; raises UserError or StageFailed."""
    with assembled(cfg) as drives:  # of several nodes one drives, the others have followed it
        if drives:
            _drive(cfg, command)


def _drive(cfg: Config, command: list[str]) -> None:
    planner = Planner(cfg=cfg)
    require_installed(cfg.tracking.trackers)
    if cfg.dry_run:
        dry_run(planner)
        return
    if not planner.folder.exists():
        planner.plan()  # a refused request leaves no folder behind
    with locked(planner.folder, shlex.join(command)):
        keep_date(planner.folder, planner.cfg.data.date)
        steps = planner.plan()
        print_header(cfg, _plan_rows(planner, steps))
        for step in steps:
            _keep(step) if step.state is State.fresh else _run_stage(planner, step, command)
        _close(planner)


def dry_run(planner: Planner) -> None:
    """Load, tokenise and show one batch of every selected stage; nothing is trained or written."""
    steps = [planner.judge(spec.name) for spec in planner.chosen()]
    print_header(planner.cfg, [(s.spec.name, s.spec.title, "dry run") for s in steps])
    inputs = {p.spec.name: str(p.folder) for s in steps for p in _existing(planner, s)}
    with tempfile.TemporaryDirectory(prefix="rlhf-") as folder:
        work = Path(folder)
        modules = {s.spec.name: s.spec.module for s in steps}
        job = {"modules": modules, "inputs": inputs, "dry_run": True}
        outcome = _work(planner.cfg, work, job)
        if outcome.code or outcome.interrupted:
            reason, _ = _reason(work, outcome)
            raise StageFailed(f"the dry run failed: {reason}", code=_code(outcome))


def _existing(planner: Planner, step: Judgement) -> list[Judgement]:
    parents = [planner.judge(stage) for stage in step.spec.parents.values()]
    return [p for p in parents if p.digest]


def _plan_rows(planner: Planner, steps: list[Judgement]) -> list[tuple[str, str, str]]:
    """(stage, title, what will happen) for the header, given parents included."""
    given = [j for j in planner.judged.values() if j.state is State.given]
    rows = [(j.spec.name, j.spec.title, f"taken from {j.folder} ({j.why})") for j in given]
    for step in steps:
        kept = "unchanged" if step.state is State.fresh else _first(step.reason, limit=1)
        rows.append((step.spec.name, step.spec.title, kept))
    return sorted(rows, key=lambda row: list(STAGES).index(row[0]))


def _first(why: str, limit: int = 3) -> str:
    reasons = why.split("; ")
    more = len(reasons) - limit
    return "; ".join(reasons[:limit]) + (f"; and {more} more" if more > 0 else "")


def _keep(step: Judgement) -> None:
    assert step.manifest is not None
    line(f"{step.spec.name}: unchanged, skipped (finished {step.manifest.finished})", style="green")


def _run_stage(planner: Planner, step: Judgement, command: list[str]) -> None:
    """Run one stage in its work folder, or go on with it, and put it in its place when whole."""
    spec, began = step.spec, datetime.now()
    step.attempt = planner.attempt(spec)  # its parents have been made by now
    line(f"{spec.name}: {spec.title} ({_first(step.reason)})", style="bold")
    manifest = step.attempt.whole
    if manifest is not None:
        work = work_folder(planner.folder, spec.name)
        place(work, planner.folder / spec.name, left_out=LEFT_OUT)
    else:
        _say_left_out(planner, step)
        _say_other_text(planner, step)
        manifest = _made(planner, step, command)
    forget(planner.folder, spec.name)
    step.state, step.digest, step.manifest = State.fresh, manifest.digest, manifest
    _say_done(step, (datetime.now() - began).total_seconds())


def _made(planner: Planner, step: Judgement, command: list[str]) -> StageManifest:
    """The stage's workers do their work; the parent publishes it."""
    spec = step.spec
    made_of = planner.fingerprint(spec)
    work, started = begin(planner.folder, spec.name, made_of, step.attempt)
    inputs = {role: str(p.folder) for role, p in planner.parents(spec).items()}
    job = {"stage": spec.name, "module": spec.module, "inputs": inputs, "dry_run": False}
    outcome = _work(planner.cfg, work, job)
    if outcome.code:
        raise _failure(spec.name, work, outcome, command)
    manifest = _manifest(planner, step, started)
    manifest = publish(work, planner.folder / spec.name, manifest, left_out=LEFT_OUT)
    if outcome.interrupted:  # too late to stop this stage, in time for the next one
        raise _stopped(f"after {spec.name}", command)
    return manifest


def _work(cfg: Config, work: Path, job: dict) -> Outcome:
    with writing(work, FREE):
        write_text(work / "config.json", json.dumps(freeze(cfg), indent=2, sort_keys=True) + "\n")
        write_text(work / "job.json", json.dumps(job, indent=2) + "\n")
    if job["dry_run"]:
        return run_worker(work / "job.json", replace(cfg.runtime, num_processes=1))
    return run_worker(work / "job.json", cfg.runtime, lead=lead())


def _manifest(planner: Planner, step: Judgement, started: str) -> StageManifest:
    """What the work folder says about itself, with the fingerprint it was made of."""
    spec, work = step.spec, work_folder(planner.folder, step.spec.name)
    made_of = planner.fingerprint(spec)
    metrics = json.loads((work / RESULT).read_text())
    origins = {role: str(p.folder) for role, p in planner.parents(spec).items()}
    models = {role: path for role, (path, _) in spec.models(planner.cfg).items()}
    return StageManifest(
        stage=spec.name,
        status=FINISHED,
        version=__version__,
        commit=_commit(),
        config=made_of.config,
        data=made_of.data,
        parents=made_of.parents,
        origins=origins | models,
        tokenizer_hash=tokenizer_hash(work / "model"),
        template_hash=template_hash(work / "model"),
        date=planner.cfg.data.date,
        seed=planner.cfg.seed,
        step=_last_step(work / "metrics.jsonl"),
        started=started,
        finished=datetime.now().isoformat(timespec="seconds", sep=" "),
        metrics={
            name: value if abs(value) < float("inf") else None for name, value in metrics.items()
        },
    )


def _last_step(path: Path) -> int:
    steps = [json.loads(entry).get("step", 0) for entry in path.open()] if path.is_file() else []
    return max(steps, default=0)


def _commit() -> str | None:
    """The git commit of a checkout; None when installed from a wheel."""
    if not (PACKAGE.parent / ".git").exists():
        return None
    found = subprocess.run(
        ["git", "-C", str(PACKAGE.parent), "rev-parse", "HEAD"], capture_output=True, text=True
    )
    return found.stdout.strip() or None if found.returncode == 0 else None


def _say_left_out(planner: Planner, step: Judgement) -> None:
    for role in step.spec.parents.keys() - planner.parents(step.spec).keys():
        out = planner.judge(step.spec.parents[role])
        why = "not there" if out.why == "new" else f"stale: {_first(out.why)}"
        line(f"  without {out.spec.name} ({why})", style="yellow")


def _say_other_text(planner: Planner, step: Judgement) -> None:
    """Parents made here share tokenizer and template; a given one may not, and that is said."""
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


def _say_done(step: Judgement, seconds: float) -> None:
    assert step.manifest is not None
    metrics = step.manifest.metrics
    shown = [f"{name} {short(metrics[name])}" for name in step.spec.headline if name in metrics]
    words = [f"{step.spec.name}: done in {duration(seconds)}", *shown]
    line("  ".join(words), style="green")


def _close(planner: Planner) -> None:
    """The closing table, when there is one, and where to look."""
    evaluation = planner.judged.get("evaluate")
    if evaluation is not None and evaluation.state is State.fresh:
        print_table(evaluation.folder)
    place = planner.folder
    line(f"all of it lies in {place}; `rlhf show {planner.cfg.name}` shows it again", style="dim")


def _failure(stage: str, work: Path, outcome: Outcome, command: list[str]) -> StageFailed:
    if outcome.interrupted or outcome.code == INTERRUPTED:
        saved = f", {outcome.saved} ({work})" if outcome.saved else ""
        return _stopped(f"during {stage}{saved}", command)
    reason, has_traceback = _reason(work, outcome)
    where = f" (traceback: {outcome.traceback})" if has_traceback else ""
    return StageFailed(f"{stage} failed: {reason}{where}", code=1)


def _stopped(when: str, command: list[str]) -> StageFailed:
    again = shlex.join(word for word in command if not word.startswith("resume="))
    message = f"stopped {when}; finished stages are kept. Go on with: {again}"
    return StageFailed(message, code=INTERRUPTED)


def _reason(work: Path, outcome: Outcome) -> tuple[str, bool]:
    """Why the workers ended, and whether a traceback is worth a look."""
    return outcome.reason or f"ended with code {outcome.code}", outcome.traceback is not None


def _code(outcome: Outcome) -> int:
    return INTERRUPTED if outcome.interrupted or outcome.code == INTERRUPTED else 1
