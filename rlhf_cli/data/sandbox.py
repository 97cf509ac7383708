"""Rendering a chat template, which is code of the model's author, within limits.

transformers keeps a template from files and functions. Here it is kept from looping and from filling
the memory, and whatever it fails with has one name.
"""

import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path

from jinja2.exceptions import TemplateError

from rlhf_cli.data.records import DataError, Message, RowError

SECONDS = 5.0  # of computing; a usual conversation takes a ten-thousandth of it
MEMORY = 2**30  # bytes more than the process has already
ADDED, TIMES = 1_000_000, 10  # characters that a template may write, and what it may repeat
STATM = Path("/proc/self/statm")  # its first number is the size of the address space in pages


class TooLong(BaseException):
    """The time is over. Jinja passes over every Exception while it computes what is constant."""


def render_template(
    tokenizer, messages: tuple[Message, ...], *, origin: str, generation: bool = False
) -> str:
    """Return the template's own text, with the template's own choice of thinking or not.

    origin: where the template comes from. RowError when it fails with these messages, DataError beyond
    a limit.
    """
    try:
        with limited(origin):
            text = tokenizer.apply_chat_template(
                [{"role": m.role, "content": m.content} for m in messages],
                tokenize=False,
                add_generation_prompt=generation,
            )
    except DataError:
        raise
    except Exception as error:  # it may divide by zero, call itself for ever, ...
        readable = isinstance(error, TemplateError | TypeError)
        why = str(error) if readable else f"{type(error).__name__}: {error}"
        raise RowError("the chat template refuses the conversation", why) from error
    if len(text) > ADDED + TIMES * sum(len(m.content) for m in messages):
        raise DataError(f"{origin}: the chat template makes a text of {len(text):,} characters")
    return text


@contextmanager
def limited(origin: str, *, what: str = "the chat template") -> Iterator[None]:
    """Raise DataError that names `origin` after SECONDS of computing or beyond MEMORY bytes.

    Time is limited in a main thread, memory on Linux. It costs about 5 microseconds. what: computes,
    for the message.
    """
    before = resource.getrlimit(resource.RLIMIT_AS)
    timed = threading.current_thread() is threading.main_thread() and _heeded()
    try:
        if timed:
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        if sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, (_most(before), before[1]))
        yield
    except TooLong as error:
        raise DataError(f"{origin}: {what} computes for more than {SECONDS:g} s") from error
    except MemoryError as error:
        size = f"{MEMORY / 2**30:g} GiB"
        raise DataError(f"{origin}: {what} needs more than {size} of memory") from error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)


@cache
def _heeded() -> bool:
    """Install the handler with which the timer raises TooLong; nothing else uses the timer."""

    def stop(number, frame):
        raise TooLong

    signal.signal(signal.SIGVTALRM, stop)
    return True


def _most(before: tuple[int, int]) -> int:
    most = _address_space(int(4 * time.monotonic())) + MEMORY
    return most if before[0] == resource.RLIM_INFINITY else min(most, before[0])


@lru_cache(maxsize=1)
def _address_space(quarter: int) -> int:
    """Return its bytes, read every quarter of a second: reading them takes as long as rendering."""
    return int(STATM.read_text().split()[0]) * resource.getpagesize()
