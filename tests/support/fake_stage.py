"""A stage without torch, for tests of the pipeline.

Its behaviour is chosen by `tracking.project`, which no fingerprint reads.
"""

import json
import os
import time
from pathlib import Path

from rlhf_cli.artifacts import checkpoints
from rlhf_cli.config.errors import UserError
from rlhf_cli.stages.dry_run import Preview

STEPS = 7


def run(cfg, inputs, out: Path) -> dict[str, float]:
    how = cfg.tracking.project
    act(how)
    train(out, how, cfg.resume.name)
    model = out / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(os.urandom(64))
    (model / "tokenizer.json").write_text(json.dumps({"model": cfg.data.template}))
    (out / "inputs.json").write_text(json.dumps({k: str(v) for k, v in inputs.items()}))
    return {"fake/loss": 0.5, "fake/undefined": float("nan")}


def train(out: Path, how: str, policy: str) -> None:
    """ "save-die@4": save every step, die at the fourth; begun lists where each attempt began."""
    found = checkpoints.latest(out, policy)
    first = 1 if found is None else found.step + 1
    rows = [] if found is None else found.state["rows"]
    for step in range(first, STEPS + 1):
        rows.append({"step": step, "x": step / 2, "began": first})
        (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if how.startswith("save"):
            checkpoints.create(out, step)
            checkpoints.commit(out, step, {"rows": rows}, 2)
        if how.endswith(f"@{step}"):
            act(how.partition("-")[2].partition("@")[0])


def act(how: str) -> None:
    if how == "fail":
        raise UserError("the data is bad at a.jsonl:3")
    if how == "crash":
        raise ZeroDivisionError("boom")
    if how == "die":
        os._exit(9)
    if how == "killed":
        os.kill(os.getpid(), 9)
    if how == "sleep":
        print("sleeping", flush=True)
        time.sleep(60)


def preview(cfg, inputs) -> Preview:
    return Preview(facts={"optimizer steps": "3", "inputs": ",".join(inputs)}, notes=["a note"])
