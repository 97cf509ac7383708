"""The complete pipeline on this device: the tiny world, in float32 and in bfloat16."""

import json
import tempfile
from pathlib import Path

import torch
from common import Found, section
from runs import RUN, stage_figures, timed


def smoke(found: Found, place: torch.device, rehearse: bool) -> None:
    fine = True
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32",) if rehearse else ("float32", "bfloat16"):
            words = [f"runtime.device={place.type}", f"runtime.dtype={dtype}", f"name={dtype}"]
            one = timed([*RUN, "experiment=smoke", f"runs_dir={folder}", *words], 90)
            table = Path(folder) / dtype / "evaluate" / "table.json"
            one["table"] = json.loads(table.read_text()) if table.is_file() else None
            one |= {
                stage: stage_figures(Path(folder) / dtype / stage) for stage in ("sft", "rm", "ppo")
            }
            found[dtype] = one
            fine = fine and one["code"] == 0
    found["ok"] = fine


if __name__ == "__main__":
    section(smoke)
