"""Checks on a GPU, as JSON: the gpu-marked tests, then the tiny world in float32 and bfloat16."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = [sys.executable, "-m", "rlhf_cli", "run", "runtime.device=cuda"]


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    import torch
    import transformers

    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: no CUDA device here")
    return {
        "gpu": torch.cuda.get_device_name(0),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def timed(command: list[str], limit: float) -> dict:
    """Run a command; its exit code, seconds, and the end of what it said."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=limit,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )
        code, said = done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
    except subprocess.TimeoutExpired as error:
        code, said = 124, str(error.stdout or "")[-3000:]
    return {"code": code, "seconds": round(time.monotonic() - began, 1), "said": said}


def pipeline(folder: Path, dtype: str) -> dict:
    """`rlhf run experiment=smoke` on the GPU, with the closing table."""
    found = timed(
        [*RUN, "experiment=smoke", f"runtime.dtype={dtype}", f"name={dtype}", f"runs_dir={folder}"],
        180,
    )
    table = folder / dtype / "evaluate" / "table.json"
    found["table"] = json.loads(table.read_text()) if table.is_file() else None
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    results = {"machine": machine()}
    results["tests"] = timed(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"], 120
    )
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32", "bfloat16"):
            results[dtype] = pipeline(Path(folder), dtype)
    out.write_text(json.dumps(results, indent=2) + "\n")
    failed = [name for name, found in results.items() if found.get("code")]
    print(json.dumps({"failed": failed, "out": str(out)}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
