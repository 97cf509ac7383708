"""The child process of one stage: `python -m rlhf_cli.worker JOB.json`.

The parent has composed the configuration; here it is thawed, the stage's module imported and run.
The result, or the reason of a failure, is left in the work folder for the parent to read.
"""

import json
import logging
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

from rlhf_cli.config.compose import thaw
from rlhf_cli.config.errors import UserError
from rlhf_cli.runtime.launch import die_with_parent, interrupt_once

RESULT, FAILURE, TRACEBACK = "result.json", "failure.json", "traceback.txt"


def main(job_path: str) -> int:
    """Exit code 0, 1 for a failure (its reason in failure.json), 130 for an interruption."""
    interrupt_once()
    path = Path(job_path)
    job = json.loads(path.read_text())
    die_with_parent(job["parent"])
    try:
        _quiet_libraries()
        _work(job, path.parent)
        return 0
    except KeyboardInterrupt:
        _leave_reason(UserError("it was interrupted"), path.parent)
        return 130
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent tells it in one line
        _leave_reason(error, path.parent)
        return 1


def _work(job: dict, folder: Path) -> None:
    cfg = thaw(json.loads((folder / "config.json").read_text()))
    inputs = {role: Path(place) for role, place in job["inputs"].items()}
    if job["dry_run"]:
        from rlhf_cli.stages.dry_run import show_previews

        show_previews(cfg, job["modules"], inputs)
        return
    metrics = import_module(job["module"]).run(cfg, inputs, folder)
    (folder / RESULT).write_text(json.dumps({k: float(v) for k, v in metrics.items()}))


def _quiet_libraries() -> None:
    """Only this project's own words on the screen."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # DeepSpeed writes its warnings to stdout, where only the run's own lines belong
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)


def _leave_reason(error: Exception, folder: Path) -> None:
    text = " ".join(str(error).split())
    expected = isinstance(error, UserError)
    reason = text if expected and text else f"{type(error).__name__}: {text}".removesuffix(": ")
    (folder / FAILURE).write_text(json.dumps({"reason": reason, "expected": expected}))
    (folder / TRACEBACK).write_text("".join(traceback.format_exception(error)))
    if os.environ.get("RLHF_TRACEBACK") == "1":
        traceback.print_exception(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
