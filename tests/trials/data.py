"""The notation of a row of malformed data: a file, its role, and the expected output."""

from collections.abc import Callable
from pathlib import Path

from tests.trials.row import Came, Row

ASKED = {"demonstrations": "stage=sft", "comparisons": "stage=rm", "prompts": "stage=ppo"}
Content = str | bytes | Callable[[Path], object]


def kept(read: int, records: int | None = None) -> str:
    """Return the pattern of the headline of the report: rows read, records kept."""
    return rf"\b{read} rows? read, {read if records is None else records} records? kept"


def check(
    tried: str,
    name: str,
    content: Content | None,
    *has: str,
    role: str = "demonstrations",
    source: str = "",
    words: tuple[str, ...] = (),
    code: int | tuple[int, ...] = 0,
    lacks: tuple[str, ...] = (),
    needs: str = "",
    kept: tuple[str, ...] = (),
    defended: str = "",
) -> Row:
    """`rlhf data check` of one file under a role; source: more keys of it, as in Hydra's words."""

    def play(place) -> Came:
        if content is not None:
            place.write(name, content)
        given = f"data.{role}=[{{path: '{name}'{', ' if source else ''}{source}}}]"
        return place.rlhf("data", "check", "data=generic", ASKED[role], given, *words)

    said = f"{role}: {tried} (`{name}`{', ' + ' '.join(words) if words else ''})"
    return Row(
        tried=said, play=play, has=has, code=(code,) if isinstance(code, int) else code,
        lacks=lacks, needs=needs, kept=kept, defended=defended, quick=True,
    )  # fmt: skip


def bad_row(tried: str, name: str, content: Content, *has: str, line: int = 21, **more) -> Row:
    """Return the trial of one bad row among good ones, which is named by file and line."""
    return check(tried, name, content, *has, rf"{name}:{line}\b", **more)
