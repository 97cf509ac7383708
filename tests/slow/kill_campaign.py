"""Kill runs with SIGKILL at random times; the next run must give the result of an undisturbed one.

    python tests/slow/kill_campaign.py --kills 200 --jobs 2 --out report.json

A trial is one stage, on parents of an undisturbed run, or all three. It saves after every step. The
kill hits the driver, a worker, or all processes at once, mostly during a save or a publication. Then
the same command is started again at once and must finish. The comparison covers the numbers of the
manifest, metrics.jsonl and samples.jsonl without times, and every byte of the weights.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
TINY = (
    "experiment=smoke", "runtime=cpu", "runtime.num_threads=1",
    "tiny_world.demonstrations=40", "tiny_world.comparisons=24", "tiny_world.prompts=40",
    "tiny_world.pretraining=40",
    "sft.epochs=2", "sft.batch.size=8", "sft.batch.microbatch=4", "sft.dropout=0.1",
    "sft.select_by=eval_loss", "rm.batch.size=4", "rm.dropout=0.1",
    "ppo.total_episodes=48", "ppo.batch.rollout=16", "ppo.batch.minibatch=8",
    "ppo.batch.microbatch=8", "ppo.kl.controller=adaptive", "ppo.ema_decay=0.9", "samples=1",
)  # fmt: skip
KINDS = {"sft": ["sft"], "rm": ["rm"], "ppo": ["ppo"], "all": ["sft", "rm", "ppo"]}
WEIGHTS = (6, 6, 6, 2)  # how often each kind is tried
VICTIMS = ("driver", "worker", "all")
AIMS = ("moment", "save", "save", "publication")
WENT_ON = re.compile(r"^(\w+): .*\(resuming from step (\d+)\)", re.M)
PATIENCE = 600.0
Rows = list[dict]


@dataclass(slots=True, kw_only=True)
class Trial:
    """A trial and its outcome. hit: the kill left half a save or publication."""

    number: int
    kind: str
    victim: str
    aim: str
    after: float = 0.0
    hit: str | None = None
    resumed: str = ""
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Campaign:
    """The command to try and its folder; the undisturbed run is <place>/reference."""

    command: list[str]
    words: list[str]
    place: Path
    seed: int
    seconds: dict[str, float] = field(default_factory=dict)

    def start(self, kind: str, run: str, *more: str) -> subprocess.Popen:
        stages = ",".join(KINDS[kind])
        words = [f"stage=[{stages}]", f"name={run}", f"runs_dir={self.place}", *self.words, *more]
        if kind in ("rm", "ppo"):
            words.append(f"parents.sft={self.place / 'reference' / 'sft'}")
        if kind == "ppo":
            words.append(f"parents.rm={self.place / 'reference' / 'rm'}")
        return subprocess.Popen(
            [*self.command, "run", *words], env=_environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def prepare(self) -> None:
        """Make the undisturbed run, which saves nothing, and measure each kind of trial."""
        self._whole("all", "reference")
        for kind in KINDS:
            began = time.monotonic()
            self._whole(kind, f"measured-{kind}", "save.every_steps=1")
            self.seconds[kind] = time.monotonic() - began
            for stage in KINDS[kind]:
                found = differences(
                    self.place / "reference" / stage, self.place / f"measured-{kind}" / stage
                )
                assert not found, f"{kind} differs without a kill: {found}"

    def _whole(self, kind: str, run: str, *more: str) -> None:
        process = self.start(kind, run, *more)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors

    def trial(self, number: int) -> Trial | None:
        """Return one kill and the run after it; None when the first run ended before."""
        chance = random.Random(f"{self.seed}/{number}")
        (kind,) = chance.choices(list(KINDS), WEIGHTS)
        trial = Trial(
            number=number, kind=kind, victim=chance.choice(VICTIMS), aim=chance.choice(AIMS)
        )
        run = self.place / f"trial-{number}"
        if not self._kill(trial, run, chance):
            shutil.rmtree(run, ignore_errors=True)
            return None
        self._resume(trial, run)
        if not trial.problems:
            shutil.rmtree(run, ignore_errors=True)
        return trial

    def _kill(self, trial: Trial, run: Path, chance: random.Random) -> bool:
        process = self.start(trial.kind, run.name, "save.every_steps=1")
        began = time.monotonic()
        is_time = moment(trial, run, chance, began + chance.uniform(0, self.seconds[trial.kind]))
        while process.poll() is None and not is_time():
            time.sleep(0.001)
        time.sleep(chance.choice((0.0, 0.0, chance.uniform(0, 0.02))))
        pids = victims(process.pid, trial.victim, chance)
        if process.poll() is not None or not pids:
            process.communicate(timeout=PATIENCE)
            return False
        for pid in pids:
            _kill_hard(pid)
        trial.after = round(time.monotonic() - began, 3)
        _, errors = process.communicate(timeout=PATIENCE)
        if trial.victim == "worker" and process.returncode != 0:
            trial.problems += unclear(errors)
        trial.hit = half_done(run)
        return process.returncode != 0

    def _resume(self, trial: Trial, run: Path) -> None:
        process = self.start(trial.kind, run.name, "save.every_steps=1")
        told, errors = process.communicate(timeout=PATIENCE)
        trial.resumed = outcome_of(told)
        if process.returncode:
            trial.problems.append(f"the next run failed: {errors.strip()}")
            return
        for stage in KINDS[trial.kind]:
            trial.problems += differences(self.place / "reference" / stage, run / stage)
        expected = {*KINDS[trial.kind], ".lock", ".date", "report.html"}
        left = {path.name for path in run.iterdir()} - expected
        trial.problems += [f"left behind: {name}" for name in sorted(left)]


def _environment() -> dict[str, str]:
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "200", **quiet}


def moment(trial: Trial, run: Path, chance: random.Random, deadline: float) -> Callable[[], bool]:
    """Return when to kill: at a time, at the n-th save, or during a publication."""
    if trial.aim == "moment":
        return lambda: time.monotonic() > deadline
    if trial.aim == "save":
        return nth_new(lambda: saving(run), chance.randint(1, 8))
    return nth_new(lambda: publishing(run), chance.randint(1, 2 * len(KINDS[trial.kind])))


def nth_new(seen: Callable[[], set[str]], n: int) -> Callable[[], bool]:
    known: set[str] = set()

    def reached() -> bool:
        known.update(seen())
        return len(known) >= n

    return reached


def saving(run: Path) -> set[str]:
    """Return the checkpoints that are being written."""
    return {str(path) for path in run.glob(".*.work/resume/.*.tmp")}


def publishing(run: Path) -> set[str]:
    """Return the files that show that a publication has begun."""
    return {
        str(path)
        for name in ("result.json", "manifest.json")
        for path in run.glob(f".*.work/{name}")
    }


def half_done(run: Path) -> str | None:
    """Return what the kill interrupted, by the files in the folder."""
    for work in run.glob(".*.work"):
        newest = max((path.name for path in work.glob("resume/step-*")), default=None)
        pointer = work / "latest.json"
        named = f"step-{json.loads(pointer.read_text())['step']:08}" if pointer.is_file() else None
        if any(work.glob("resume/.*")) or newest != named:
            return "save"
        if (work / "manifest.json").exists() or (work / "result.json").exists():
            return "publication"
    return "publication" if any(run.glob(".*.old*")) else None


def victims(driver: int, victim: str, chance: random.Random) -> list[int]:
    """Return the processes to kill, the driver first, as `kill -9 -PGID` does."""
    workers = list(descendants(driver))
    one = [chance.choice(workers)] if workers else []
    return {"driver": [driver], "worker": one, "all": [driver, *workers]}[victim]


def descendants(pid: int) -> Iterator[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, children):
        if b"rlhf_cli.worker" in _command_line(child):
            yield child
            yield from descendants(child)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _kill_hard(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def unclear(errors: str) -> list[str]:
    """Return a remark unless the error of a killed worker is one line."""
    fine = errors.count("\n") == 1 and "Traceback" not in errors
    return [] if fine else [f"told in more than one line: {errors.strip()}"]


def outcome_of(output: str) -> str:
    if found := WENT_ON.findall(output):
        return f"from step {found[0][1]} of {found[0][0]}"
    if "finished, only the final rename is left" in output:
        return "published"
    if "interrupted before its first save" in output:
        return "from the beginning"
    return "it was finished" if ": done in" not in output else "from the beginning"


def differences(one: Path, other: Path) -> list[str]:
    """Return the differences of two finished stages, except time and memory."""
    if not (other / "manifest.json").is_file():
        return [f"{other} is not finished"]
    found = [
        f"{other / name} differs"
        for name in ("metrics.jsonl", "samples.jsonl")
        if rows(one / name) != rows(other / name)
    ]
    if numbers(one) != numbers(other):
        found.append(f"{other / 'manifest.json'} has other metrics")
    files = sorted({p.relative_to(f) for f in (one, other) for p in f.glob("*model/*.safetensors")})
    found += [
        f"{other / name} differs" for name in files if content(one / name) != content(other / name)
    ]
    return found + [
        f"published: {p}" for p in other.glob("*") if p.name in ("resume", "attempt.json")
    ]


def timeless(values: dict) -> dict:
    measured = ("time/", "speed/", "mem/", "total_steps")
    return {k: v for k, v in values.items() if k != "time" and not k.startswith(measured)}


def rows(path: Path) -> Rows:
    """Return the rows without those of times alone, which differ between attempts."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return [row for row in map(timeless, map(json.loads, lines)) if row]


def numbers(stage: Path) -> dict:
    manifest = json.loads((stage / "manifest.json").read_text())
    return timeless(manifest["metrics"]) | {"step": manifest["step"]}


def content(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def report(trials: list[Trial], missed: int, seconds: float) -> dict:
    """Return the complete campaign as JSON."""
    broken = [asdict(trial) for trial in trials if trial.problems]
    return {
        "kills": len(trials),
        "by": dict(Counter(f"{t.kind}/{t.victim}" for t in trials)),
        "hit": dict(Counter(t.hit or "between" for t in trials)),
        "went_on": dict(
            Counter(re.sub(r"step \d+ of \w+", "a checkpoint", t.resumed) for t in trials)
        ),
        "ended_before_the_kill": missed,
        "mismatches": len(broken),
        "seconds": round(seconds, 1),
        "broken": broken,
        "trials": [asdict(trial) for trial in trials],
    }


def kill_until(campaign: Campaign, kills: int, jobs: int) -> tuple[list[Trial], int]:
    """Run trials until enough of them were killed in time."""
    done: list[Trial] = []
    tried = 0
    with ThreadPoolExecutor(jobs) as pool:
        while len(done) < kills:
            wanted = min(kills - len(done), 4 * jobs)
            batch = pool.map(campaign.trial, range(tried, tried + wanted))
            done += [trial for trial in batch if trial is not None]
            tried += wanted
            bad = sum(bool(trial.problems) for trial in done)
            print(f"{len(done)}/{kills} kills, {bad} mismatches", flush=True)
    return done, tried - len(done)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--command", default=f"{sys.executable} -m rlhf_cli")
    parser.add_argument("words", nargs="*", help="further key=value for every run, after --")
    given = parser.parse_args()
    began = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="kill-campaign-"))
    campaign = Campaign(
        command=shlex.split(given.command),
        words=[*TINY, *given.words],
        place=place,
        seed=given.seed,
    )
    campaign.prepare()
    trials, missed = kill_until(campaign, given.kills, given.jobs)
    found = report(trials, missed, time.monotonic() - began)
    given.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({k: v for k, v in found.items() if k not in ("trials", "broken")}, indent=2))
    if found["mismatches"]:
        print(f"the runs that differ are kept in {place}")
        return 1
    shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
