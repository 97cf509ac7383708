"""Growth of time and memory with the work: phases of PPO, SFT and reward-model steps, one thread.

`make growth` measures, draws docs/growth.svg and puts the slopes into docs/benchmarks.md. Along three
axes, all else fixed: responses per rollout (texts per step), length of every response, parameters.
Every point is a separate process, forked when the libraries are loaded, to measure its peak memory.
"""

import argparse
import ctypes
import gc
import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}

import peers
from material import END, SIZES, WORDS, made

HERE = Path(__file__).resolve().parent
MICROBATCH, PROMPT = 8, 16
AXES = {
    "batch": [("1m", batch, 32) for batch in (8, 16, 32, 64, 128)],
    "length": [("1m", 16, length) for length in (16, 32, 64, 128, 256)],
    "parameters": [(size, 8, 16) for size in ("1m", "tiny", "14m", "40m", "small")],
}
WORKLOADS = ("ppo", "sft", "rm")
Parts = dict[str, Callable[[], object]]


def rows_of(size: str, count: int, length: int) -> list[dict]:
    """Return rows with prompts of one length and responses of another."""
    draw, vocab = random.Random(0), SIZES[size].vocab

    def words(number: int) -> list[int]:
        return [draw.randrange(WORDS, vocab) for _ in range(number)]

    names = ("chosen", "rejected")
    return [
        {"prompt": words(PROMPT), **{name: [*words(length - 1), END] for name in names}}
        for _ in range(count)
    ]


def parts_of(work: str, size: str, batch: int, length: int) -> Parts:
    """Return what is timed, by name: one step, or the phases of one iteration in order."""
    from workloads import Material, rm_epochs, setting_of, sft_epochs

    folder = made(size)
    given = Material(
        model=folder / "endless",
        reward=folder / "reward",
        rows=rows_of(size, batch, length),
        new_tokens=length,
    )
    setting = setting_of(
        given,
        "runtime.num_threads=1",
        "runtime.device=cpu",
        "runtime.dtype=float32",
        "ppo.inner_epochs=1",
        *(f"{stage}.batch.microbatch={MICROBATCH}" for stage in ("sft", "ppo")),
        f"rm.batch.microbatch={2 * MICROBATCH}",
        *(f"{stage}.batch.size={batch}" for stage in ("sft", "rm")),
        f"ppo.batch.rollout={batch}",
        f"ppo.batch.minibatch={batch}",
    )
    if work == "ppo":
        return iteration(setting, given)
    epoch, _ = (sft_epochs if work == "sft" else rm_epochs)(setting, given)
    return {f"{work} step": lambda: epoch(0)}


def iteration(setting, given) -> Parts:
    """Return the phases of one PPO iteration, each of which uses the result of the one before."""
    from workloads import models_of, rollouts

    from rlhf_cli.stages.ppo.loop import compute_advantages
    from rlhf_cli.stages.ppo.update import updates
    from rlhf_cli.stages.rollout.collect import readings_of, score_rollout
    from rlhf_cli.stages.rollout.updates import minibatches_of

    cfg, models = setting.cfg.ppo, models_of(setting, given)
    rollout = rollouts(setting, models, given)
    left = {}

    def generate():
        left["rollout"] = rollout(0)
        assert left["rollout"].response_mask.all()

    def score():
        parts = readings_of(models, left["rollout"], cfg.batch)
        left["rollout"] = score_rollout(models, left["rollout"], parts, cfg)

    def train():
        scored = compute_advantages(left["rollout"], 0.05, cfg)
        minibatches = minibatches_of(len(scored.scores), cfg, 0, 0)
        list(updates(models, scored, minibatches, cfg, done=0, lr_factor=1.0))

    return {"generate": generate, "score": score, "learn": train}


def memory(name: str) -> float:
    """Return VmRSS (now) or VmHWM (peak) of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {name} in /proc/self/status")


def settle() -> float:
    """Return free memory to the system and reset the peak; return the MiB in use."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def measured(work: str, point: tuple[str, int, int], rounds: int) -> dict[str, dict[str, float]]:
    """Return CPU seconds of each phase, MiB kept since the imports, and MiB above that at its peak.

    One round warms up and creates the moments of the optimizers.
    """
    libraries = settle()
    parts = parts_of(work, *point)
    spent = {name: [] for name in parts}
    above = {name: [] for name in parts}
    kept = 0.0
    for number in range(rounds + 1):
        for name, part in parts.items():
            resting, began = settle(), time.process_time()
            part()
            if number:
                spent[name].append(time.process_time() - began)
                above[name].append(memory("VmHWM") - resting)
                kept = resting - libraries
    return {
        name: {"seconds": median(spent[name]), "working": median(above[name]), "kept": kept}
        for name in parts
    }


def in_own_process(work: str, point: tuple[str, int, int], rounds: int) -> dict:
    """Return `measured` of a fork of this process."""
    there, here = multiprocessing.Pipe()
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=lambda: here.send(measured(work, point, rounds)))
    child.start()
    here.close()
    try:
        return there.recv()
    except EOFError:
        sys.exit(f"growth: {work} at {point} ended with {child.exitcode}")
    finally:
        child.join()


def num_parameters(size: str) -> int:
    """Return the number of parameters of the policy, from the header of its file."""
    file = made(size) / "endless" / "model.safetensors"
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    ends = [one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"]
    return max(ends) // 4


def grown(rounds: int) -> dict:
    """Return the ticks of every axis, and the numbers of each phase along it."""
    from run import machine

    found = {"when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "machine": machine()}
    found["load"] = [os.getloadavg()[0]]
    for axis, points in AXES.items():
        ticks = {"batch": lambda p: p[1], "length": lambda p: p[2]}
        at = ticks.get(axis, lambda p: num_parameters(p[0]))
        lines: dict[str, dict[str, list[float]]] = {}
        for point in points:
            print(f"{axis} {at(point)}", file=sys.stderr)
            for work in WORKLOADS:
                for name, numbers in in_own_process(work, point, rounds).items():
                    for what, number in numbers.items():
                        lines.setdefault(name, {}).setdefault(what, []).append(number)
        found[axis] = {"ticks": [at(point) for point in points], "parts": lines}
    found["load"].append(os.getloadavg()[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "growth" / "growth.json")
    parser.add_argument("--figure", type=Path, default=HERE.parent / "docs" / "growth.svg")
    parser.add_argument("--into", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    options = parser.parse_args()
    peers.make("plots")
    for size, *_ in AXES["parameters"]:
        made(size)
    import workloads  # noqa: F401  imported once, before the forks

    found = grown(options.rounds)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    draw = [str(peers.python_of("plots")), str(HERE / "growth_figure.py"), str(options.out)]
    subprocess.run([*draw, str(options.figure), "--into", str(options.into)], check=True)


if __name__ == "__main__":
    main()
