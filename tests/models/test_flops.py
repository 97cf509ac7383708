"""Model FLOPs by formula, compared with those that torch counts; the peak rate of a device."""

import time
from copy import deepcopy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, MistralConfig, MixtralConfig

from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.core.masking import position_ids
from rlhf_cli.models.flops import (
    context_lengths,
    forward_flops,
    measured_peak_flops,
    training_flops,
)
from rlhf_cli.models.forward import text_logprobs
from rlhf_cli.models.unpadding.attention import enable_unpadding
from tests.support.tiny_models import CONFIGS, VOCAB, causal, ragged, scalar

LAYERS, WIDTH = 2, 16  # of the tiny networks, each with heads as wide as its states
CPU = torch.device("cpu")


def counted_flops(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def unpadded_contexts(rows: int, length: int) -> torch.Tensor:
    """Return the context lengths of rows without padding."""
    mask = torch.ones(rows, length, dtype=torch.bool)
    return context_lengths(mask, position_ids(mask))


def above_diagonal(rows: int, length: int) -> int:
    """Return the forward FLOPs that eager attention spends on masked positions."""
    return 4 * WIDTH * LAYERS * rows * (length**2 - length * (length + 1) // 2)


@pytest.mark.parametrize("length", [1, 7, 16])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "neox", "opt"])
def test_forward_and_training_flops_equal_those_that_torch_counts(name, length):
    model, rows = causal(name), 3
    model.set_attn_implementation("eager")
    tokens = torch.randint(2, VOCAB, (rows, length))
    contexts, num_logits = unpadded_contexts(rows, length), rows * length
    found = counted_flops(lambda: model(tokens).logits.sum())
    extra = above_diagonal(rows, length)
    assert forward_flops(model, contexts, num_logits) == found - extra
    found = counted_flops(lambda: model(tokens).logits.sum().backward())
    assert training_flops(model, contexts, num_logits) == found - 3 * extra


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_padding_and_unneeded_logits_do_not_count(name):
    """An unpadded step spends exactly the needed FLOPs. Its attention uses other operators."""
    model = enable_unpadding(causal(name))
    tokens, mask = ragged(5, 9, side="right")
    loss_mask = mask & (position_ids(mask) >= 3)
    batch = SFTBatch(
        tokens=tokens, mask=mask, loss_mask=loss_mask, positions=position_ids(mask), packed=False
    )
    contexts, num_logits = context_lengths(mask, position_ids(mask)), int(loss_mask.sum())
    assert num_logits < len(contexts) < mask.numel()
    with FlopCounterMode(display=False) as counter:
        text_logprobs(model, batch)
    linear = (torch.ops.aten.mm, torch.ops.aten.addmm)
    found = sum(counter.get_flop_counts()["Global"].get(operator, 0) for operator in linear)
    attention = 4 * WIDTH * LAYERS * int(contexts.sum())
    assert forward_flops(model, contexts, num_logits) - attention == found


def test_flops_of_a_scalar_model_count_a_head_of_one_output():
    model, rows, length = scalar("llama"), 2, 6
    model.set_attn_implementation("eager")
    tokens = torch.randint(2, VOCAB, (rows, length))
    found = counted_flops(lambda: model(tokens)) - above_diagonal(rows, length)
    assert forward_flops(model, unpadded_contexts(rows, length), rows * length) == found


def test_a_tied_head_counts_as_an_untied_one():
    config = deepcopy(CONFIGS["llama"])
    config.tie_word_embeddings = True
    tied, contexts = AutoModelForCausalLM.from_config(config), unpadded_contexts(2, 5)
    assert forward_flops(tied, contexts, 10) == forward_flops(causal("llama"), contexts, 10)


def test_flops_of_a_sharded_model_count_the_complete_parameters():
    """ZeRO-3 leaves empty parameters with the shape they had."""
    model, contexts = causal("llama"), unpadded_contexts(2, 5)
    expected = forward_flops(model, contexts, 10)
    for parameter in model.parameters():
        parameter.ds_shape = parameter.shape
        parameter.data = torch.empty(0)
    assert forward_flops(model, contexts, 10) == expected > 0


def test_a_sliding_window_limits_the_context_that_counts():
    config = MistralConfig(**CONFIGS["llama"].to_diff_dict() | {"sliding_window": 4})
    model = AutoModelForCausalLM.from_config(config)
    far, near = unpadded_contexts(1, 10), unpadded_contexts(1, 10).clamp(max=4)
    assert forward_flops(model, far, 0) == forward_flops(causal("llama"), near, 0)


def test_flops_of_a_mixture_of_experts_are_nan():
    """Only some experts of a layer compute, so their FLOPs are unknown."""
    config = MixtralConfig(
        **CONFIGS["llama"].to_diff_dict() | {"num_local_experts": 4, "num_experts_per_tok": 2}
    )
    model = AutoModelForCausalLM.from_config(config)
    assert training_flops(model, unpadded_contexts(1, 4), 4) != training_flops(
        model, unpadded_contexts(1, 4), 4
    )  # nan


def test_context_lengths_restart_with_every_text():
    positions = torch.tensor([[0, 1, 2, 0, 1, 0]])
    mask = torch.tensor([[True, True, True, True, True, False]])
    assert context_lengths(mask, positions).tolist() == [1, 2, 3, 1, 2]


def test_the_measured_peak_flops_are_reachable_by_a_matrix_product():
    rate, x = measured_peak_flops(CPU, torch.float32), torch.ones(256, 256)
    seconds = []
    for _ in range(20):
        before = time.perf_counter()
        x @ x
        seconds.append(time.perf_counter() - before)
    assert rate > 0.2 * 2 * 256**3 / min(seconds)
    assert rate < 1e14  # no CPU does that


def test_the_peak_flops_are_measured_once_and_without_the_random_state_of_the_run():
    measured_peak_flops.cache_clear()
    before = torch.get_rng_state()
    first = measured_peak_flops(CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert measured_peak_flops(CPU, torch.float32) == first
    assert measured_peak_flops.cache_info().misses == 1
