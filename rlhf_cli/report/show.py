"""`rlhf show`: a run, a stage of one, or all runs of a folder, as pages or as JSON."""

import json
import math
import shlex
from collections.abc import Sequence
from glob import escape
from os.path import commonprefix
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from rlhf_cli.artifacts.layout import MANIFEST
from rlhf_cli.artifacts.manifest import StageManifest
from rlhf_cli.artifacts.store import verified
from rlhf_cli.config.printable import one_line
from rlhf_cli.report.lm_eval_table import print_harness
from rlhf_cli.report.places import Kind, Place, locate, runs_in
from rlhf_cli.report.rationale_table import print_rationales
from rlhf_cli.report.run_state import Headlines, RunState, read_at_work, read_run
from rlhf_cli.report.table import framed, print_table
from rlhf_cli.report.task_table import print_tasks
from rlhf_cli.report.verdicts import print_verdicts
from rlhf_cli.telemetry.console import console, line, plain_name
from rlhf_cli.telemetry.progress import short

RUNS = Path("runs")  # the default of --runs-dir
MANY = 12  # runs that are named one by one, at most
NARROW = 80  # columns of the screen below which names are short
MINUTES = len("2026-01-31 12:59")


def show(place: str, runs_dir: Path, headlines: Headlines) -> None:
    """Print a page about whatever `place` holds."""
    found = locate(place, runs_dir, tuple(headlines))
    if found.kind is Kind.run:
        show_run(read_run(found.folder, tuple(headlines)), headlines)
    elif found.kind is Kind.stage:
        show_stage(found, headlines)
    else:
        show_runs(found.folder, tuple(headlines))


def show_run(run: RunState, headlines: Headlines) -> None:
    """Print a page about one run."""
    line(f"run {one_line(run.name)} in {one_line(str(run.folder))}", style="bold")
    if run.manifests:
        console().print(stage_table(run.manifests, headlines), lineage(run.manifests))
    if "evaluate" in run.manifests:
        print_table(run.folder / "evaluate")
        print_verdicts(run.folder / "evaluate")
        print_tasks(run.folder / "evaluate")
    if "rationales" in run.manifests:
        print_rationales(run.folder / "rationales")
    print_harness(run)
    if run.at_work:
        line(f"running: {run.at_work.progress()}", style="green")
        line(f"  {one_line(str(run.at_work.holder))}", style="dim")
    for problem in run.problems:
        line(f"problem: {one_line(problem)}", style="red")
    if not run.manifests and not run.problems and not run.at_work:
        line("no stage has finished yet")


def show_stage(place: Place, headlines: Headlines) -> None:
    """Print a page about one finished stage: all its numbers."""
    manifest = verified(place.folder)
    line(f"stage {place.stage} in {one_line(str(place.folder))}", style="bold")
    known = {place.stage: manifest}
    console().print(stage_table(known, headlines), lineage(known))
    if place.stage == "evaluate":
        print_table(place.folder)
        print_verdicts(place.folder)
        print_tasks(place.folder)
        return
    if place.stage == "rationales":
        print_rationales(place.folder)
    numbers_of = Table.grid(padding=(0, 2, 0, 0))
    for name, value in manifest.metrics.items():
        numbers_of.add_row(plain_name(f"  {name}"), short(value))
    console().print(numbers_of)


def show_runs(runs_dir: Path, stages: tuple[str, ...]) -> None:
    """Print one line per run: which of its stages are finished, and what is running."""
    names = runs_in(runs_dir, stages)
    if not names:
        line(f"no runs in {runs_dir}/ yet: `rlhf run` makes one; --runs-dir DIR looks elsewhere")
    width = max((len(one_line(name)) for name in names), default=0)
    for name in names:
        line(f"{one_line(name):<{width}}  {_in_short(runs_dir / name, stages)}")


def _in_short(run: Path, stages: tuple[str, ...]) -> str:
    done = " -> ".join(finished(run, stages)) or "nothing finished"
    at_work = read_at_work(run, stages)
    return f"{done}  (running: {at_work.progress()})" if at_work else done


def finished(run: Path, stages: tuple[str, ...]) -> list[str]:
    """Return the stages of a run that have a manifest; it is not verified."""
    return [stage for stage in stages if (run / stage / MANIFEST).is_file()]


def as_json(place: str | None, runs_dir: Path, headlines: Headlines) -> dict[str, Any]:
    """Return the page's content for programs; without a place the runs of `runs_dir`."""
    found = Place(kind=Kind.runs, folder=runs_dir)
    return _json_of(locate(place, runs_dir, tuple(headlines)) if place else found, headlines)


def _json_of(place: Place, headlines: Headlines) -> dict[str, Any]:
    stages = tuple(headlines)
    if place.kind is Kind.run:
        return read_run(place.folder, stages).as_json()
    if place.kind is Kind.stage:
        return json.loads((place.folder / MANIFEST).read_text()) | {"folder": str(place.folder)}
    runs = [
        {"name": name, "finished": finished(place.folder / name, stages)}
        for name in runs_in(place.folder, stages)
    ]
    return {"folder": str(place.folder), "runs": runs}


def print_json(value: Any) -> None:
    """Print strict JSON: numbers that are not finite are null, control characters are escapes."""
    console().file.write(json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Return JSON values with null for each number that is not finite."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def command_for(*runs: Path) -> str:
    """Return the command that shows runs again, as a shell takes it: many of them by a pattern."""
    if len(runs) > MANY and (pattern := _pattern(runs)):
        return f"rlhf show {pattern}"
    words = [run.name if run.parent == RUNS and run.name[0] != "-" else str(run) for run in runs]
    return shlex.join(["rlhf", "show", *words])


def _pattern(runs: Sequence[Path]) -> str | None:
    """Return the pattern of a shell that these runs alone match, where their names begin alike."""
    folder = runs[0].parent
    start = commonprefix([run.name for run in runs])  # noqa: RUF071 - of characters
    if not start or set(folder.glob(f"{escape(start)}*")) != set(runs):
        return None
    return f"{shlex.quote(str(folder / start))}*"


def stage_table(manifests: dict[str, StageManifest], headlines: Headlines) -> Table:
    """Return a table of one row per stage, with the numbers that matter first."""
    table = framed("stages", first="stage")
    for name in ("finished", "steps", "seed", "numbers"):
        table.add_column(name, no_wrap=True)
    for stage, manifest in manifests.items():
        table.add_row(
            stage,
            Text.assemble(
                plain_name(manifest.finished[:MINUTES]), "\n", (made_by(manifest), "dim")
            ),
            str(manifest.step),
            str(manifest.seed),
            "\n".join(numbers(manifest, headlines[stage])),
        )
    return table


def made_by(manifest: StageManifest) -> str:
    """Return the version and commit of the code that made a stage."""
    commit = f" ({manifest.commit[:7]})" if manifest.commit else ""
    return one_line(f"{manifest.version}{commit}")


def numbers(manifest: StageManifest, headline: tuple[str, ...], limit: int = 4) -> list[str]:
    """Return the stage's headline metrics, or its first few; all of them are in its manifest.json."""
    known = manifest.metrics
    chosen = [name for name in headline if name in known] or list(known)[:limit]
    if manifest.stage == "evaluate":
        return ["see the table"]
    leaf = console().width < NARROW
    return [
        f"{one_line(name.rpartition('/')[2] if leaf else name)} {short(known[name])}"
        for name in chosen
    ]


def lineage(manifests: dict[str, StageManifest]) -> Tree:
    """Return the tree of inputs: models and data under the stage that read them."""
    tree = Tree(Text("lineage", style="bold"))
    for stage, manifest in manifests.items():
        branch = tree.add(_branch(stage, "", manifest.digest))
        for role, digest in manifest.parents.items():
            branch.add(_branch(role, manifest.origins.get(role, ""), digest))
        for role, sources in manifest.data.items():
            for source, digest in sources.items():
                branch.add(_branch(role, source, digest))
    return tree


def _branch(role: str, source: str, digest: str) -> Text:
    named = plain_name(f"{role} {source}".rstrip())
    if digest == source:  # a choice such as data.template=auto, and no content that has a hash
        return named
    return Text.assemble(named, ("  " + one_line(digest[:12]), "dim"))
