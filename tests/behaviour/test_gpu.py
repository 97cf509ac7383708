"""Tests that need a GPU; skipped where there is none."""

import pytest
import torch

from rlhf_cli.config.schema import RolloutBatch
from rlhf_cli.core.batches import PromptBatch
from rlhf_cli.core.randomness import uniforms
from rlhf_cli.models.forward import response_scores
from rlhf_cli.models.generation import cuda_graphs
from rlhf_cli.models.generation.sampling import SamplingParams, sample
from rlhf_cli.models.load import freeze
from rlhf_cli.runtime.device import pick_device
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.ppo.loop import compute_advantages
from rlhf_cli.stages.ppo.models import PPOModels
from rlhf_cli.stages.ppo.update import accumulate_gradients
from rlhf_cli.stages.rollout.checks import check_first_ratio, check_start
from rlhf_cli.stages.rollout.collect import collect_rollout
from tests.support.tabular import ppo, runtime
from tests.support.tiny_models import causal, ragged, scalar

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "neox", "opt"])
def test_greedy_decoding_on_a_gpu_equals_that_on_the_cpu(name, graphs):
    tokens, mask = ragged(11, 6, side="left")
    settings = {"end_ids": [*range(1, 5)], "pad_id": 0, "temperature": 0, "graphs": graphs}
    drawn, model = uniforms(11, 40, 0), causal(name, sharpness=4.0)
    on_cpu = sample(model, tokens, mask, drawn, **settings)
    on_gpu = sample(model.cuda(), tokens.cuda(), mask.cuda(), drawn, **settings)
    assert torch.equal(on_cpu.responses, on_gpu.responses.cpu())


def test_every_decoding_step_is_captured_as_a_cuda_graph(monkeypatch):
    """A failed capture falls back to plain decoding, which must not happen here."""
    recorded = []

    def record(step):
        recorded.append(cuda_graphs.captured(step))
        assert recorded[-1] is not step
        return recorded[-1]

    monkeypatch.setitem(cuda_graphs.CUDAGraphDecoder.__init__.__kwdefaults__, "capture", record)
    tokens, mask = (x.cuda() for x in ragged(11, 6, side="left"))
    settings = {"end_ids": [1, 2, 3], "pad_id": 0, "temperature": 1.0, "graphs": True}
    sample(causal("llama").cuda(), tokens, mask, uniforms(11, 40, 0), **settings)
    assert recorded


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ppo_starts_at_ratio_one_and_kl_zero(dtype):
    device = pick_device(runtime(device="cuda", dtype=dtype))
    cfg = ppo(batch=RolloutBatch(rollout=16, minibatch=16, microbatch=5, max_tokens=None))
    reward = freeze(scalar("llama", seed=9)).cuda()
    models = PPOModels(
        policy=Engine(
            causal("llama", sharpness=3.0), optim=cfg.optim, device=device, world=World()
        ),
        value_model=Engine(
            scalar("llama", seed=5), optim=cfg.value_optim, device=device, world=World()
        ),
        ref_policy=Network(
            freeze(causal("llama", sharpness=3.0)).to(dtype=device.dtype), device=device
        ),
        scores=(lambda inputs: response_scores(reward, inputs),),
        device=device,
    )
    tokens, mask = ragged(16, 6, side="left")
    batch = PromptBatch(tokens=tokens, mask=mask, index=list(range(16))).to(device.torch)
    params = SamplingParams(max_new_tokens=8, temperature=1.0, end_ids=[1, 2], pad_id=0)
    rollout, _ = collect_rollout(models, batch, uniforms(16, 8, 0), params, cfg)
    check_start(rollout, device.dtype)
    row = accumulate_gradients(models, compute_advantages(rollout, 0.1, cfg), cfg)
    check_first_ratio(abs(row["val/ratio"] - 1), device.dtype)
