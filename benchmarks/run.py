"""Side by side: this project and its peers, round by round in turn (A B C A B C ...), one thread each.

`make bench` runs it; `make bench ARGS=--quick` is a few minutes. Every contender is a process of its own
that waits for its turn, so that imports and warm-up are not timed and no two compute at once.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import peers
from roster import TASKS, Contender
from table import markdown

HERE = Path(__file__).resolve().parent
BATCH = 16
PATIENCE = 600  # seconds for one answer of a contender


class Runner:
    """One contender, alive and waiting."""

    def __init__(self, name: str, contender: Contender, checkout: Path | None):
        self.name, self.contender, self.failed = name, contender, ""
        self.rounds: list[dict] = []
        self.versions: dict[str, str] = {}
        self.peak_mib: float | None = None
        self.log = HERE / "results" / "logs" / f"{contender.script}-{name.replace(' ', '_')}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        python = peers.python_of(contender.peers) if contender.peers else sys.executable
        self.process = subprocess.Popen(
            [str(python), str(HERE / "contenders" / f"{contender.script}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
            env=environment(checkout),
        )

    def start(self, task: str, size: str) -> None:
        """Hand over the job and wait until the contender is ready."""
        folder = HERE / "material" / size
        job = {
            "task": task,
            "benchmarks": str(HERE),
            "model": str(folder / "model"),
            "reward": str(folder / "reward"),
            "data": str(folder / "data.json"),
            "batch": BATCH,
            "options": self.contender.options,
        }
        self.versions = (self._ask(json.dumps(job)) or {}).get("ready", {})

    def round(self, *, keep: bool) -> None:
        if self.failed:
            return
        found = self._ask("go")
        if found and keep:
            self.rounds.append(found)

    def stop(self) -> None:
        if not self.failed:
            self.peak_mib = (self._ask("stop") or {}).get("peak_mib")
        self.process.kill()
        self.process.wait()

    def _ask(self, line: str) -> dict | None:
        limit = Timer(PATIENCE, self.process.kill)
        limit.start()
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            limit.cancel()
        return json.loads(answer) if answer else self._fail()

    def _fail(self) -> None:
        said = self.log.read_text().strip().splitlines()
        self.failed = said[-1][:300] if said else "it said nothing"
        print(f"  {self.name} failed, see {self.log}: {self.failed}", file=sys.stderr)

    def result(self) -> dict:
        return {
            "name": self.name,
            "settings": self.contender.settings,
            "ours": self.contender.is_ours,
            "versions": self.versions,
            "rounds": self.rounds,
            "peak_mib": self.peak_mib,
            "failed": self.failed,
        }


def environment(checkout: Path | None) -> dict[str, str]:
    """One thread, no network, and this project only where it is measured."""
    given = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return given | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **({"PYTHONPATH": str(checkout)} if checkout else {}),
    }


def field(task: str, options: argparse.Namespace) -> list[tuple[str, Contender, Path | None]]:
    """(name, contender, checkout): peers once, ours once for every checkout."""
    found = []
    for contender in TASKS[task]:
        left_out = options.only and contender.name not in options.only
        peer_left_out = options.ours and not contender.is_ours
        if left_out or peer_left_out or (options.quick and not contender.quick):
            continue
        if not contender.is_ours:
            found.append((contender.name, contender, None))
            continue
        for label, checkout in options.checkout:
            name = contender.name if len(options.checkout) == 1 else f"{contender.name} @{label}"
            found.append((name, contender, checkout))
    return found


def measure(task: str, size: str, options: argparse.Namespace) -> dict:
    """All rounds of one task at one size."""
    runners = [Runner(name, who, place) for name, who, place in field(task, options)]
    load = [os.getloadavg()[0]]
    try:
        for runner in runners:  # one after the other: loading is work too
            runner.start(task, size)
            print(f"  {runner.name} {'failed' if runner.failed else 'ready'}", file=sys.stderr)
        for number in range(options.warmup + options.rounds):
            for runner in runners:
                runner.round(keep=number >= options.warmup)
            load.append(os.getloadavg()[0])
            print(f"  round {number + 1} of {options.warmup + options.rounds}", file=sys.stderr)
    finally:
        for runner in runners:
            runner.stop()
    return {
        "task": task,
        "size": size,
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": machine(),
        "load": [min(load), max(load)],
        "rounds": options.rounds,
        "contenders": [runner.result() for runner in runners],
    }


def machine() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "?")
    return {"cpu": model, "cores": str(os.cpu_count()), "python": platform.python_version()}


def prepare(options: argparse.Namespace) -> None:
    """Peers' environments and the random models, where they are missing."""
    for name in {who.peers for task in options.task for _, who, _ in field(task, options)} - {""}:
        peers.make(name)
    for size in options.size:
        folder = HERE / "material" / size
        if not (folder / "data.json").is_file():
            command = [sys.executable, str(HERE / "material.py"), size, str(folder)]
            subprocess.run(command, check=True)


def checkout(word: str) -> tuple[str, Path]:
    """NAME=FOLDER, or a folder."""
    name, equals, folder = word.rpartition("=")
    place = Path(folder).expanduser().resolve()
    return (name if equals else place.name), place


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    listed = {"type": lambda word: word.split(",")}
    parser.add_argument("--task", default=list(TASKS), help="sft,rm,ppo,rollout", **listed)
    parser.add_argument("--size", default=["tiny", "small"], help="tiny,small", **listed)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="3 rounds, tiny, fewer contenders")
    parser.add_argument("--only", default=[], help="these contenders, by name", **listed)
    parser.add_argument("--ours", action="store_true", help="no peers: checkouts among themselves")
    parser.add_argument(
        "--checkout",
        type=checkout,
        action="append",
        help="this project's code to measure, [NAME=]FOLDER; several are compared (default: this one)",
    )
    parser.add_argument("--label", default="", help="goes into the names of the result files")
    options = parser.parse_args()
    options.checkout = options.checkout or [("here", HERE.parent)]
    if options.quick:
        options.rounds, options.size = min(options.rounds, 3), ["tiny"]
    return options


def main() -> None:
    options = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # contenders end with their driver
    prepare(options)
    for size in options.size:
        for task in options.task:
            print(f"{task}, {size}", file=sys.stderr)
            found = measure(task, size, options)
            label = f"-{options.label}" if options.label else "-quick" if options.quick else ""
            place = HERE / "results" / f"{size}-{task}{label}.json"
            place.write_text(json.dumps(found, indent=1) + "\n")
            print(markdown(found) + "\n", flush=True)


if __name__ == "__main__":
    main()
