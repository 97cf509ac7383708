"""The child process of one stage: `python -m rlhf_cli.worker JOB.json`, one of many or alone.

The parent has composed the configuration; here it is thawed, the stage's module imported and run.
The result, or the reason of a failure, is left in the work folder for the parent to read.
"""

import json
import logging
import os
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path

from rlhf_cli.artifacts.store import FREE, write_text, writing
from rlhf_cli.config.compose import thaw
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.printable import one_line, ready_streams
from rlhf_cli.launch.exit_report import BROKEN, INTERRUPTED, failure_file, traceback_file
from rlhf_cli.launch.memory import needs_less, ran_out
from rlhf_cli.launch.worker_group import heeded
from rlhf_cli.launch.workers import Stopped, die_with_parent, interrupt_once
from rlhf_cli.runtime import watchdog
from rlhf_cli.telemetry import timing
from rlhf_cli.telemetry.console import OutputClosed
from rlhf_cli.telemetry.doing import doing

RESULT = "result.json"


def main(job_path: str) -> int:
    """Exit code 0, 1 for a failure (its reason in failure.json), 130 for an interruption."""
    timing.begin()
    ready_streams()
    interrupt_once()
    path = Path(job_path)
    job = json.loads(path.read_text())
    die_with_parent()
    try:
        _quiet_libraries()
        _work(job, path.parent)
        return 0
    except Stopped as stopped:
        _leave_reason(UserError(str(stopped)), path.parent, saved=True)
        return INTERRUPTED
    except KeyboardInterrupt:
        _leave_reason(UserError("it was interrupted"), path.parent)
        return INTERRUPTED
    except OutputClosed:
        _leave_reason(UserError("its output was closed"), path.parent)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent tells it in one line
        _leave_reason(_in_our_words(error, job.get("stage")), path.parent)
        return 1


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _several() -> bool:
    return "RANK" in os.environ


def _in_our_words(error: Exception, stage: str | None) -> Exception:
    """Say of an allocator's refusal what it asked for and which keys need less."""
    if not ran_out(error):
        return error
    said = f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": ")
    told = UserError(f"memory ran out ({said}); {needs_less(stage)}")
    return told.with_traceback(error.__traceback__)


def _leave(code: int) -> None:
    """A process among others leaves at once: tearing down a group and its threads may hang or abort.

    What it had to do is done: a signal that comes now ends it no more. Python gives its handlers up on
    the way out, but not what is ignored.
    """
    for number in (*heeded(), signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if _several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _work(job: dict, folder: Path) -> None:
    cfg = thaw(json.loads((folder / "config.json").read_text()))
    inputs = {role: Path(place) for role, place in job["inputs"].items()}
    if job["dry_run"]:
        from rlhf_cli.stages.dry_run import show_previews

        show_previews(cfg, job["modules"], inputs)
        return
    watchdog.watch(folder, _rank(), cfg.runtime.timeout, several=_several())
    with doing("loading the libraries", silent=_rank() > 0):
        module = import_module(job["module"])
    metrics = module.run(cfg, inputs, folder)
    if _rank() == 0:
        with writing(folder / RESULT, FREE):
            write_text(folder / RESULT, json.dumps({k: float(v) for k, v in metrics.items()}))
    if "rlhf_cli.runtime.world" in sys.modules:  # a stage without torch has no group
        from rlhf_cli.runtime.world import close_world

        close_world()


def _quiet_libraries() -> None:
    """Only this project's own words on the screen."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # DeepSpeed writes its warnings to stdout, where only the run's own lines belong
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)


def _leave_reason(error: Exception, folder: Path, *, saved: bool = False) -> None:
    """broken: it looks like the end of another process, seen from here."""
    text = " ".join(str(error).split())
    expected = isinstance(error, UserError)
    reason = text if expected and text else f"{type(error).__name__}: {text}".removesuffix(": ")
    broken = not expected and bool(BROKEN.search(reason))
    left = {"reason": reason, "expected": expected, "broken": broken, "saved": saved}
    try:
        failure_file(folder, _rank()).write_text(json.dumps(left))
        traceback_file(folder, _rank()).write_text("".join(traceback.format_exception(error)))
    except OSError:  # the disk may be what failed
        print(f"rlhf: {one_line(reason)}", file=sys.stderr)  # noqa: T201
    if os.environ.get("RLHF_TRACEBACK") == "1":
        traceback.print_exception(error)


if __name__ == "__main__":
    _leave(main(sys.argv[1]))
