"""Tables of questions: what the task files of conf/tasks/tiny_world turn into instructions.

A table is a fixed data set, the same for every seed: its rows to train on are the source
tiny_world:NAME, its evaluation rows tiny_world:NAME/eval, and the two share no question.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from types import MappingProxyType

from rlhf_cli.tiny_world import knowledge_tables, reading_tables, reasoning_tables
from rlhf_cli.tiny_world.rows import THREE_WAY, Row

MOST, MOST_EVAL = 1200, 200  # different questions, and those of them to evaluate
IDLE = 500  # draws without another question, after which a table is complete
EVAL = "/eval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A type of question. wordings: as the pretraining text asks it, with the columns' names."""

    name: str
    cluster: str
    draw: Callable[[Random], Row]
    wordings: tuple[str, ...]

    def ask(self, row: Row, rng: Random) -> str:
        """Return the question of a row in one of the table's wordings."""
        return rng.choice(self.wordings).format(**row.columns)


def _tables() -> dict[str, Table]:
    listed = (*knowledge_tables.TABLES, *reading_tables.TABLES, *reasoning_tables.TABLES)
    return {
        name: Table(name=name, cluster=cluster, draw=draw, wordings=wordings)
        for cluster, name, draw, wordings in listed
    }


TABLES = MappingProxyType(_tables())


@cache
def _drawn(name: str) -> tuple[Row, ...]:
    """Return rows with different questions.

    Each verdict (yes, no) is as frequent as the rarest of its table: further rows are left out.
    """
    rng, found, idle = Random(f"tables/{name}"), {}, 0
    while len(found) < MOST and idle < IDLE:
        row, known = TABLES[name].draw(rng), len(found)
        found.setdefault(row.question, row)
        idle = idle + 1 if len(found) == known else 0
    verdicts = Counter(row.answer for row in found.values() if row.answer in THREE_WAY)
    room = Counter({answer: min(verdicts.values()) for answer in verdicts})
    kept = [row for row in found.values() if _taken(row, room)]
    rng.shuffle(kept)
    return tuple(kept)


def _taken(row: Row, room: Counter[str]) -> bool:
    """Return whether there is room for the row's answer, and take it."""
    room[row.answer] -= row.answer in THREE_WAY
    return row.answer not in THREE_WAY or room[row.answer] >= 0


def table_rows(path: str) -> list[dict]:
    """Return the rows of NAME, to train on, or of NAME/eval; KeyError for any other name."""
    name = path.removesuffix(EVAL)
    every = _drawn(name)
    num_eval = min(MOST_EVAL, len(every) // 3)
    chosen = every[:num_eval] if path.endswith(EVAL) else every[num_eval:]
    return [row.values() for row in chosen]


def table_names() -> tuple[str, ...]:
    """Return all names that `table_rows` takes."""
    return tuple(f"{name}{suffix}" for name in TABLES for suffix in ("", EVAL))
