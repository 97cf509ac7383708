"""A small embedded task."""

import os
import subprocess
import sys

from rlhf_cli.config.schema import TinyWorld

SETTINGS = TinyWorld(
    demonstrations=200,
    comparisons=150,
    prompts=200,
    held_out_prompts=30,
    pretraining=100,
    completions=[4, 9],
    noise=0.5,
    tie_margin=0.2,
    length_bias=0.0,
    format_bias=0.0,
    wrong=0.0,
)


def outputs_of_processes(code: str) -> set[str]:
    """Return what Python code prints in processes that order their sets differently."""
    return {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
