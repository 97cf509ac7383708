"""Model FLOPs by the maths, against those that torch counts while a model runs; a device's highest rate."""

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


def counted(act) -> int:
    with FlopCounterMode(display=False) as counter:
        act()
    return counter.get_total_flops()


def whole(rows: int, length: int) -> torch.Tensor:
    """Contexts of rows without padding."""
    mask = torch.ones(rows, length, dtype=torch.bool)
    return context_lengths(mask, position_ids(mask))


def above_diagonal(rows: int, length: int) -> int:
    """What plain attention multiplies though no token may see it, forward."""
    return 4 * WIDTH * LAYERS * rows * (length**2 - length * (length + 1) // 2)


@pytest.mark.parametrize("length", [1, 7, 16])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "neox", "opt"])
def test_forward_and_backward_are_what_torch_counts(name, length):
    model, rows = causal(name), 3
    model.set_attn_implementation("eager")
    tokens = torch.randint(2, VOCAB, (rows, length))
    contexts, asked = whole(rows, length), rows * length
    found = counted(lambda: model(tokens).logits.sum())
    extra = above_diagonal(rows, length)
    assert forward_flops(model, contexts, asked) == found - extra
    found = counted(lambda: model(tokens).logits.sum().backward())
    assert training_flops(model, contexts, asked) == found - 3 * extra


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_padding_and_logits_that_nobody_asks_for_do_not_count(name):
    """A packed step does what the maths needs and no more. Its attention is of other operators."""
    model = enable_unpadding(causal(name))
    tokens, mask = ragged(5, 9, side="right")
    loss_mask = mask & (position_ids(mask) >= 3)
    batch = SFTBatch(
        tokens=tokens, mask=mask, loss_mask=loss_mask, positions=position_ids(mask), packed=False
    )
    contexts, asked = context_lengths(mask, position_ids(mask)), int(loss_mask.sum())
    assert asked < len(contexts) < mask.numel()
    with FlopCounterMode(display=False) as counter:
        text_logprobs(model, batch)
    linear = (torch.ops.aten.mm, torch.ops.aten.addmm)
    found = sum(counter.get_flop_counts()["Global"].get(operator, 0) for operator in linear)
    attention = 4 * WIDTH * LAYERS * int(contexts.sum())
    assert forward_flops(model, contexts, asked) - attention == found


def test_a_scalar_model_has_a_head_of_one_row():
    model, rows, length = scalar("llama"), 2, 6
    model.set_attn_implementation("eager")
    tokens = torch.randint(2, VOCAB, (rows, length))
    found = counted(lambda: model(tokens)) - above_diagonal(rows, length)
    assert forward_flops(model, whole(rows, length), rows * length) == found


def test_a_tied_head_counts_like_an_untied_one():
    config = deepcopy(CONFIGS["llama"])
    config.tie_word_embeddings = True
    tied, contexts = AutoModelForCausalLM.from_config(config), whole(2, 5)
    assert forward_flops(tied, contexts, 10) == forward_flops(causal("llama"), contexts, 10)


def test_shards_know_the_whole():
    """ZeRO-3 leaves empty parameters with the shape they had."""
    model, contexts = causal("llama"), whole(2, 5)
    expected = forward_flops(model, contexts, 10)
    for parameter in model.parameters():
        parameter.ds_shape = parameter.shape
        parameter.data = torch.empty(0)
    assert forward_flops(model, contexts, 10) == expected > 0


def test_a_window_ends_the_context():
    config = MistralConfig(**CONFIGS["llama"].to_diff_dict() | {"sliding_window": 4})
    model = AutoModelForCausalLM.from_config(config)
    far, near = whole(1, 10), whole(1, 10).clamp(max=4)
    assert forward_flops(model, far, 0) == forward_flops(causal("llama"), near, 0)


def test_what_cannot_be_counted_is_no_number():
    """Of several experts only some multiply."""
    config = MixtralConfig(
        **CONFIGS["llama"].to_diff_dict() | {"num_local_experts": 4, "num_experts_per_tok": 2}
    )
    model = AutoModelForCausalLM.from_config(config)
    assert training_flops(model, whole(1, 4), 4) != training_flops(model, whole(1, 4), 4)  # nan


def test_contexts_restart_with_every_text():
    positions = torch.tensor([[0, 1, 2, 0, 1, 0]])
    mask = torch.tensor([[True, True, True, True, True, False]])
    assert context_lengths(mask, positions).tolist() == [1, 2, 3, 1, 2]


def test_the_rate_is_one_that_a_product_reaches():
    rate, x = measured_peak_flops(CPU, torch.float32), torch.ones(256, 256)
    seconds = []
    for _ in range(20):
        before = time.perf_counter()
        x @ x
        seconds.append(time.perf_counter() - before)
    assert rate > 0.2 * 2 * 256**3 / min(seconds)
    assert rate < 1e14  # no CPU does that


def test_the_rate_is_measured_once_and_draws_no_number_of_the_run():
    measured_peak_flops.cache_clear()
    before = torch.get_rng_state()
    first = measured_peak_flops(CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert measured_peak_flops(CPU, torch.float32) == first
    assert measured_peak_flops.cache_info().misses == 1
