"""File names inside a run folder: one owner, so that writers and readers cannot differ.

<run>/.lock                one writer at a time (lock.py)
<run>/<stage>/             a finished stage: manifest, config, metrics, model/
<run>/.<stage>.work/       a stage in progress: WorkFolder
<run>/lm_eval/<model>.json  figures of the lm-evaluation-harness (lm_eval_file): stages stay as published
<run>/.<stage>.given-up/   an interrupted attempt at the stage with another configuration (attempts.py)
<run>/.<stage>.replaced/   versions of the stage made with other configurations (publication.py)
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

LOCK = ".lock"
MANIFEST, CONFIG, METRICS, SAMPLES = (
    "manifest.json",
    "config.json",
    "metrics.jsonl",
    "samples.jsonl",
)
DRAWN = "drawn.jsonl"  # what a stage has sampled so far
MODEL, VALUE_MODEL = "model", "value_model"
BEST, WATCH = "best", "watch.jsonl"  # of a policy: the weights to take, and what chose them
MEMBERS = "members"  # of an ensemble of reward models: the first is model/, the others members/N/
LM_EVAL = "lm_eval"
DATA = "data"  # of a stage that makes data: a file <role>.jsonl
DEMONSTRATIONS = f"{DATA}/demonstrations.jsonl"
ATTEMPT, JOB, RESULT, OFFENDING = "attempt.json", "job.json", "result.json", "offending.json"
RANKS = "ranks"
FAILURES, TRACEBACKS, HANGS = "failure*.json", "traceback*.txt", "rank-*.json"  # glob patterns
RESUME, POINTER = "resume", "latest.json"
GONE, BESIDE = ".gone", ".tmp"  # suffixes of what is being removed, or not written completely


def work_folder(run: Path, stage: str) -> Path:
    """Return the folder in which a stage writes until it is published."""
    return run / f".{stage}.work"


def parked_folder(run: Path, stage: str) -> Path:
    """Return the folder that keeps an interrupted attempt with another configuration."""
    return run / f".{stage}.given-up"


def lm_eval_file(run: Path, model: str) -> Path:
    """Return the file of what the lm-evaluation-harness measured: of ppo/best lm_eval/ppo-best.json."""
    return run / LM_EVAL / f"{model.replace('/', '-')}.json"


def is_leftover(name: str) -> bool:
    """Return whether a name belongs to an incomplete write or removal."""
    return name.startswith(".") and name.endswith((GONE, BESIDE))


@dataclass(slots=True, frozen=True)
class WorkFolder:
    """The files through which the parent process and the workers of a stage communicate."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / CONFIG

    @property
    def job(self) -> Path:
        return self.path / JOB

    @property
    def result(self) -> Path:
        return self.path / RESULT

    def failure(self, rank: int) -> Path:
        """Return the file with the reason why a rank failed."""
        return self.path / (f"failure-{rank}.json" if rank else "failure.json")

    def traceback(self, rank: int) -> Path:
        return self.path / (f"traceback-{rank}.txt" if rank else "traceback.txt")

    def log(self, rank: int) -> Path:
        """Return the file that receives stdout and stderr of a rank other than 0."""
        return self.path / RANKS / f"rank-{rank}.log"

    def hang(self, rank: int) -> Path:
        """Return the file in which the watchdog of a rank reports its stack position."""
        return self.path / RANKS / f"rank-{rank}.json"

    def has_hang(self) -> bool:
        """Return whether the watchdog of any rank has reported."""
        return any((self.path / RANKS).glob(HANGS))

    def remove_reports(self) -> None:
        """Delete the reports of an earlier attempt: they must not explain this one."""
        for path in (*self.path.glob(FAILURES), *self.path.glob(TRACEBACKS)):
            path.unlink()
        self.remove_ranks()

    def remove_ranks(self) -> None:
        shutil.rmtree(self.path / RANKS, ignore_errors=True)
