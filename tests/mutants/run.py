"""Apply one-line faults, one at a time, and report whether the tests named for each fail.

Every fault is applied to a copy of the tree, in a process forked from this one, which has imported
torch and transformers but nothing of the project. See docs/testing.md.
"""

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tables import HERE, ROOT, Mutant, read_tables

COPIED = ("rlhf_cli", "conf", "tests", "pyproject.toml", "README.md", "docs", "Makefile")
# What most tests import; a process forked from this one has it at once.
IMPORTED = (
    "pytest", "torch.distributed.checkpoint", "scipy.stats", "hypothesis", "hydra", "datasets",
    "rich.progress", "rich.table", "safetensors.torch", "transformers.generation.utils",
    "transformers.convert_slow_tokenizer", "transformers.models.auto",
    "transformers.models.llama.modeling_llama", "transformers.models.gpt2.modeling_gpt2",
)  # fmt: skip
NOTICED, UNNOTICED, TIMEOUT, BROKEN = "noticed", "UNNOTICED", "noticed by timeout", "BROKEN ENTRY"
OUTCOMES = {1: NOTICED, 0: UNNOTICED, None: TIMEOUT}


@dataclass(slots=True, kw_only=True)
class Job:
    """A pytest process in a copy of the tree; mutant is None for the run without a fault."""

    mutant: Mutant | None
    copy: Path
    pid: int
    began: float


def copied(folder: Path) -> Path:
    """Return `folder` with a copy of what the tests need, times of change included."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, target)
    return folder


def start(copy: Path, tests: Iterable[str], mutant: Mutant | None) -> Job:
    """Apply the fault, if any, to the copy, and run the tests there in a process of its own."""
    if mutant is not None:
        (copy / mutant.file).write_text(mutant.applied(ROOT))
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        work(copy, [str(test) for test in tests])
    return Job(mutant=mutant, copy=copy, pid=pid, began=time.monotonic())


def work(copy: Path, tests: list[str]) -> None:
    """Run pytest in the forked process and end it with pytest's exit code."""
    log = os.open(copy / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(copy)
    sys.path[:] = [str(copy), *(p for p in sys.path if p not in (str(HERE), str(ROOT)))]
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    code = importlib.import_module("pytest").main(["-x", "-p", "no:cacheprovider", *tests])
    sys.stdout.flush()
    os._exit(int(code))


def ended(job: Job, limit: float) -> tuple[bool, int | None]:
    """Return whether the process has ended, and its exit code; None: it was stopped at the limit."""
    pid, status = os.waitpid(job.pid, os.WNOHANG)
    if pid:
        return True, os.waitstatus_to_exitcode(status)
    if time.monotonic() - job.began < limit:
        return False, None
    os.killpg(job.pid, signal.SIGKILL)
    os.waitpid(job.pid, 0)
    return True, None


def outcomes(mutants: list[Mutant], copies: list[Path], limit: float) -> Iterator[dict]:
    """Yield a row per mutant as it ends; as many run at once as there are copies."""
    waiting, free, running = list(mutants), list(copies), []
    while waiting or running:
        while waiting and free:
            mutant = waiting.pop(0)
            running.append(start(free.pop(), mutant.tests, mutant))
        time.sleep(0.05)
        for job in list(running):
            over, code = ended(job, limit)
            if over:
                running.remove(job)
                free.append(job.copy)
                shutil.copy2(ROOT / job.mutant.file, job.copy / job.mutant.file)
                yield row_of(job, OUTCOMES.get(code, BROKEN))


def row_of(job: Job, outcome: str) -> dict:
    """Return the report of a mutant, with the output of pytest for an invalid entry."""
    seconds = round(time.monotonic() - job.began, 1)
    said = (job.copy / "output.txt").read_text()[-2000:] if outcome == BROKEN else ""
    return {"outcome": outcome, "seconds": seconds, "said": said, **asdict(job.mutant)}


def passes_without_a_fault(mutants: list[Mutant], copy: Path) -> bool:
    """Return whether all named tests pass; print the output of pytest where they do not."""
    job = start(copy, dict.fromkeys(test for one in mutants for test in one.tests), None)
    code = os.waitstatus_to_exitcode(os.waitpid(job.pid, 0)[1])
    print(f"without a fault: exit code {code} in {time.monotonic() - job.began:.0f} s", flush=True)
    if code:
        print((copy / "output.txt").read_text()[-6000:])
    return code == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    parser.add_argument("--only", default="", help="those that have this word in their line")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds per mutant")
    parser.add_argument("--out", type=Path, help="JSON file for the outcomes")
    asked = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    mutants = [one for one in read_tables() if asked.only in f"{one.name} {one.tests}"]
    if not mutants:
        parser.error(f"no fault has {asked.only!r} in its line")
    for name in IMPORTED:
        importlib.import_module(name)
    rows = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = [copied(Path(folder) / str(i)) for i in range(asked.jobs)]
        if not passes_without_a_fault(mutants, copies[0]):
            return 2
        for row in outcomes(mutants, copies, asked.limit):
            rows.append(row)
            mark = " ".join([row["area"], *row["keys"], row["file"]])
            print(f"{row['outcome']:<10} {row['seconds']:6.1f} s  {mark}", flush=True)
            if row["outcome"] not in (NOTICED, TIMEOUT):
                print(f"  {row['old']!r} -> {row['new']!r}\n{row['said']}", flush=True)
    counts = {name: sum(row["outcome"] == name for row in rows) for name in (NOTICED, TIMEOUT)}
    print(f"{len(rows)} faults, {counts[NOTICED]} noticed, {counts[TIMEOUT]} by timeout")
    if asked.out:
        asked.out.write_text(json.dumps(rows, indent=1))
    return int(sum(counts.values()) < len(rows))


if __name__ == "__main__":
    sys.exit(main())
