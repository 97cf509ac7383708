"""The driver of a run: keep what is unchanged, run the rest, each stage in a process of its own.

Everything a run writes is in <runs_dir>/<name>/. torch is not imported here.
"""

import json
import os
import shlex
import tempfile
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from rlhf_cli import __version__
from rlhf_cli.artifacts.attempts import UNPUBLISHED, remove_parked, start
from rlhf_cli.artifacts.fingerprint import keep_date, template_hash, tokenizer_hash
from rlhf_cli.artifacts.layout import LOCK, METRICS, MODEL, WorkFolder, work_folder
from rlhf_cli.artifacts.lock import locked
from rlhf_cli.artifacts.manifest import (
    FINISHED,
    ArtifactError,
    StageManifest,
    checkout_commit,
    read_errors,
)
from rlhf_cli.artifacts.publication import publish, rename_to_final, replace_stage
from rlhf_cli.artifacts.store import FREE, write_errors, write_text
from rlhf_cli.config.compose import freeze
from rlhf_cli.config.errors import ExitCode
from rlhf_cli.config.hub import require_hub
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_spec import StageSpec
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.launch.coordinator import Coordinator
from rlhf_cli.launch.nodes import coordinate, find_rendezvous, follow
from rlhf_cli.launch.workers import run_workers
from rlhf_cli.pipeline.messages import (
    StageFailed,
    close_run,
    first_of,
    foreseen,
    plan_rows,
    say_done,
    say_kept,
    say_left_out,
    say_other_text,
    stage_failure,
    stopped,
)
from rlhf_cli.pipeline.plan import Judgement, Planner, State
from rlhf_cli.pipeline.requirements import require
from rlhf_cli.report.header import print_header
from rlhf_cli.runtime.trackers import require_installed
from rlhf_cli.telemetry.console import OutputClosed, line


def run(cfg: Config, *, command: list[str]) -> Path | None:
    """Run the selected stages that are not fresh, in order; raise UserError or StageFailed.

    Return the folder of the run; None for a dry run, and for a node that follows another.
    """
    rendezvous = find_rendezvous(os.environ, cfg.name, Path(cfg.runs_dir))
    if rendezvous and rendezvous.rank:
        follow(rendezvous, freeze(cfg), cfg.runtime)
        return None
    with coordinate(rendezvous, cfg.runtime) as coordinator:
        planner = Planner(cfg=cfg)
        driver = Driver(planner=planner, command=command, coordinator=coordinator)
        try:
            return driver.drive()
        except OutputClosed as closed:
            raise stopped("because its output was closed", command) from closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """Runs the steps of a plan. command: the words of the request. coordinator: of other nodes, if any."""

    planner: Planner
    command: list[str]
    coordinator: Coordinator | None

    def drive(self) -> Path | None:
        """Run the planned stages; return the folder of the run, None for a dry run."""
        planner, cfg = self.planner, self.planner.cfg
        require_installed(cfg.tracking.trackers)
        _require_outside_of_runs(planner)
        if cfg.dry_run:
            dry_run(planner)
            return None
        is_new = not planner.folder.exists()
        if is_new:  # a refused request leaves no folder behind
            require(cfg, _to_run(_planned(planner)))
        with locked(planner.folder, shlex.join(self.command)):
            keep_date(planner.folder, cfg.data.date)
            steps = _planned(planner)
            if not is_new:
                require(cfg, _to_run(steps))
            num_nodes = self.coordinator.num_nodes if self.coordinator else 1
            _print_header(cfg, plan_rows(planner, steps), num_nodes=num_nodes)
            for step in steps:
                if step.state is State.fresh or planner.settle(step):
                    _keep(planner, step)
                else:
                    self._run_stage(step)
            close_run(planner)
        return planner.folder

    def _run_stage(self, step: Judgement) -> None:
        """Run or resume one stage in its work folder, and publish it once it is complete."""
        planner, spec, began = self.planner, step.spec, datetime.now()
        step.attempt = planner.attempt(spec)  # its parents have been made by now
        line(f"{spec.name}: {spec.title} ({first_of(step.reason)})", style="bold")
        manifest = step.attempt.unpublished
        if manifest is not None:
            work = work_folder(planner.folder, spec.name)
            rename_to_final(
                work, step.folder, left_out=UNPUBLISHED, keep=planner.cfg.save.keep_replaced
            )
        else:
            say_left_out(planner, step)
            say_other_text(planner, step)
            manifest = self._made(step)
        remove_parked(planner.folder, spec.name)
        step.state, step.digest, step.manifest = State.fresh, manifest.digest, manifest
        say_done(step, (datetime.now() - began).total_seconds())

    def _made(self, step: Judgement) -> StageManifest:
        """Let the workers run the stage, publish their work and return its manifest."""
        planner, spec = self.planner, step.spec
        made_of = planner.fingerprint(spec)
        work, started = start(planner.folder, spec.name, made_of, step.attempt)
        inputs = {name: str(p.folder) for name, p in planner.parents(spec).items()}
        job = {"stage": spec.name, "module": spec.module, "inputs": inputs, "dry_run": False}
        path = _write_job(planner.cfg, work, job)
        outcome = run_workers(path, planner.cfg.runtime, coordinator=self.coordinator)
        if outcome.code:
            raise stage_failure(spec.name, work, outcome, self.command)
        manifest = _manifest(planner, step, started)
        keep = planner.cfg.save.keep_replaced
        manifest = publish(work, step.folder, manifest, left_out=UNPUBLISHED, keep=keep)
        if outcome.interrupted:  # too late to stop this stage, in time for the next one
            raise stopped(f"after {spec.name}", self.command)
        return manifest


def _require_outside_of_runs(planner: Planner) -> None:
    """Refuse a run inside another one: it would be deleted with the stage that contains it."""
    for folder in planner.folder.absolute().parents:
        if (folder / LOCK).is_file() and any((folder / name).is_dir() for name in STAGES):
            found = f"runs_dir={planner.cfg.runs_dir} is inside the run {folder}"
            raise ArtifactError(found, "choose another runs_dir=...")


def _planned(planner: Planner) -> list[Judgement]:
    """Return the steps of the run; refuse at once where one needs the hub and it is out of reach."""
    steps = planner.plan()
    _require_hub(planner.cfg, [step for step in steps if step.state is State.run])
    return steps


def _require_hub(cfg: Config, steps: list[Judgement]) -> None:
    if steps:
        require_hub(cfg, sorted({role for step in steps for role in step.spec.data(cfg)}))


def _to_run(steps: list[Judgement]) -> list[StageSpec]:
    return [step.spec for step in steps if step.state is State.run]


def dry_run(planner: Planner) -> None:
    """Load, tokenise and show one batch of every selected stage; nothing is trained or written."""
    steps = [planner.judge(spec.name) for spec in planner.chosen()]
    _require_hub(planner.cfg, steps)
    require(planner.cfg, [step.spec for step in steps])
    for step in steps:
        if step.state is State.run:
            step.attempt = planner.attempt(step.spec)
    _print_header(planner.cfg, plan_rows(planner, steps, would="would "))
    for words in foreseen(planner, steps):
        line(words, style="yellow")
    inputs = {p.spec.name: str(p.aside or p.folder) for s in steps for p in _existing(planner, s)}
    with tempfile.TemporaryDirectory(prefix="rlhf-") as folder:
        work = Path(folder)
        modules = {s.spec.name: s.spec.module for s in steps}
        job = {"modules": modules, "inputs": inputs, "dry_run": True}
        runtime = replace(planner.cfg.runtime, num_processes=1)
        outcome = run_workers(_write_job(planner.cfg, work, job), runtime)
        if outcome.code or outcome.interrupted:
            code = ExitCode.INTERRUPTED if outcome.was_stopped else ExitCode.FAILURE
            raise StageFailed(f"the dry run failed: {outcome.explanation}", code=code)


def _print_header(cfg: Config, plan: list[tuple[str, str, str]], *, num_nodes: int = 1) -> None:
    print_header(
        cfg.name,
        plan,
        model=cfg.model,
        data=cfg.data,
        runtime=cfg.runtime,
        tasks=cfg.tasks,
        num_nodes=num_nodes,
    )


def _existing(planner: Planner, step: Judgement) -> list[Judgement]:
    parents = [planner.judge(stage) for stage in step.spec.parents(planner.cfg)]
    return [p for p in parents if p.digest]


def _keep(planner: Planner, step: Judgement) -> None:
    """Leave a finished stage as it is, or put back what another configuration has replaced."""
    if step.aside:
        replace_stage(step.aside, step.folder, keep=planner.cfg.save.keep_replaced)
    say_kept(step)


def _write_job(cfg: Config, work: Path, job: dict) -> Path:
    """Write what the workers read, and return the path of the job."""
    files = WorkFolder(work)
    with write_errors(work, FREE):
        write_text(files.config, json.dumps(freeze(cfg), indent=2, sort_keys=True) + "\n")
        write_text(files.job, json.dumps(job, indent=2) + "\n")
    return files.job


def _manifest(planner: Planner, step: Judgement, started: str) -> StageManifest:
    """Return the manifest of the work folder, with the fingerprint that it was made of."""
    spec, work = step.spec, work_folder(planner.folder, step.spec.name)
    made_of = planner.fingerprint(spec)
    with read_errors(work):
        metrics = json.loads(WorkFolder(work).result.read_text())
        last, costs = _recorded(work / METRICS)
    origins = {name: str(p.folder) for name, p in planner.parents(spec).items()}
    models = {role: path for role, (path, _) in spec.models(planner.cfg).items()}
    return StageManifest(
        stage=spec.name,
        status=FINISHED,
        version=__version__,
        commit=checkout_commit(),
        config=made_of.config,
        data=made_of.data,
        parents=made_of.parents,
        origins=origins | models,
        tokenizer_hash=tokenizer_hash(work / MODEL),
        template_hash=template_hash(work / MODEL),
        date=planner.cfg.data.date,
        seed=planner.cfg.seed,
        step=last,
        started=started,
        finished=datetime.now().isoformat(timespec="seconds", sep=" "),
        metrics={
            name: value if abs(value) < float("inf") else None
            for name, value in (metrics | costs).items()
        },
    )


def _recorded(path: Path) -> tuple[int, dict[str, float]]:
    """Return the last step of metrics.jsonl, and what the stage took: the cost/* of its last line."""
    lines = [json.loads(entry) for entry in path.open()] if path.is_file() else []
    last = lines[-1] if lines else {}
    costs = {name: value for name, value in last.items() if name.startswith("cost/")}
    return max((entry.get("step", 0) for entry in lines), default=0), costs
