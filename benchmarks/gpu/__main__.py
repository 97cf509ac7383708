"""Every check of this project that needs a GPU, correctness first, each with a time limit.

A section that fails or runs out of time is recorded with its results so far, and the next one runs;
sections that do not fit into the total time are left out and listed. `--rehearse` runs all on the CPU
with a model of a few thousand parameters. TRL is measured where RLHF_PEERS names a folder with
trl-sft/ and trl-ppo/.
"""

import argparse
import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

from common import BENCHMARKS, ROOT
from runs import timed

HERE = Path(__file__).resolve().parent
SECTIONS = {  # seconds at most
    "limits": 40,
    "unpadded": 50,
    "decode": 70,
    "tests": 90,
    "smoke": 110,
    "methods": 150,
    "evaluation": 90,
    "training": 150,
    "rollout": 90,
    "stages": 130,
}
WHOLE = 460  # seconds


def machine(*, rehearse: bool) -> dict[str, str]:
    """Return the machine and the versions of the measurement."""
    import torch

    if not torch.cuda.is_available() and not rehearse:
        sys.exit("benchmarks/gpu: no CUDA device here; --rehearse runs it on the CPU")
    found = {
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
    }
    known = {
        str(x.metadata["Name"]).lower().replace("_", "-"): x.version
        for x in metadata.distributions()
    }
    names = ("torch", "transformers", "deepspeed", "flash-attn")
    return found | {name: known.get(name, "not there") for name in names}


def peers() -> dict[str, str]:
    """Return the environment of the peers, whose packages exist already; nothing is installed."""
    made = all((BENCHMARKS / "peers" / n / ".ready").is_file() for n in ("trl-sft", "trl-ppo"))
    return {} if made else {"RLHF_PEERS": os.environ.get("RLHF_PEERS", str(ROOT / "peers"))}


def run(name: str, folder: Path, limit: float, *, rehearse: bool) -> dict:
    """Run one section; return its results, even when it failed."""
    place = folder / f"{name}.json"
    place.unlink(missing_ok=True)
    flags = ["--rehearse"] if rehearse else []
    command = [sys.executable, str(HERE / f"{name}.py"), "--into", str(place), *flags]
    if name == "tests":
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    done = timed(command, limit, peers(), whole=True)
    found = json.loads(place.read_text()) if place.is_file() else {}
    ok = done["code"] == 0 and found.get("ok", True)
    said = {} if done["code"] == 0 and name != "tests" else {"said": done["said"]}
    return {"ok": ok, "code": done["code"], "seconds": done["seconds"], **said, "found": found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("gpu_results"))
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with a small model")
    parser.add_argument("--only", type=lambda word: word.split(","), default=list(SECTIONS))
    options = parser.parse_args()
    began, folder = time.monotonic(), options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict] = {"machine": machine(rehearse=options.rehearse)}
    for name in options.only:
        left = WHOLE - (time.monotonic() - began)
        if left < 20:
            results[name] = {"ok": False, "said": "left out: no time"}
        else:
            limit = min(SECTIONS[name], left)
            results[name] = run(name, folder, limit, rehearse=options.rehearse)
        (folder / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
        known = results[name]
        print(
            f"{name}: {'ok' if known['ok'] else 'NOT OK'}, {known.get('seconds', 0)} s", flush=True
        )
    failed = [name for name in options.only if not results[name]["ok"]]
    print(json.dumps({"failed": failed, "out": str(folder / "gpu.json")}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
