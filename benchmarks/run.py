"""Comparison of this project and its peers, round by round in turn (A B C A B C ...), one thread.

`make bench` runs it; `make bench ARGS=--main` runs only the main contenders. Every contender is a
separate process that waits for its turn, so that imports and warm-up are not timed and no two compute
at once.
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path

import material
import peers
from roster import TASKS, Contender, Task
from roster_gpu import GPU_SIZES, GPU_TASKS
from runner import Runner
from table import markdown

HERE = Path(__file__).resolve().parent


def field(
    task: str, size: str, options: argparse.Namespace
) -> list[tuple[str, Contender, Path | None]]:
    """Return (name, contender, checkout) of peers once and of ours once per checkout."""
    found = []
    for contender in known(size)[task].contenders:
        left_out = options.only and contender.name not in options.only
        peer_left_out = options.ours and not contender.is_ours
        if left_out or peer_left_out or (options.main and not contender.main):
            continue
        if not contender.is_ours:
            found.append((contender.name, contender, None))
            continue
        for label, checkout in options.checkout:
            name = contender.name if len(options.checkout) == 1 else f"{contender.name} @{label}"
            found.append((name, contender, checkout))
    return found


def start(runners: list[Runner], task: str, size: str, device: str) -> None:
    """Start the runners: on a CPU one after the other, on a GPU all at once."""
    for runner in runners:
        runner.start(known(size)[task], size, device)
        if device == "cpu":
            runner.wait()
    for runner in runners if device != "cpu" else ():
        runner.wait()


def known(size: str) -> dict[str, Task]:
    return GPU_TASKS if size in GPU_SIZES else TASKS


def measure(task: str, size: str, options: argparse.Namespace) -> dict:
    """Run all rounds of one task at one size; return the result."""
    runners = [
        Runner(name, contender, folder) for name, contender, folder in field(task, size, options)
    ]
    load = [os.getloadavg()[0]]
    try:
        start(runners, task, size, options.device)
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
        "batch": known(size)[task].batch[size],
        "new_tokens": material.SIZES[size].new_tokens,
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
    """Make the environments of the peers and the random models that are missing."""
    wanted = [(task, size) for size in options.size for task in options.task or known(size)]
    for name in {contender.peers for one in wanted for _, contender, _ in field(*one, options)} - {
        ""
    }:
        peers.make(name)
    for size in options.size:
        material.made(size)


def checkout(word: str) -> tuple[str, Path]:
    """Return (name, folder) of NAME=FOLDER or of a folder."""
    name, equals, folder = word.rpartition("=")
    place = Path(folder).expanduser().resolve()
    return (name if equals else place.name), place


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    listed = {"type": lambda word: word.split(",")}
    parser.add_argument("--task", help=",".join(TASKS), **listed)
    parser.add_argument("--size", default=["tiny", "small"], help="tiny,small", **listed)
    parser.add_argument("--rounds", type=int, help="7; 3 with --main")
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--main", action="store_true", help="the main contenders alone")
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
    options.rounds = options.rounds or (3 if options.main else 7)
    return options


def main() -> None:
    options = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # contenders end with their driver
    prepare(options)
    for size in options.size:
        for task in options.task or known(size):
            print(f"{task}, {size}", file=sys.stderr)
            found = measure(task, size, options)
            label = f"-{options.label}" if options.label else ""
            place = HERE / "results" / f"{size}-{task}{label}.json"
            place.write_text(json.dumps(found, indent=1) + "\n")
            print(markdown(found) + "\n", flush=True)


if __name__ == "__main__":
    main()
