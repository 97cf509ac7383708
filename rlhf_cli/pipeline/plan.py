"""What a run will do, decided before anything starts: which stages run, which are kept, and why.

torch is not imported here; a stage is judged by its manifest alone.
"""

from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from rlhf_cli.artifacts.attempts import Attempt, find_attempt
from rlhf_cli.artifacts.fingerprint import Fingerprint, model_hash, run_date
from rlhf_cli.artifacts.manifest import ArtifactError, RepairableError, StageManifest, read_errors
from rlhf_cli.artifacts.publication import find_version, recover
from rlhf_cli.artifacts.store import verified
from rlhf_cli.config.schema import Model
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_spec import StageSpec
from rlhf_cli.config.stage_table import REPLACEABLE, STAGES
from rlhf_cli.pipeline.fingerprints import Fingerprints
from rlhf_cli.pipeline.model_folders import external


class State(Enum):
    fresh = "fresh"  # finished, and made of exactly this configuration, data and parents
    run = "run"  # selected and not fresh
    given = "given"  # taken from elsewhere by parents.<stage>
    stale = "stale"  # finished, but made of something else
    missing = "missing"  # not there, or broken


USABLE = (State.fresh, State.run, State.given)


@dataclass(slots=True, kw_only=True)
class Judgement:
    """What was decided about one stage. digest: of its artifact, empty as long as the stage has to run.

    attempt: what an interrupted run left of it, looked at once the stage is sure to run. aside: where
    a fresh one is that has only to be put back, because another configuration replaced it. others:
    that parents.<stage> names beside this one.
    """

    spec: StageSpec
    state: State
    folder: Path
    why: str
    digest: str = ""
    manifest: StageManifest | None = None
    attempt: Attempt = field(default_factory=Attempt)
    aside: Path | None = None
    others: list["Judgement"] = field(default_factory=list)

    @property
    def kept(self) -> str:
        """Return why it need not run."""
        return "made before with this configuration, put back" if self.aside else "unchanged"

    @property
    def reason(self) -> str:
        """Return why it runs, and what it continues from."""
        return self.attempt.description or self.why


@dataclass(slots=True, kw_only=True)
class Planner:
    """Judges every stage once, parents before children, as of the day on which the run was begun."""

    cfg: Config
    judged: dict[str, Judgement] = field(default_factory=dict)
    fingerprints: Fingerprints = field(init=False)

    def __post_init__(self):
        data = self.cfg.data
        self.cfg = replace(self.cfg, data=replace(data, date=data.date or run_date(self.folder)))
        self.fingerprints = Fingerprints(cfg=self.cfg)

    @property
    def folder(self) -> Path:
        return Path(self.cfg.runs_dir) / self.cfg.name

    def chosen(self) -> list[StageSpec]:
        """Return the selected stages that no parents.<stage> replaces."""
        given = _given(self.cfg)
        names = [name for name in self.cfg.stage if name not in given]
        if not names:
            first = self.cfg.stage[0]
            place = ",".join(given[first])
            found = f"nothing to do: parents.{first}={place} replaces the selected {first}"
            raise ArtifactError(found, f"choose other stages, or leave out parents.{first}")
        return [STAGES[name] for name in names]

    def plan(self) -> list[Judgement]:
        """Return the chosen stages in order; raise ArtifactError when one of them lacks a parent."""
        steps = [self.judge(spec.name) for spec in self.chosen()]
        for step in steps:
            self.require_parents(step.spec)
        for step in steps:
            if step.state is State.run:
                step.attempt = self.attempt(step.spec)
        return steps

    def attempt(self, spec: StageSpec) -> Attempt:
        """Return what an interrupted run left of the stage, as its parents are now."""
        with read_errors(self.folder):
            return find_attempt(
                self.folder, spec.name, self.fingerprint(spec), self.cfg.resume.name
            )

    def judge(self, name: str) -> Judgement:
        """Return the judgement of a stage, made once."""
        if name not in self.judged:
            self.judged[name] = self._judge(STAGES[name])
        return self.judged[name]

    def _judge(self, spec: StageSpec) -> Judgement:
        if places := _given(self.cfg).get(spec.name):
            found, *others = [_external(spec, place, self.cfg.model) for place in places]
            found.others = others
            return found
        selected = spec.name in self.cfg.stage
        found = self._on_disk(spec)
        if selected and found.state is not State.fresh and not self.settle(found):
            found.state = State.run
        return found

    def settle(self, found: Judgement) -> bool:
        """Make a judgement fresh where the stage, or a version of it set aside, is what is wanted now."""
        if self._not_there(found.spec):
            return False
        made_of = self.fingerprint(found.spec)
        if not (found.manifest and made_of.equals(found.manifest)):
            before = find_version(found.folder, made_of)
            if before is None:
                return False
            found.aside, found.manifest = before
        found.state, found.digest = State.fresh, found.manifest.digest
        return True

    def _not_there(self, spec: StageSpec) -> list[str]:
        """Return the parents that have to be made first."""
        parents = self.parents(spec).values()
        return [p.spec.name for p in parents if p.state not in (State.fresh, State.given)]

    def _on_disk(self, spec: StageSpec) -> Judgement:
        folder = self.folder / spec.name
        with read_errors(folder):
            if not self.cfg.dry_run:  # it holds no lock
                recover(folder, keep=self.cfg.save.keep_replaced)
            if not folder.exists():
                return Judgement(spec=spec, state=State.missing, folder=folder, why="new")
        try:
            manifest = verified(folder)
        except RepairableError:
            raise
        except ArtifactError as refusal:
            return Judgement(spec=spec, state=State.missing, folder=folder, why=refusal.found)
        changes = self._changes(spec, manifest)
        return Judgement(
            spec=spec,
            state=State.stale if changes else State.fresh,
            folder=folder,
            why="; ".join(changes),
            digest=manifest.digest,
            manifest=manifest,
        )

    def _changes(self, spec: StageSpec, manifest: StageManifest) -> list[str]:
        again = self._not_there(spec)
        now = self.fingerprint(spec)
        if now.equals(manifest) and not again:
            return []
        rerun = [f"parent {name} {_parent_word(self.judged[name].state)}" for name in again]
        known = {f"parent {name} changed" for name in again}
        return [c for c in now.changes(manifest) if c not in known] + rerun

    def parents(self, spec: StageSpec) -> dict[str, Judgement]:
        """Return {name: judgement} of the parents that this stage will use; rm/2, rm/3 .. of several."""
        found = {}
        for name in spec.parents(self.cfg):
            parent = self.judge(name)
            if spec.required or parent.state in USABLE:
                more = {
                    f"{name}/{number}": one for number, one in enumerate(parent.others, start=2)
                }
                found |= {name: parent} | more
        return found

    def fingerprint(self, spec: StageSpec) -> Fingerprint:
        """Return what the stage's result depends on now; parents that have to run count as unknown."""
        parents = {role: parent.digest for role, parent in self.parents(spec).items()}
        return self.fingerprints.of(spec, parents)

    def require_parents(self, spec: StageSpec) -> None:
        """Refuse a stage that lacks a parent; one that takes what there is, when that is not sound."""
        found = [self.judge(stage) for stage in spec.parents(self.cfg)]
        lacking = [p for p in found if p.state not in USABLE]
        if spec.required and lacking:
            raise ArtifactError(*_lacking(spec, lacking))
        for parent in () if spec.required else lacking:
            self._refuse_unsound(spec, parent)
        if len(lacking) == len(found) > 0:
            raise ArtifactError(
                f"{spec.name} has nothing to look at: {self.folder} holds no finished stage",
                "run them first with stage=all",
            )

    def _refuse_unsound(self, child: StageSpec, parent: Judgement) -> None:
        """Refuse to leave a damaged stage, or one of other settings, out of what is evaluated.

        One that is not there may be left out, and so may one whose parents are made again now.
        """
        if parent.why == "new" or self._made_again(parent):
            return
        raise ArtifactError(
            f"{child.name} would leave out {parent.spec.name}: {_lack(parent)}",
            f"make it with stage=[{parent.spec.name},{child.name}], or move it away",
        )

    def _made_again(self, judged: Judgement) -> bool:
        """Return whether it is stale because a stage that it was made from runs now."""
        parents = [self.judge(stage) for stage in judged.spec.parents(self.cfg)]
        return any(p.state is State.run or self._made_again(p) for p in parents)


def _parent_word(state: State) -> str:
    return {State.run: "changed", State.stale: "is stale", State.missing: "is missing"}[state]


def _lacking(child: StageSpec, lacking: list[Judgement]) -> tuple[str, str]:
    """Return what is missing or stale, and what to do about it, as an ArtifactError takes them."""
    first = lacking[0]
    names = [name for name in STAGES if name in [child.name, *(p.spec.name for p in lacking)]]
    remedy = f"make it with stage=[{','.join(names)}]"
    if first.spec.name in REPLACEABLE:
        keep, use = (first.folder, "it as it is") if first.digest else ("<folder>", "another")
        remedy += f", or set parents.{first.spec.name}={keep} to use {use}"
    return f"{child.name} needs {first.spec.name}: {_lack(first)}", remedy


def _lack(parent: Judgement) -> str:
    if parent.state is State.stale:
        return f"{parent.folder} was made of something else ({parent.why})"
    return f"{parent.folder} does not exist" if parent.why == "new" else parent.why


def _given(cfg: Config) -> dict[str, list[str]]:
    """Return {stage: the folders or hub ids that replace it}."""
    pairs = {name: getattr(cfg.parents, name) for name in REPLACEABLE}
    return {
        name: [found] if isinstance(found, str) else found
        for name, found in pairs.items()
        if found is not None
    }


def _external(spec: StageSpec, place: str, model: Model) -> Judgement:
    """Return the judgement of a stage folder of another run, verified, or of a model folder or hub id."""
    key = f"parents.{spec.name}"
    manifest = external(key, place, spec.name, model)
    revision = model.revision if place == model.path else None
    return Judgement(
        spec=spec,
        state=State.given,
        folder=Path(place).expanduser(),
        why=key,
        digest=manifest.digest if manifest else model_hash(place, revision),
        manifest=manifest,
    )
