"""Checks on a GPU, as JSON: the gpu-marked tests, the tiny world in float32 and bfloat16, then all three
stages of a random half-billion-parameter Llama under plain torch, ZeRO-2 and ZeRO-3.

`--rehearse` does the same on the CPU with a model of a few million parameters.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = [sys.executable, "-m", "rlhf_cli", "run"]
LARGE = {
    "hidden_size": 1280,
    "intermediate_size": 3456,
    "num_hidden_layers": 24,
    "vocab_size": 32000,
}
SMALL = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "vocab_size": 4096}
STEPS = (
    "stage=[sft,rm,ppo]",
    "data=tiny_world",
    "data.max_response_tokens=128",
    "world.demonstrations=256",
    "world.comparisons=128",
    "world.prompts=256",
    "sft.epochs=1",
    "sft.batch.size=64",
    "sft.batch.microbatch=16",
    "rm.batch.size=16",
    "rm.batch.microbatch=32",
    "ppo.total_episodes=256",
    "ppo.batch.rollout=64",
    "ppo.batch.minibatch=32",
    "ppo.batch.microbatch=16",
    "model.lr.sft=1e-5",
    "model.lr.rm=1e-5",
    "model.lr.policy=1e-6",
    "model.lr.value=1e-5",
    "samples=1",
)


def machine(*, rehearse: bool) -> dict[str, str]:
    """What the figures were taken on."""
    import torch
    import transformers

    if not torch.cuda.is_available() and not rehearse:
        sys.exit("benchmarks/gpu.py: no CUDA device here; --rehearse runs it on the CPU")
    found = {
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return found | ({"deepspeed": metadata.version("deepspeed")} if has_deepspeed() else {})


def has_deepspeed() -> bool:
    return find_spec("deepspeed") is not None


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


def pipeline(folder: Path, device: str, dtype: str) -> dict:
    """`rlhf run experiment=smoke`, with the closing table."""
    words = ["experiment=smoke", f"runtime.device={device}", f"runtime.dtype={dtype}"]
    found = timed([*RUN, *words, f"name={dtype}", f"runs_dir={folder}"], 120)
    table = folder / dtype / "evaluate" / "table.json"
    found["table"] = json.loads(table.read_text()) if table.is_file() else None
    return found


def random_llama(folder: Path, shape: dict[str, int]) -> int:
    """A Llama of this shape with random weights and the tiny world's tokenizer; its parameters."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "rlhf_cli" / "assets" / "tiny")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            **shape,
            num_attention_heads=shape["hidden_size"] // 64,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def three_stages(folder: Path, model: Path, runtime: str, limit: float) -> dict:
    """SFT, reward model and PPO under one runtime: seconds and peak memory of each stage."""
    words = [f"model.path={model}", f"runtime={runtime}", f"name={runtime}", f"runs_dir={folder}"]
    found = timed([*RUN, "model=generic", *STEPS, *words], limit)
    for stage in ("sft", "rm", "ppo"):
        file = folder / runtime / stage / "metrics.jsonl"
        if file.is_file():
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            rows = [row for row in rows if "step" in row]
            peak = max(row["mem/peak_gib"] for row in rows)
            found[stage] = {"steps": len(rows), "seconds": rows[-1]["time"], "peak_gib": peak}
            found[stage] |= {k: v for k, v in rows[-1].items() if k.startswith("time/")}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with a small model")
    options = parser.parse_args()
    device = "cpu" if options.rehearse else "cuda"
    results = {"machine": machine(rehearse=options.rehearse)}
    results["tests"] = timed(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"], 120
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for dtype in ("float32",) if options.rehearse else ("float32", "bfloat16"):
            results[dtype] = pipeline(folder, device, dtype)
            options.out.write_text(json.dumps(results, indent=2) + "\n")
        shape = SMALL if options.rehearse else LARGE
        results["parameters"] = random_llama(folder / "llama", shape)
        for runtime in ("auto", "zero2", "zero3") if has_deepspeed() else ("auto",):
            results[runtime] = three_stages(folder, folder / "llama", runtime, 150)
            options.out.write_text(json.dumps(results, indent=2) + "\n")
    failed = [
        name for name, found in results.items() if isinstance(found, dict) and found.get("code")
    ]
    print(json.dumps({"failed": failed, "out": str(options.out)}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
