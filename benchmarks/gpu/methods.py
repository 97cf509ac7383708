"""The methods beside the three steps on this device: one run of all, with an ensemble of two."""

import json
import tempfile
from pathlib import Path

import torch
from common import Found, section
from runs import RUN, stage_figures, timed

STAGES = ("sft", "rm", "reinforce", "rloo", "grpo", "dpo", "raft", "sft_chosen", "best_of_n")


def methods(found: Found, place: torch.device, rehearse: bool) -> None:
    dtype = "float32" if rehearse else "bfloat16"
    with tempfile.TemporaryDirectory() as folder:
        words = [f"runtime.device={place.type}", f"runtime.dtype={dtype}", f"runs_dir={folder}"]
        words += [f"stage=[{','.join(STAGES)},evaluate]", "rm.members=2", "name=all"]
        one = timed([*RUN, "experiment=smoke", *words], 140)
        run = Path(folder) / "all"
        for name, file in (("table", "evaluate/table.json"), ("curve", "best_of_n/curve.json")):
            one[name] = json.loads((run / file).read_text()) if (run / file).is_file() else None
        found["all"] = one | {stage: stage_figures(run / stage) for stage in STAGES}
        found["ok"] = one["code"] == 0


if __name__ == "__main__":
    section(methods)
