"""A stage's seconds by phase, and its training speed."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

PHASES: tuple[str, ...] = ("generate", "score", "learn", "save", "idle")
# What a stage takes from its data and models, over all of its attempts: the names of Clock.costs.
COSTS: tuple[str, ...] = (
    "sampled_responses",
    "sampled_tokens",
    "trained_tokens",
    "scored_responses",
)

ENERGY = "energy_kwh"  # a cost too, where the devices count it

_began: float | None = None


def begin() -> None:
    """Mark the start of this process's work: its imports and its loading are the stage's start."""
    global _began
    _began = time.perf_counter()


class Clock:
    """with clock.phase("learn"): ...

    Every second belongs to one phase: the innermost that is open, "idle" where none is. A phase that works
    on a GPU should end where the program waits for it, as it does for the number of a loss. peak: FLOP/s
    that all processes together reach in matrix products; measured when it is needed.
    """

    def __init__(self, peak: Callable[[], float] | None = None):
        self.peak, self._phase = peak, "idle"
        self._since = time.perf_counter() if _began is None else _began
        self.costs = dict.fromkeys(COSTS, 0.0)
        self._energy: Callable[[], float] | None = None
        self._clear()

    def meter(self, energy: Callable[[], float] | None) -> None:
        """Count the energy, too. energy: returns the kWh since its last call, or raises OSError.

        None: it is not known, and no cost.
        """
        self._energy = energy
        self.costs.pop(ENERGY, None)
        if energy:
            self.costs[ENERGY] = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of the block as phase `name`, one of PHASES."""
        outer = self._phase
        self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def count(self, *, tokens: float = 0, flops: float = 0, generated: float = 0) -> None:
        """Count real tokens learned from, model FLOPs of that (nan: unknown), response tokens sampled."""
        self.tokens, self.flops = self.tokens + tokens, self.flops + flops
        self.generated += generated
        self.costs["trained_tokens"] += tokens

    def sampled(self, *, responses: int, tokens: int) -> None:
        """Count responses that were sampled for what the stage makes, and their tokens."""
        self.count(generated=tokens)
        self.costs["sampled_responses"] += responses
        self.costs["sampled_tokens"] += tokens

    def scored(self, responses: int) -> None:
        """Count responses that a reward model has scored."""
        self.costs["scored_responses"] += responses

    def start(self) -> dict[str, float]:
        """Return all seconds until now as {"time/start": seconds}."""
        self._switch(self._phase)
        self._count_energy()
        if self._energy:
            self.costs[ENERGY] = 0.0  # that of loading is left out
        found = sum(self.seconds.values())
        self._clear()
        return {"time/start": found}

    def interval(self) -> dict[str, float]:
        """Return time/* in seconds since the last call, adding up to all of them, and known speed/*."""
        self._switch(self._phase)
        self._count_energy()
        found = {f"time/{name}": seconds for name, seconds in self.seconds.items()}
        found |= self._speeds()
        self._clear()
        return found

    def state(self) -> dict[str, Any]:
        """Return the interval so far, for `load_state`."""
        self._switch(self._phase)
        self._count_energy()
        counts = {"tokens": self.tokens, "flops": self.flops, "generated": self.generated}
        return {"seconds": dict(self.seconds), "counts": counts, "costs": dict(self.costs)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Add the interval of an interrupted attempt to this one."""
        for name, seconds in state["seconds"].items():
            self.seconds[name] += seconds
        self.count(**state["counts"])
        if ENERGY not in state["costs"]:
            self.meter(None)
        self.costs = {name: state["costs"][name] for name in self.costs}

    def _count_energy(self) -> None:
        """Add the energy since the last time; once a counter cannot be read it is not known any more."""
        if self._energy:
            try:
                self.costs[ENERGY] += self._energy()
            except (OSError, ValueError):
                self.meter(None)

    def _clear(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.tokens = self.flops = self.generated = 0.0

    def _switch(self, name: str) -> None:
        """Give the open phase its seconds and open phase `name`."""
        now = time.perf_counter()
        self.seconds[self._phase] += now - self._since
        self._phase, self._since = name, now

    def _speeds(self) -> dict[str, float]:
        found, whole = {}, sum(self.seconds.values())
        if self.tokens:
            found["speed/tokens_per_s"] = self.tokens / whole
        if self.generated and self.seconds["generate"]:
            found["speed/generated_tokens_per_s"] = self.generated / self.seconds["generate"]
        if self.flops > 0 and self.seconds["learn"] and self.peak:  # nan is not larger than 0
            found["speed/mfu"] = self.flops / self.seconds["learn"] / self.peak()
        return found
