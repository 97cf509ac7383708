"""Whether memory ran out, as the kernel counts it or an allocator reports it, and which keys lower it."""

import re
from collections.abc import Iterator
from pathlib import Path

KILLS = re.compile(r"^oom_kill (\d+)$", re.M)
REFUSED = re.compile(r"out of memory|(can't|cannot|unable to) allocate|not enough memory", re.I)


def oom_kills(root: Path = Path("/")) -> int | None:
    """Return how many processes the kernel has killed because memory ran out; None where not counted.

    Counted in this process's control group, or on the machine where groups do not count.
    """
    for path in _counters(root):
        try:
            found = KILLS.search(path.read_text())
        except OSError:
            continue
        if found:
            return int(found[1])
    return None


def _counters(root: Path) -> Iterator[Path]:
    """Yield the files that may hold the count, the narrowest first."""
    groups = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for _, kinds, place in (line.split(":", 2) for line in lines):
        if not kinds:
            yield groups / place.strip("/") / "memory.events"
        elif "memory" in kinds.split(","):
            yield groups / "memory" / place.strip("/") / "memory.oom_control"
    yield groups / "memory.events"  # a container may not see the name of its group
    yield groups / "memory/memory.oom_control"
    yield root / "proc/vmstat"


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an allocator refused: torch's own error class, or the message of another error."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(REFUSED.search(str(error)))


def memory_remedy(stage: str | None) -> str:
    """Return which keys to lower, those of `stage` where it is given."""
    if stage in ("evaluate", "rationales"):
        return f"lower {'evaluation' if stage == 'evaluate' else stage}.batch"
    batch = f"{stage}.batch" if stage else "the stage's batch"
    return (
        f"lower {batch}.microbatch or {batch}.max_tokens, or set model.gradient_checkpointing=true"
    )
