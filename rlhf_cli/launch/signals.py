"""Signals between the parent process and its workers: what the parent forwards, how a worker answers.

The first stop is a request: a stage that can save does so and ends. SIGUSR1 asks for a checkpoint.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rlhf_cli.config.environment import PARENT

PR_SET_PDEATHSIG = 1
SECOND_STOP = (
    2.0  # seconds: a terminal's Ctrl-C arrives twice, from the terminal and from the parent
)


class Stopped(KeyboardInterrupt):
    """A stage was asked to stop and has saved; the message names the step: "saved at step 120"."""


@dataclass(slots=True)
class StopRequest:
    """What signals have asked for. The stage sets `save` back to False once it has saved."""

    stop: bool = False
    save: bool = False


class Signalled(Protocol):
    """Worker processes that can be signalled."""

    def signal(self, number: int) -> None: ...

    def kill(self) -> None: ...


def stop_signals() -> list[signal.Signals]:
    """Return the signals that end this process, except those the caller ignores (nohup, background)."""
    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in stops if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Hold stop signals back; processes started meanwhile hold theirs back until they unblock them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def forward_signals(
    workers: Signalled, to_nodes: Callable[[int], None] | None = None
) -> Iterator[list[int]]:
    """Forward stop signals to the workers, kill them at the second one; SIGUSR1 is only forwarded.

    to_nodes: sends a signal to the other nodes. Yield the list of stop signals received so far.
    """
    received: list[int] = []

    def stop(number, frame):
        received.append(number)
        again = len(received) > 1
        workers.kill() if again else workers.signal(number)
        if to_nodes:
            to_nodes(signal.SIGKILL if again else number)

    def save(number, frame):
        workers.signal(number)
        if to_nodes:
            to_nodes(number)

    before = {number: signal.signal(number, stop) for number in stop_signals()}
    before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, save)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def die_with_parent() -> None:
    """Let the kernel kill this worker when its parent ends, even by kill -9 (Linux only).

    At once: the lock of the run folder ended with the parent, so nothing may be written there any more.
    """
    parent = os.environ.get(PARENT)
    if parent and sys.platform == "linux":
        set_parent_death_signal(signal.SIGKILL)
        # The parent may have ended before the request above; then the signal would never come.
        if os.getppid() != int(parent):
            sys.exit("the parent process is gone")


def set_parent_death_signal(number: int) -> None:
    """Let the kernel send `number` to this process when its parent ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def raise_on_first_signal() -> None:
    """Raise KeyboardInterrupt at the first stop signal; ignore later ones, and SIGUSR1."""
    stops = stop_signals()

    def stop(number, frame):
        # Ctrl-C is often pressed twice: the second must not interrupt the cleaning up after the
        # first.
        for other in stops:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in stops:
        signal.signal(number, stop)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # The parent has started this process with them blocked: one that came before now comes here.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)


def install_stop_handlers() -> StopRequest:
    """Make signals requests: a stop signal to save and end, SIGUSR1 to save and continue.

    A second stop more than SECOND_STOP seconds after the first raises KeyboardInterrupt.
    """
    # A handler runs between any two instructions of the stage, so it only sets a flag; the stage
    # saves where its state is complete, after a step.
    request, first = StopRequest(), float("inf")

    def stop(number, frame):
        nonlocal first
        if request.stop and time.monotonic() - first > SECOND_STOP:
            raise KeyboardInterrupt
        first = min(first, time.monotonic())
        request.stop = True

    def save(number, frame):
        request.save = True

    for number in stop_signals():
        signal.signal(number, stop)
    signal.signal(signal.SIGUSR1, save)
    return request
