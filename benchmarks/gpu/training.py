"""Speed of training steps and PPO iterations, compared with TRL, a plain loop and the device.

The rounds are those of ../run.py with all contenders on the GPU. Utilisation is of the matmul rate that
limits.py measures: 6 operations per weight and token, of the head only where needed, and attention.
"""

import json
import sys
from pathlib import Path

import torch
from common import BENCHMARKS, Found, section
from material import SIZES, made
from runs import timed

TASKS = ("sft", "rm", "ppo")


def flops(task: str, size: str, rows: list[dict]) -> float:
    """Return the operations of an epoch, forward and backward; a multiply-add counts as two."""
    shape, found = SIZES[size], 0.0
    body = shape.layers * (4 * shape.hidden**2 + 3 * shape.hidden * shape.intermediate)
    head = shape.hidden * shape.vocab if task == "sft" else 0
    for row in rows:
        for side in ("chosen",) if task == "sft" else ("chosen", "rejected"):
            length = len(row["prompt"]) + len(row[side])
            found += 6 * (body * length + head * len(row[side]))
            found += 6 * shape.layers * shape.hidden * length**2
    return found


def speeds(task: str, size: str, result: dict, tflops: float | None) -> dict:
    """Return tokens per second, peak, utilisation and relative speed of every contender."""
    rows = json.loads((made(size) / "data.json").read_text())[: 2 * result["batch"]]
    found = {}
    for one in result["contenders"]:
        if one["failed"]:
            found[one["name"]] = {"failed": one["failed"]}
            continue
        rounds = sorted(one["rounds"], key=lambda r: r["tokens"] / r["seconds"])
        middle = rounds[len(rounds) // 2]
        speed = {"tokens_per_s": middle["tokens"] / middle["seconds"]}
        speed |= {"seconds": middle["seconds"], "peak_gib": one["peak_mib"] / 1024}
        if tflops and task != "ppo":
            speed["utilisation"] = flops(task, size, rows) / middle["seconds"] / tflops / 1e12
        found[one["name"]] = speed
    done = {name: one for name, one in found.items() if "failed" not in one}
    for one in done.values():
        one["times"] = {
            other: one["tokens_per_s"] / its["tokens_per_s"] for other, its in done.items()
        }
    return found


def training(found: Found, place: torch.device, rehearse: bool) -> None:
    size = "1m" if rehearse else "half"
    made(size)
    limits = Path(found.place).with_name("limits.json")
    tflops = json.loads(limits.read_text())["matmul_tflops"] if limits.is_file() else None
    rounds = ["--rounds", "1", "--warmup", "0"] if rehearse else ["--rounds", "3"]
    fine = True
    for task in TASKS:
        words = ["--task", task, "--size", size, "--device", place.type, "--label", "gpu", *rounds]
        one = timed([sys.executable, str(BENCHMARKS / "run.py"), *words], 120)
        file = BENCHMARKS / "results" / f"{size}-{task}-gpu.json"
        if one["code"] == 0:
            one = speeds(task, size, json.loads(file.read_text()), tflops)
        found[task] = one
        ours = [x for name, x in one.items() if name.startswith("ours")]
        fine = fine and bool(ours) and not any("failed" in x for x in ours)
    found["ok"] = fine


if __name__ == "__main__":
    section(training)
