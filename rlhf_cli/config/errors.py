"""The one exception a user may see, and the exit codes of the command and its workers."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes. HUNG is used between a worker and its parent only."""

    OK = 0
    FAILURE = 1  # the run failed
    USAGE = 2  # the request cannot be carried out as asked
    HUNG = 75  # a worker was ended by its watchdog
    INTERRUPTED = 130  # stopped by a signal, or by Ctrl-C


class UserError(Exception):
    """Something the user can correct. The message is one line; `code` is the exit code."""

    code: int = ExitCode.USAGE
