"""Networks on one device."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from rlhf_cli.core.randomness import uniforms
from rlhf_cli.models.forward import ModelInputs, response_logprobs, sequence_scores
from rlhf_cli.models.generation.sampling import SamplingParams, sample
from rlhf_cli.models.load import freeze
from rlhf_cli.models.unpadding.attention import enable_unpadding
from rlhf_cli.runtime.device import pick_device, threads_for
from rlhf_cli.runtime.engine import Engine, Network, NotFinite
from rlhf_cli.runtime.factory import OffloadedNetwork
from rlhf_cli.runtime.world import World
from tests.support import engines as small
from tests.support.tabular import CPU
from tests.support.tiny_models import CONFIGS, SPECIAL, VOCAB, ragged, scalar


@torch.no_grad()
def test_an_offloaded_network_computes_the_same_and_moves_its_tensors_back():
    """Moving to the device copies tensors on a CPU, too: their addresses show where they are."""
    model, rows = freeze(scalar("llama", seed=1)), ragged(5, 6, side="right")
    wanted = sequence_scores(model, *rows)
    home = [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]
    network = OffloadedNetwork(model, device=CPU)
    for _ in range(2):
        assert torch.equal(network(sequence_scores, *rows), wanted)
        on_device = [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]
        assert not set(on_device) & set(home)
        network.offload()
        assert [x.data_ptr() for x in (*model.parameters(), *model.buffers())] == home
    with network.generating() as model_on_device:
        assert next(model_on_device.parameters()).data_ptr() not in home


def test_a_small_model_uses_one_thread_and_a_large_one_all():
    assert threads_for(260_000, most=16) == 1
    assert threads_for(124_000_000, most=16) == 16


DEEP = LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=12,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    **SPECIAL,
)


def pair_of(name: str, dtype: str) -> tuple[Engine, Network]:
    """Return a policy and its frozen reference, made from the same float32 weights."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        config = DEEP if name == "deep" else CONFIGS[name]
        models.append(
            enable_unpadding(
                AutoModelForCausalLM.from_config(deepcopy(config), dtype=torch.float32)
            )
        )
    device = pick_device(small.runtime(None, dtype))
    return small.trained(small.runtime(None, dtype), World(), models[0]), Network(
        freeze(models[1]), device=device
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["deep", "gpt2", "opt"])
def test_a_policy_equals_its_reference_before_the_first_step(name, dtype):
    """Bit for bit before the first step: sampling, scoring, and the forward pass of learning."""
    policy, reference = pair_of(name, dtype)
    prompts, mask = ragged(6, 5, side="left")
    drawn = uniforms(6, 9, 1)
    params = SamplingParams(max_new_tokens=9, temperature=1.0, end_ids=[1], pad_id=0)
    found = []
    policy.eval()
    for network in (policy, reference):
        with network.generating() as model:
            found.append(sample(model, prompts, mask, drawn, params))
    assert torch.equal(found[0].responses, found[1].responses)
    assert torch.equal(found[0].logprobs, found[1].logprobs)
    batch = SimpleNamespace(
        prompts=prompts, prompt_mask=mask, responses=found[0].responses, response_mask=found[0].mask
    )
    wanted = reference(response_logprobs, ModelInputs(batch), temperature=1.0)[0]
    assert torch.equal(policy(response_logprobs, ModelInputs(batch), temperature=1.0)[0], wanted)
    policy.train()
    assert torch.equal(policy(response_logprobs, ModelInputs(batch), temperature=1.0)[0], wanted)


def test_bfloat16_training_keeps_small_steps_in_float32_master_weights():
    """Steps below the precision of bfloat16 accumulate in the master weights, which are saved."""
    policy, _ = pair_of("gpt2", "bfloat16")
    policy.peak_lr = 1e-5
    name = "transformer.h.0.attn.c_attn.weight"
    initial = policy.get(name).clone()
    for step in range(8):
        small.learn(policy, step, World())
    moved = (policy.get(name) - initial).abs()
    assert moved.median() > 1e-6 and moved.mean() < 1e-4
    working = policy.model.get_parameter(name)
    assert working.dtype is torch.bfloat16
    assert torch.equal(working, policy.get(name).to(torch.bfloat16))
    assert torch.equal(dict(policy.weights())[name], policy.get(name))
    assert all(parameter.grad is None for parameter in policy.model.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_refused_before_the_step(dtype, bad):
    policy, _ = pair_of("gpt2", dtype)
    small.learn(policy, 0, World())
    before = {name: value.clone() for name, value in policy.state()}
    tokens, mask = ragged(2, 6, side="right")
    policy.backward(small.part_of_loss(policy, tokens, mask, 1.0) * bad, last=True)
    with pytest.raises(NotFinite, match=r"not finite .* at step 2"):
        policy.step(1.0)
    assert small.same_bits(dict(policy.state()), before)
    small.learn(policy, 1, World())  # the bad gradient is gone


def test_gradients_of_microbatches_are_summed_in_float32():
    """Many small gradients in bfloat16 sum to the gradient of the complete batch."""
    split, whole = (pair_of("gpt2", "bfloat16")[0] for _ in range(2))
    tokens, mask = ragged(32, 9, side="right", seed=3)
    whole.backward(small.part_of_loss(whole, tokens, mask, 100.0), last=True)
    for row in range(32):
        one = slice(row, row + 1)
        split.backward(small.part_of_loss(split, tokens[one], mask[one], 100.0), last=row == 31)
    name = "transformer.h.0.attn.c_attn.weight"
    grads = [dict(engine._named())[name].grad for engine in (split, whole)]
    assert grads[0].dtype is torch.float32
    assert (grads[0] - grads[1]).norm() < 0.02 * grads[1].norm()
