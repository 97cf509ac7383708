"""`rlhf show RUN`: the stages of a run, where each comes from, its numbers, and what is wrong."""

import json
from collections.abc import Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from rlhf_cli.artifacts.manifest import Refusal, StageManifest
from rlhf_cli.artifacts.store import verified, work_folder
from rlhf_cli.config.completion import run_names
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.keys import did_you_mean, nearest
from rlhf_cli.report.table import print_table
from rlhf_cli.telemetry.console import console, line
from rlhf_cli.telemetry.progress import short

Headlines = Mapping[str, tuple[str, ...]]  # stage -> its most telling metrics, in pipeline order


def show_run(place: str, headlines: Headlines) -> None:
    """A page about one run; `place` is its name under runs/ or its folder."""
    stages = tuple(headlines)
    run = find_run(place)
    manifests, problems = read_stages(run, stages)
    line(f"run {run.name} in {run}", style="bold")
    if manifests:
        console().print(stage_table(manifests, headlines), lineage(manifests))
        print_table(run / "evaluate")
    problems += stale_parents(manifests) + unfinished(run, stages)
    for problem in problems:
        line(f"problem: {problem}", style="red")
    if not manifests and not problems:
        line("nothing has finished here yet")


def show_runs(runs_dir: Path, stages: tuple[str, ...]) -> None:
    """One line a run: which of its stages are finished."""
    names = run_names(runs_dir)
    if not names:
        line(f"no runs in {runs_dir}/ yet: `rlhf run` makes one")
    width = max(map(len, names), default=0)
    for name in names:
        done = [stage for stage in stages if (runs_dir / name / stage / "manifest.json").is_file()]
        line(f"{name:<{width}}  {' -> '.join(done) or 'nothing finished'}")


def find_run(place: str) -> Path:
    """The folder of a run, by path or by name."""
    for run in (Path("runs") / place, Path(place)):
        if run.is_dir():
            return run
    known = run_names(Path("runs"))
    meant = nearest(place, known)
    tail = did_you_mean([meant]) if meant else f": runs/ has {', '.join(known) or 'no runs'}"
    raise UserError(f"there is no run {place!r}{tail}")


def read_stages(run: Path, stages: tuple[str, ...]) -> tuple[dict[str, StageManifest], list[str]]:
    """The verified stages, and why the others are refused."""
    found, problems = {}, []
    for stage in stages:
        if (run / stage).exists():
            try:
                found[stage] = verified(run / stage)
            except Refusal as refusal:
                problems.append(str(refusal))
    return found, problems


def stage_table(manifests: dict[str, StageManifest], headlines: Headlines) -> Table:
    """One row a stage, with the numbers that matter first."""
    table = Table(title="stages", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for name in ("stage", "finished", "steps", "seed", "made by", "numbers"):
        table.add_column(name)
    for stage, manifest in manifests.items():
        commit = f" ({manifest.commit[:7]})" if manifest.commit else ""
        table.add_row(
            stage,
            manifest.finished,
            str(manifest.step),
            str(manifest.seed),
            f"{manifest.version}{commit}",
            "\n".join(numbers(manifest, headlines[stage])),
        )
    return table


def numbers(manifest: StageManifest, headline: tuple[str, ...], limit: int = 4) -> list[str]:
    """The stage's headline metrics, or its first few; all of them are in its manifest.json."""
    known = manifest.metrics
    chosen = [name for name in headline if name in known] or list(known)[:limit]
    if manifest.stage == "evaluate":
        return ["see the table"]
    return [f"{name} {short(known[name])}" for name in chosen]


def lineage(manifests: dict[str, StageManifest]) -> Tree:
    """What was made of what: models and data under the stage that read them."""
    tree = Tree(Text("lineage", style="bold"))
    for stage, manifest in manifests.items():
        branch = tree.add(Text.assemble(stage, (f"  {manifest.digest[:12]}", "dim")))
        for role, digest in manifest.parents.items():
            origin = manifest.origins.get(role, "")
            branch.add(Text.assemble(f"{role} ", origin, (f"  {digest[:12]}", "dim")))
        for role, sources in manifest.data.items():
            for source, digest in sources.items():
                branch.add(Text.assemble(f"{role} ", source, (f"  {digest[:12]}", "dim")))
    return tree


def stale_parents(manifests: dict[str, StageManifest]) -> list[str]:
    """Stages made from another version of a stage than the one that lies beside them."""
    problems = []
    for stage, manifest in manifests.items():
        for role, digest in manifest.parents.items():
            beside = manifests.get(role)
            is_own = Path(manifest.origins.get(role, "")).parent.name not in ("", ".")
            if beside is not None and is_own and digest != beside.digest:
                problems.append(
                    f"{stage} was made with another {role} than the one here; run it again"
                )
    return problems


def unfinished(run: Path, stages: tuple[str, ...]) -> list[str]:
    """Work folders that were left: a stage that failed, was stopped, or is running now."""
    left = []
    for stage in stages:
        work = work_folder(run, stage)
        if work.exists():
            left.append(f"{stage} did not finish{_reason(work)}; its files are in {work}")
    return left


def _reason(work: Path) -> str:
    try:
        return f": {json.loads((work / 'failure.json').read_text())['reason']}"
    except (OSError, ValueError, KeyError):  # not there, or torn by a kill
        return " (or is running)"
