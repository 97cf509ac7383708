"""Where a stage's seconds go, part by part, and how fast it learned meanwhile."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

PARTS: tuple[str, ...] = ("generate", "score", "learn", "save", "idle")

_began: float | None = None


def begin() -> None:
    """This process starts its work: the imports and the loading that follow are its stage's start."""
    global _began
    _began = time.perf_counter()


class Clock:
    """with clock.part("learn"): ...

    Every second belongs to one part: the innermost that is open, "idle" where none is. A part that works
    on a GPU should end where the program waits for it, as it does for the number of a loss. peak: FLOP/s
    that all processes together reach in matrix products; asked for when it is needed.
    """

    def __init__(self, peak: Callable[[], float] | None = None):
        self.peak, self._part = peak, "idle"
        self._since = time.perf_counter() if _began is None else _began
        self._clear()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens within is part of `name`, one of PARTS."""
        outer = self._part
        self._turn(name)
        try:
            yield
        finally:
            self._turn(outer)

    def count(self, *, tokens: float = 0, flops: float = 0, generated: float = 0) -> None:
        """Real tokens learned from, model FLOPs of that (nan: unknown), response tokens sampled."""
        self.tokens, self.flops = self.tokens + tokens, self.flops + flops
        self.generated += generated

    def start(self) -> dict[str, float]:
        """All seconds until now were the start: {"time/start": seconds}."""
        self._turn(self._part)
        found = sum(self.seconds.values())
        self._clear()
        return {"time/start": found}

    def lap(self) -> dict[str, float]:
        """time/* in seconds since the last lap, adding up to all of them, and speed/* where known."""
        self._turn(self._part)
        found = {f"time/{name}": seconds for name, seconds in self.seconds.items()}
        found |= self._speeds()
        self._clear()
        return found

    def state(self) -> dict[str, Any]:
        """The lap so far, for `go_on`."""
        self._turn(self._part)
        counts = {"tokens": self.tokens, "flops": self.flops, "generated": self.generated}
        return {"seconds": dict(self.seconds), "counts": counts}

    def go_on(self, state: Mapping[str, Any]) -> None:
        """The lap of an interrupted attempt is part of this one."""
        for name, seconds in state["seconds"].items():
            self.seconds[name] += seconds
        self.count(**state["counts"])

    def _clear(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.tokens = self.flops = self.generated = 0.0

    def _turn(self, name: str) -> None:
        """The part that was open gets its seconds; `name` is open now."""
        now = time.perf_counter()
        self.seconds[self._part] += now - self._since
        self._part, self._since = name, now

    def _speeds(self) -> dict[str, float]:
        found, whole = {}, sum(self.seconds.values())
        if self.tokens:
            found["speed/tokens_per_s"] = self.tokens / whole
        if self.generated and self.seconds["generate"]:
            found["speed/generated_tokens_per_s"] = self.generated / self.seconds["generate"]
        if self.flops > 0 and self.seconds["learn"] and self.peak:  # nan is not larger than 0
            found["speed/mfu"] = self.flops / self.seconds["learn"] / self.peak()
        return found
