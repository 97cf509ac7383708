"""The child process of one stage: `python -m rlhf_cli.worker JOB.json`, one of many or alone.

The parent has composed the configuration; here it is read, the stage's module imported and run.
The result, or the reason of a failure, is written to the work folder for the parent.
"""

import json
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from pkgutil import resolve_name

from rlhf_cli.artifacts.layout import WorkFolder
from rlhf_cli.artifacts.store import FREE, write_errors, write_text
from rlhf_cli.config.compose import thaw
from rlhf_cli.config.environment import TRACEBACK
from rlhf_cli.config.errors import ExitCode, UserError
from rlhf_cli.config.printable import one_line, ready_streams
from rlhf_cli.launch.exit_report import BROKEN_CONNECTION
from rlhf_cli.launch.memory import is_out_of_memory, memory_remedy
from rlhf_cli.launch.signals import (
    Stopped,
    die_with_parent,
    raise_on_first_signal,
    stop_signals,
)
from rlhf_cli.runtime import watchdog
from rlhf_cli.telemetry import timing
from rlhf_cli.telemetry.console import OutputClosed, status


def main(job_path: str) -> int:
    """Run the job and return an ExitCode; the reason of a failure is in failure.json."""
    timing.begin()
    ready_streams()
    path = Path(job_path)
    job = json.loads(path.read_text())
    die_with_parent()
    try:
        raise_on_first_signal()
        _quiet_libraries()
        _work(job, path.parent)
        return ExitCode.OK
    except Stopped as stopped:
        _write_reason(UserError(str(stopped)), path.parent, saved=True)
        return ExitCode.INTERRUPTED
    except KeyboardInterrupt:
        _write_reason(UserError("it was interrupted"), path.parent)
        return ExitCode.INTERRUPTED
    except OutputClosed:
        _write_reason(UserError("its output was closed"), path.parent)
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent prints it in one line
        _write_reason(_as_user_error(error, job.get("stage")), path.parent)
        return ExitCode.FAILURE


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _several() -> bool:
    return "RANK" in os.environ


def _as_user_error(error: Exception, stage: str | None) -> Exception:
    """Return an allocator's refusal as one line with the keys to lower, any other error as it is."""
    if not is_out_of_memory(error):
        return error
    message = f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": ")
    found = UserError(f"memory ran out ({message}); {memory_remedy(stage)}")
    return found.with_traceback(error.__traceback__)


def _exit(code: int) -> None:
    """Exit; one of several workers exits at once, because tearing down a group may hang or abort.

    The work is done: signals are ignored from here on. Python resets its handlers while it exits, but
    not what is ignored.
    """
    for number in (*stop_signals(), signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if _several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _work(job: dict, folder: Path) -> None:
    cfg = thaw(json.loads(WorkFolder(folder).config.read_text()))
    inputs = {role: Path(place) for role, place in job["inputs"].items()}
    if job["dry_run"]:
        from rlhf_cli.stages.dry_run import show_previews

        show_previews(cfg, job["modules"], inputs)
        return
    watchdog.watch(folder, _rank(), cfg.runtime.timeout, several=_several())
    with status("loading the libraries", silent=_rank() > 0):
        stage = resolve_name(job["module"])
    metrics = stage.run(cfg, inputs, folder)
    if _rank() == 0:
        result = WorkFolder(folder).result
        with write_errors(result, FREE):
            write_text(result, json.dumps({k: float(v) for k, v in metrics.items()}))
    if "rlhf_cli.runtime.world" in sys.modules:  # a stage without torch has no group
        from rlhf_cli.runtime.world import close_world

        close_world()


def _quiet_libraries() -> None:
    """Keep the messages of libraries off the screen."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # DeepSpeed writes its warnings to stdout, where only the run's own lines belong
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)


def _write_reason(error: Exception, folder: Path, *, saved: bool = False) -> None:
    """Write why this worker failed. broken: it looks like the consequence of another worker's end."""
    text = " ".join(str(error).split())
    expected = isinstance(error, UserError)
    reason = text if expected and text else f"{type(error).__name__}: {text}".removesuffix(": ")
    broken = not expected and bool(BROKEN_CONNECTION.search(reason))
    report = {"reason": reason, "expected": expected, "broken": broken, "saved": saved}
    work = WorkFolder(folder)
    try:
        work.failure(_rank()).write_text(json.dumps(report))
        work.traceback(_rank()).write_text("".join(traceback.format_exception(error)))
    except OSError:  # the disk may be what failed
        print(f"rlhf: {one_line(reason)}", file=sys.stderr)  # noqa: T201
    if os.environ.get(TRACEBACK) == "1":
        traceback.print_exception(error)


if __name__ == "__main__":
    _exit(main(sys.argv[1]))
