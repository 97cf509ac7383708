"""Compiled blocks equal plain ones for rows of any length, and keep the names of weights."""

import shutil
from copy import deepcopy

import pytest
import torch
from torch._dynamo.utils import counters

from rlhf_cli.config.errors import UserError
from rlhf_cli.models.compile import blocks, compile_blocks
from rlhf_cli.models.forward import token_scores
from rlhf_cli.models.generation.sampling import SamplingParams, sample
from rlhf_cli.models.unpadding.attention import enable_unpadding
from rlhf_cli.runtime.engine import Network
from tests.support.tabular import CPU
from tests.support.tiny_models import causal, ragged, scalar


def gradients(model, rows) -> list[torch.Tensor]:
    tokens, mask = rows
    model.zero_grad()
    (token_scores(model, tokens, mask) * mask).square().sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def compare(name: str, backend: str) -> None:
    torch._dynamo.reset()
    counters.clear()
    plain = enable_unpadding(scalar(name, seed=1)).train()
    compiled = compile_blocks(deepcopy(plain), CPU.torch, backend=backend)
    assert len(blocks(compiled)) == 2
    assert list(compiled.state_dict()) == list(plain.state_dict())
    graphs = []
    for rows in (3, 5, 4):
        text = ragged(rows, 6 + rows, side="right")
        for found, wanted in zip(gradients(compiled, text), gradients(plain, text), strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0 and graphs[1] == graphs[2], "it was compiled again for a length"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "neox"])
def test_gradients_of_compiled_blocks_equal_those_of_plain_ones(name):
    """The blocks are traced and differentiated as by torch.compile, without code generation."""
    compare(name, "aot_eager")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_gradients_of_blocks_compiled_to_machine_code_equal_those_of_plain_ones(name):
    compare(name, "inductor")


def test_generation_uses_the_uncompiled_blocks():
    torch._dynamo.reset()
    counters.clear()
    plain = enable_unpadding(causal("llama", seed=1))
    network = Network(compile_blocks(deepcopy(plain), CPU.torch, backend="aot_eager"), device=CPU)
    prompts, drawn = ragged(3, 5, side="left"), torch.rand(3, 6, dtype=torch.float64)
    params = SamplingParams(max_new_tokens=6, temperature=1.0, end_ids=[1], pad_id=0)
    with network.generating() as model:
        found = sample(model, *prompts, drawn, params)
    assert torch.equal(found.responses, sample(plain, *prompts, drawn, params).responses)
    assert not counters["stats"]


def test_models_that_cannot_be_compiled_are_refused(monkeypatch):
    with pytest.raises(UserError, match="read without padding; opt is not"):
        compile_blocks(enable_unpadding(causal("opt")), CPU.torch)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        compile_blocks(enable_unpadding(causal("llama")), CPU.torch)
