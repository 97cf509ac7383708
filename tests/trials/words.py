"""How a row of configuration words is written down: `rlhf config` unless another command is named."""

import shlex

from tests.trials.place import SMALL
from tests.trials.row import Row

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

    return Row(tried=f"`{words}`", play=play, has=has, quick=True, **more)


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


def split(words: str) -> list[str]:
    """The words as a shell splits them."""
    return shlex.split(words)
