"""What the records of a role depend on, in one object: the argument of the loader, and what is hashed.

No torch and no tokenizer: the planner asks as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from rlhf_cli.config.schema import Source
from rlhf_cli.data.embedded import MIXTURE, MIXTURE_PATH, scheme_of, task_of
from rlhf_cli.data.records import DataError
from rlhf_cli.data.sources import local_files, source_hash

if TYPE_CHECKING:  # it brings a template engine, which takes 0.1 s to import
    from rlhf_cli.data.tasks.source import Mixture

ROLES = ("demonstrations", "comparisons", "prompts", "pretraining")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """A role's sources, and what decides the sides of their records.

    read_as: the role that the sources stand under (prompts may come from the comparisons, or be a set
    of evaluation.ood) . marked:
    (role, source) of every source marked eval, whatever its role: what it asks is trained on nowhere .
    by_hash: some role has no such source, so that a share of all questions is trained on nowhere .
    drop_ties: comparisons with nothing but ties are left out . settings: of the embedded tasks,
    by scheme . mixture: of tasks:train, where it is among the sources . strict, max_bad_fraction:
    when to refuse; they change no record, and are not hashed.
    """

    role: str
    read_as: str
    sources: tuple[Source, ...]
    marked: tuple[tuple[str, Source], ...]
    by_hash: bool
    seed: int
    eval_fraction: float
    select_fraction: float
    drop_ties: bool
    settings: Mapping[str, Any]
    mixture: "Mixture | None" = None
    strict: bool = False
    max_bad_fraction: float = 1.0

    @property
    def pinned(self) -> bool:
        """Return whether all contents are known by their hashes: a hub id needs a revision."""
        named = [*self.sources, *(source for _, source in self.marked)]
        known = (scheme_of(s.path) or s.revision is not None or local_files(s) for s in named)
        return all(known) and (self.mixture is None or self.mixture.pinned)

    @property
    def divided(self) -> bool:
        """Return whether some records may be held out; else all of them are of one side."""
        return self.by_hash or bool(self.marked)

    def config(self) -> dict[str, Any]:
        """Return the configuration keys that decide the records, flat, without the contents."""
        if not self.sources:
            return {}
        found: dict[str, Any] = {"seed": self.seed}
        if self.role != "pretraining":
            found["data.eval_fraction"] = self.eval_fraction
            found[f"data.{self.read_as}.held_out_by_hash"] = self.by_hash
        if self.role == "demonstrations":
            found["data.select_fraction"] = self.select_fraction
        if self.role == "comparisons":
            both = (
                "drop" if self.drop_ties else "kept"
            )  # both decide which comparisons are left out
            found |= {"rm.ties": both, "dpo.ties": both}
        for key, source in self._named():
            found |= _options(key, source)
            found |= self._settings(source)
        return found if self.mixture is None else found | self.mixture.config()

    def contents(self) -> dict[str, dict[str, str]]:
        """Return {role: {source: sha256 of its content}}, those that decide the sides alone among them."""
        found: dict[str, dict[str, str]] = {}
        for role, source in [*((self.read_as, s) for s in self.sources), *self._others()]:
            named = found.setdefault(role, {})
            if self.mixture is not None and scheme_of(source.path) == MIXTURE:
                named |= self.mixture.contents()
            else:
                named[label(source)] = self._hash(source)
        return found

    def _others(self) -> list[tuple[str, Source]]:
        """Return the sources that only decide which questions are held out."""
        if not self.sources:
            return []
        return [(role, source) for role, source in self.marked if role != self.read_as]

    def _named(self) -> list[tuple[str, Source]]:
        """Yield every source under the key by which a user knows it."""
        mine = [(f"data.{self.read_as}[{i}]", s) for i, s in enumerate(self.sources)]
        return mine + [(f"data.{r}.eval[{i}]", s) for i, (r, s) in enumerate(self._others())]

    def _settings(self, source: Source) -> dict[str, Any]:
        if (task := task_of(source.path)) is None:
            return {}
        scheme, _, role = source.path.partition(":")
        settings = self.settings[scheme]
        return {f"{scheme}.{name}": getattr(settings, name) for name in task.keys_of(role)}

    def _hash(self, source: Source) -> str:
        task = task_of(source.path)
        return source_hash(source) if task is None else task.code_hash()


def label(source: Source) -> str:
    """Return the name of a source in reports and hashes."""
    parts = (source.path, source.config, source.data_dir, source.split)
    return ":".join(part for part in parts if part)


def _options(key: str, source: Source) -> dict[str, Any]:
    """Return how the source is read: whatever differs from the defaults, but not its path."""
    plain = Source(path=source.path)
    return {
        f"{key}.{field.name}": getattr(source, field.name)
        for field in fields(Source)
        if getattr(source, field.name) != getattr(plain, field.name)
    }


def has_tasks(sources: Sequence[Source], role: str) -> bool:
    """Return whether tasks:train is among the sources; refuse it twice, elsewhere, and marked eval."""
    named = [source for source in sources if source.path.partition(":")[0] == MIXTURE]
    for source in named:
        if source.path != MIXTURE_PATH:
            raise DataError(
                f"{source.path} is no source of tasks; the one there is: {MIXTURE_PATH}"
            )
        if role != "demonstrations":
            raise DataError(
                f"{MIXTURE_PATH} stands under data.{role}; it belongs under data.demonstrations"
            )
        if source.eval:
            raise DataError(
                f"{MIXTURE_PATH} cannot be marked eval: its tasks hold rows out themselves (eval_path)"
            )
    if len(named) > 1:
        raise DataError(f"data.demonstrations names {MIXTURE_PATH} twice; leave one out")
    return bool(named)
