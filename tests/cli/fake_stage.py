"""A stage without torch: what the pipeline does around it is what is tested.

Its behaviour is chosen by `tracking.project`, which no fingerprint reads.
"""

import json
import os
import time
from pathlib import Path

from rlhf_cli.config.errors import UserError
from rlhf_cli.report.preview import Preview


def run(cfg, inputs, out: Path) -> dict[str, float]:
    act(cfg.tracking.project)
    model = out / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(os.urandom(64))
    (model / "tokenizer.json").write_text(json.dumps({"model": cfg.data.template}))
    (out / "metrics.jsonl").write_text('{"step": 1, "x": 1.0}\n{"step": 7, "x": 2.0}\n')
    (out / "inputs.json").write_text(json.dumps({k: str(v) for k, v in inputs.items()}))
    return {"fake/loss": 0.5, "fake/undefined": float("nan")}


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
