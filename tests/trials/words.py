"""How a row of configuration words is written down: `rlhf config` unless another command is named."""

import re
import shlex

from tests.trials.place import SMALL, inside
from tests.trials.row import Came, Row

LIBRARIES = (r"\bHydra\b", r"\bomegaconf\b", r"'int' object|'str' object")


def refused(words: str, *has: str, lacks: tuple[str, ...] = (), **more) -> Row:
    """Words that `rlhf config` refuses with one line."""
    return _config(words, has, code=(2,), lacks=(*LIBRARIES, *lacks), **more)


def taken(words: str, *has: str, section: str = "", **more) -> Row:
    """Words that `rlhf config` takes; `section` is printed, and `has` asks for its values."""
    return _config(words, has or (r"^#? ?.",), section=section, **more)


def defended(words: str, why: str, *kept: str, better: str, **more) -> Row:
    """Words whose outcome may stay awkward, for a reason; good when `better` is refused with."""
    return _config(words, (better,), code=(2,), kept=kept, defended=why, **more)


def _config(words: str, has: tuple[str, ...], *, section: str = "", **more) -> Row:
    sections = [section] if section else []

    def play(place):
        return place.rlhf("config", *sections, *split(words))

    return Row(tried=f"`{in_short(words)}`", play=play, has=has, quick=True, **more)


def refused_by_run(words: str, *has: str, lacks: tuple[str, ...] = (), **more) -> Row:
    """Words that `rlhf run` refuses before it trains anything."""

    def play(place):
        came = place.command("run", *SMALL, *split(words), patience=120)
        done = sorted(path.name for path in (place.folder / "runs").glob("*/*") if path.is_dir())
        return came.told(written=done or "nothing")

    return Row(
        tried=f"`rlhf run {words}`", play=play, has=(*has, r"\[written: nothing\]"), code=(2,),
        lacks=lacks, one_line=False, **more,
    )  # fmt: skip


def in_short(words: str) -> str:
    """Words of many equal letters as their number."""
    return re.sub(r"(\w)\1{30,}", lambda run: f"{run[1]}...({len(run[0])} times)", words)


def split(words: str) -> list[str]:
    """The words as a shell splits them."""
    return shlex.split(words)


def said(line: str, *has: str, tried: str = "", prepare=None, **more) -> Row:
    """A whole command line after `rlhf`, tried in this process."""

    def play(place):
        if prepare:
            prepare(place)
        return place.rlhf(*split(line))

    return Row(tried=tried or f"`rlhf {line}`".replace(" `", "`"), play=play, has=has, quick=True,
               **more)  # fmt: skip


def shelled(line: str, *has: str, tried: str = "", prepare=None, env=None, **more) -> Row:
    """A line of bash in which `rlhf` is the command, as a process of its own."""

    def play(place):
        if prepare:
            prepare(place)
        return place.shell(line, **(env or {}))

    return Row(tried=tried or f"`{line}`", play=play, has=has, one_line=False, **more)


def finished(place) -> None:
    """`prepare` of a row that looks at a finished run, runs/small."""
    place.finished()


def planned(place, *words: str) -> Came:
    """What a run of runs/small with these words would do with every stage, and why."""
    from rlhf_cli.config.command_line import compose_each
    from rlhf_cli.pipeline.plan import Planner

    told: list[str] = []

    def judge(cfg) -> None:
        told.extend(f"{s.spec.name}: {s.state.name} ({s.reason})" for s in Planner(cfg=cfg).plan())

    with inside(place.folder):
        compose_each([*SMALL, "name=small", *words], judge)
    return Came(code=0, text="\n".join(told))
