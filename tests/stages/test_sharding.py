"""Plain, replicated, ZeRO-1, 2 and 3: the same command, the same numbers, the same files.

Every stage starts from the same parents, with the same seed and global batch.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.stages.test_pipeline import metrics, rlhf

pytestmark = pytest.mark.dist

SMALL = (
    "experiment=smoke",
    "runtime.num_threads=1",
    "world.demonstrations=40",
    "world.comparisons=24",
    "world.prompts=40",
    "world.pretraining=40",
    "sft.batch.size=8",
    "sft.batch.microbatch=3",
    "rm.batch.size=8",
    "rm.batch.microbatch=12",
    "ppo.total_episodes=32",
    "ppo.batch.rollout=16",
    "ppo.batch.minibatch=8",
    "ppo.batch.microbatch=3",
    "ppo.ptx.coef=1.0",
    "ppo.ptx.ratio=1",
    "ppo.ema_decay=0.9",
    "evaluation.prompts=8",
    "samples=1",
)
SHARDINGS = {
    "one-zero2": ("runtime=zero2", "runtime.num_processes=1"),
    "two-ddp": ("runtime=ddp", "runtime.num_processes=2"),
    "two-zero1": ("runtime=zero1", "runtime.num_processes=2"),
    "two-zero2": ("runtime=zero2", "runtime.num_processes=2"),
    "two-zero3": ("runtime=zero3", "runtime.num_processes=2"),
    "two-zero3-lockstep": ("runtime=zero3", "runtime.num_processes=2", "runtime.gather=never"),
}
ALIKE = {  # metric -> tolerance; PPO's first iterations sample the very same tokens
    "sft": {"sft/loss": 1e-5, "sft/grad_norm": 1e-4, "sft/tokens": 0, "sft/eval_loss": 1e-4},
    "rm": {"rm/loss": 1e-5, "rm/grad_norm": 1e-4, "rm/pairs": 0, "rm/accuracy": 1e-6},
    "ppo": {
        "objective/scores": 1e-4,
        "objective/kl": 1e-4,
        "objective/response_length": 0,
        "loss/policy_avg": 1e-4,
        "loss/value_avg": 1e-4,
        "loss/ptx": 1e-4,
        "policy/grad_norm": 1e-3,
        "val/grad_norm": 1e-3,
    },
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """runs/plain: one process, plain torch."""
    folder = tmp_path_factory.mktemp("sharding")
    done = rlhf(folder, "run", *SMALL, "name=plain", "runtime=cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "plain"


@pytest.mark.parametrize("name", SHARDINGS)
def test_every_sharding_gives_the_same_answer_and_the_same_files(reference, name):
    done = rlhf(reference.parents[1], "run", *SMALL, f"name={name}", *SHARDINGS[name])
    assert done.returncode == 0, done.stdout + done.stderr
    run = reference.parent / name
    for stage, tolerances in ALIKE.items():
        assert_alike(metrics(reference / stage), metrics(run / stage), tolerances)
        for folder in ("model", "value_model") if stage == "ppo" else ("model",):
            assert_same_model(reference / stage / folder, run / stage / folder)
    found = [
        json.loads((place / "evaluate" / "manifest.json").read_text()) for place in (reference, run)
    ]
    assert found[1]["metrics"] == pytest.approx(found[0]["metrics"], abs=1e-3)
    texts = [(place / "ppo" / "samples.jsonl").read_text() for place in (reference, run)]
    assert texts[0] == texts[1]


def assert_alike(expected: list[dict], found: list[dict], tolerances: dict[str, float]) -> None:
    assert len(expected) == len(found) > 1
    for name, tolerance in tolerances.items():
        pairs = [(a[name], b[name]) for a, b in zip(expected, found, strict=True) if name in a]
        assert pairs
        for a, b in pairs:
            assert b == pytest.approx(a, abs=tolerance, rel=1e-4), name


def assert_same_model(expected: Path, found: Path) -> None:
    """The same files, the same names and shapes, weights alike; plain transformers loads them."""
    assert {p.name for p in expected.iterdir()} == {p.name for p in found.iterdir()}
    ours = load_file(expected / "model.safetensors")
    theirs = load_file(found / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for key, weight in ours.items():
        assert theirs[key].dtype is torch.float32
        assert torch.allclose(weight, theirs[key], atol=1e-4), key
    kind = json.loads((found / "config.json").read_text())["architectures"][0]
    auto = AutoModelForCausalLM if "CausalLM" in kind else AutoModelForSequenceClassification
    model, loading = auto.from_pretrained(found, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_batch_that_cannot_be_divided_is_refused_with_the_numbers(tmp_path):
    done = rlhf(
        tmp_path, "run", *SMALL, "stage=sft", "runtime=ddp", "runtime.num_processes=2",
        "sft.batch.size=7",
    )  # fmt: skip
    assert done.returncode == 1
    assert "sft.batch.size=7 cannot be divided among 2 processes: use 6 or 8" in done.stderr
