"""The tables of one-line faults, one TOML file per area, and the source files that they change."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """`old` in `file` becomes `new`; one of `tests` must then fail. keys: those that are then ignored."""

    area: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    keys: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The area, the keys, and the fault in one line."""
        words = (self.area, *self.keys, f"{self.file}:", " ".join(self.old.split()))
        return f"{' '.join(words)} -> {' '.join(self.new.split()) or 'nothing'}"

    def applied(self, root: Path) -> str:
        """Return the text of the changed file below `root`."""
        text = (root / self.file).read_text()
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"{self.name}: `old` occurs {found} times in {self.file}")
        return text.replace(self.old, self.new)


def listed(words: str | list[str]) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else tuple(words)


def read_tables(folder: Path = HERE) -> list[Mutant]:
    """Return the mutants of all tables, in the order of the files' names."""
    return [
        Mutant(
            area=path.stem,
            file=row["file"],
            old=row["old"],
            new=row["new"],
            tests=listed(row["test"]),
            keys=listed(row.get("key", [])),
        )
        for path in sorted(folder.glob("*.toml"))
        for row in tomllib.loads(path.read_text())["mutant"]
    ]
