"""Reading without padding gives the same values and gradients as reading with it."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    MistralConfig,
    Qwen2Config,
)

from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.core.masking import position_ids
from rlhf_cli.models.forward import (
    ModelInputs,
    last_hidden,
    reads_unpadded,
    response_logprobs,
    response_values,
    sequence_scores,
    text_logprobs,
    token_scores,
)
from rlhf_cli.models.generation.sampling import SamplingParams, sample
from rlhf_cli.models.unpadding import attention
from rlhf_cli.models.unpadding.attention import enable_unpadding
from rlhf_cli.models.unpadding.rows import unpad
from tests.support import tiny_models as tiny
from tests.support.tiny_models import SPECIAL, VOCAB, ragged

SHAPE = SPECIAL | {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "num_labels": 1,
}
CONFIGS = tiny.CONFIGS | {
    "qwen2": Qwen2Config(**SHAPE),
    "qwen2-window": Qwen2Config(
        **SHAPE, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "mistral": MistralConfig(**SHAPE, head_dim=4, sliding_window=3),
    "gemma": GemmaConfig(**SHAPE, head_dim=8),
    "gemma2": Gemma2Config(**SHAPE, head_dim=8, sliding_window=4),
    "gemma3": Gemma3TextConfig(
        **SHAPE, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
    ),
    "gemma3-soft": Gemma3TextConfig(**SHAPE, head_dim=8, final_logit_softcapping=20.0),
}
PADDED = {"opt", "gemma2", "gemma3-soft"}  # these cannot be packed


def pair(auto, name: str):
    """Return the same network twice: one that reads padded rows, one that removes the padding."""
    torch.manual_seed(0)
    plain = auto.from_config(deepcopy(CONFIGS[name]), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(3.0 if parameter.ndim == 2 else 1.0)
    return plain, enable_unpadding(deepcopy(plain))


def rollout(case: str):
    prompts, prompt_mask = ragged(5, 6, side="left", seed=1)
    responses, response_mask = ragged(5, 7, side="right", seed=2)
    if case == "one token":
        prompt_mask[:, :-1] = False
        response_mask[:, 1:] = False
    if case == "equal lengths":
        prompt_mask[:], response_mask[:] = True, True
    if case == "empty response":
        response_mask[2] = False
    return SimpleNamespace(
        prompts=prompts, prompt_mask=prompt_mask, responses=responses, response_mask=response_mask
    )


def texts(*, packed: bool):
    """Return rows of two texts and padding, or of one; two thirds of each text are supervised."""
    tokens, mask = ragged(4, 12, side="right", seed=3)
    positions = position_ids(mask)
    if packed:
        positions = torch.where(positions >= 2, positions - 2, positions)
    loss_mask = mask & (positions % 3 > 0)
    return SFTBatch(
        tokens=tokens, mask=mask, loss_mask=loss_mask, positions=positions, packed=packed
    )


def assert_equal_values_and_gradients(plain, unpadding, read_values, mask):
    """Assert equal values where mask is True, and equal gradients of every parameter."""
    seen = []
    for model in (plain, unpadding):
        model.zero_grad()
        values = read_values(model)
        assert values.dtype == torch.float32
        if values.requires_grad:
            values[mask].sin().sum().backward()
        seen.append(values.detach()[mask])
    torch.testing.assert_close(seen[1], seen[0], atol=2e-5, rtol=2e-5)
    for (name, one), other in zip(plain.named_parameters(), unpadding.parameters(), strict=True):
        if one.grad is not None or other.grad is not None:
            blank = torch.zeros_like(one)
            wanted, found = (p.grad if p.grad is not None else blank for p in (one, other))
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4, msg=name)


def test_reads_unpadded_names_the_supported_models():
    for name in CONFIGS:
        plain, unpadding = pair(AutoModelForCausalLM, name)
        assert not reads_unpadded(plain)
        assert reads_unpadded(unpadding) == (name not in PADDED), name
    eager = deepcopy(CONFIGS["llama"])
    eager._attn_implementation = "eager"
    assert not reads_unpadded(enable_unpadding(SimpleNamespace(config=eager)))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("case", ["ragged", "one token", "equal lengths", "empty response"])
def test_logprobs_and_values_equal_those_of_padded_rows(name, case):
    part = rollout(case)
    plain, unpadding = pair(AutoModelForCausalLM, name)
    for which in (0, 1):
        assert_equal_values_and_gradients(
            plain,
            unpadding,
            lambda model, k=which: response_logprobs(model, ModelInputs(part), temperature=0.7)[k],
            part.response_mask,
        )
    plain, unpadding = pair(AutoModelForSequenceClassification, name)
    assert_equal_values_and_gradients(
        plain,
        unpadding,
        lambda model: response_values(model, ModelInputs(part)),
        part.response_mask,
    )


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_equal_those_of_padded_rows(name, side):
    tokens, mask = ragged(6, 9, side=side, seed=4)
    mask[0] = torch.arange(9) == (8 if side == "left" else 0)  # a row of one token
    plain, unpadding = pair(AutoModelForSequenceClassification, name)
    every = torch.ones(6, dtype=torch.bool)
    assert_equal_values_and_gradients(
        plain, unpadding, lambda model: sequence_scores(model, tokens, mask), every
    )
    assert_equal_values_and_gradients(
        plain, unpadding, lambda model: last_hidden(model, tokens, mask), every
    )
    assert_equal_values_and_gradients(
        plain, unpadding, lambda model: token_scores(model, tokens, mask), mask
    )


def completions():
    """Return two left-padded prompts with three and two responses; one begins another."""
    prompts, prompt_mask = ragged(2, 6, side="left", seed=5)
    which = torch.tensor([0, 0, 0, 1, 1])
    responses, response_mask = ragged(5, 7, side="right", seed=6)
    responses[1, :4] = responses[0, :4]
    response_mask[0] = True
    response_mask[1] = torch.arange(7) < 4
    return SimpleNamespace(
        prompts=prompts[which],
        prompt_mask=prompt_mask[which],
        responses=responses,
        response_mask=response_mask,
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_common_prefixes_are_computed_once(name):
    """Values and gradients equal those of reading every row, and fewer tokens are read."""
    part = completions()
    tokens = torch.cat([part.prompts, part.responses], dim=1)
    mask = torch.cat([part.prompt_mask, part.response_mask], dim=1)
    plain, unpadding = pair(AutoModelForCausalLM, name)
    read = []
    unpadding.get_input_embeddings().register_forward_pre_hook(
        lambda _, given: read.append(given[0].numel())
    )
    assert_equal_values_and_gradients(
        plain,
        unpadding,
        lambda model: response_logprobs(model, ModelInputs(part), temperature=0.7)[0],
        part.response_mask,
    )
    prompts = part.prompt_mask[[0, 3]].sum()
    fewest = int(prompts + part.response_mask.sum() - 4)
    assert read == [fewest if reads_unpadded(unpadding) else len(mask) * int(mask.sum(1).max())]
    plain, unpadding = pair(AutoModelForSequenceClassification, name)
    every = torch.ones(5, dtype=torch.bool)
    assert_equal_values_and_gradients(
        plain,
        unpadding,
        lambda model: response_values(model, ModelInputs(part)),
        part.response_mask,
    )
    assert_equal_values_and_gradients(
        plain, unpadding, lambda model: sequence_scores(model, tokens, mask), every
    )
    assert_equal_values_and_gradients(
        plain, unpadding, lambda model: token_scores(model, tokens, mask), mask
    )


def test_unpad_shares_only_tokens_with_equal_prefixes():
    """[1 2 3 | 1 2 4 5 | 9 2 4 | 9 2]: 1 2 and 9 2 are read once; the two 2 4 stay separate."""
    tokens = torch.tensor([[1, 2, 3, 0], [1, 2, 4, 5], [9, 2, 4, 0], [0, 0, 9, 2]])
    mask = tokens > 0
    found = unpad(mask, position_ids(mask), tokens)
    stood = torch.full((16,), -1)
    stood[found.index] = found.index[found.computed_index][found.source_index]
    assert stood.view(4, 4).tolist() == [
        [0, 1, 2, -1],
        [0, 1, 6, 7],
        [8, 9, 10, -1],
        [-1, -1, 8, 9],
    ]
    assert unpad(mask, position_ids(mask)).source_index is None
    assert unpad(mask[1:3], position_ids(mask[1:3]), tokens[1:3]).source_index is None


def test_common_prefixes_are_not_shared_under_dropout():
    """Dropout differs between rows, so every row is read."""
    part = completions()
    _, unpadding = pair(AutoModelForCausalLM, "llama")
    unpadding.config.attention_dropout = 0.5
    read = []
    unpadding.get_input_embeddings().register_forward_pre_hook(
        lambda _, given: read.append(given[0].numel())
    )
    for drops in (True, False):
        response_logprobs(unpadding.train(drops), ModelInputs(part), temperature=1.0)
    assert read[0] == int(part.prompt_mask.sum() + part.response_mask.sum()) > read[1]


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "opt"])
@pytest.mark.parametrize("packed", [False, True])
def test_text_logprobs_equal_those_of_padded_rows(name, packed):
    """OPT has no position ids that could restart, so its rows hold one text each."""
    batch = texts(packed=packed)
    plain, unpadding = pair(AutoModelForCausalLM, name)
    assert_equal_values_and_gradients(
        plain, unpadding, lambda model: text_logprobs(model, batch), batch.loss_mask[:, 1:]
    )


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3"])
def test_gradient_checkpointing_gives_the_same_gradients(name):
    batch = texts(packed=True)
    plain, unpadding = pair(AutoModelForCausalLM, name)
    unpadding.train().gradient_checkpointing_enable({"use_reentrant": False})
    assert_equal_values_and_gradients(
        plain, unpadding, lambda model: text_logprobs(model, batch), batch.loss_mask[:, 1:]
    )


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
@torch.no_grad()
def test_masked_tokens_inside_a_text_are_removed(name):
    """[5, -, 9 | -, 3] is the text [5, 9 | 3]."""
    _, unpadding = pair(AutoModelForCausalLM, name)
    holes = SimpleNamespace(
        prompts=torch.tensor([[5, 7, 9]]),
        prompt_mask=torch.tensor([[True, False, True]]),
        responses=torch.tensor([[7, 3, 8]]),
        response_mask=torch.tensor([[False, True, True]]),
    )
    whole = SimpleNamespace(
        prompts=torch.tensor([[5, 9]]),
        prompt_mask=torch.ones(1, 2, dtype=torch.bool),
        responses=torch.tensor([[3, 8]]),
        response_mask=torch.ones(1, 2, dtype=torch.bool),
    )
    found = response_logprobs(unpadding, ModelInputs(holes), temperature=1.0)
    wanted = response_logprobs(unpadding, ModelInputs(whole), temperature=1.0)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one[:, 1:], other)
        assert float(one[0, 0]) == 0


def test_a_response_without_a_prompt_is_refused():
    _, unpadding = pair(AutoModelForCausalLM, "llama")
    part = rollout("ragged")
    part.prompt_mask[1] = False
    with pytest.raises(ValueError, match="first of its text"):
        response_logprobs(unpadding, ModelInputs(part), temperature=1.0)


def test_a_batch_without_tokens_still_calls_every_layer():
    """Ranks that share a network must all call it; the output has zero gradients."""
    _, unpadding = pair(AutoModelForCausalLM, "llama")
    batch = texts(packed=False)
    batch.mask[:], batch.loss_mask[:] = False, False
    called = []
    for module in unpadding.modules():
        module.register_forward_hook(lambda module, *_: called.append(module))
    text_logprobs(unpadding, batch).sum().backward()
    assert unpadding.lm_head in called and unpadding.model.layers[1].mlp in called
    assert all(float(p.grad.abs().max()) == 0 for p in unpadding.parameters())


def test_logits_are_computed_for_supervised_tokens_alone():
    """The tensors kept for the backward pass have at most one row per supervised token."""
    batch = texts(packed=False)
    _, unpadding = pair(AutoModelForCausalLM, "llama")
    sizes = []

    def keep(tensor):
        if tensor.shape[-1] == VOCAB:
            sizes.append(tensor.shape[0])
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        text_logprobs(unpadding, batch)
    assert max(sizes, default=0) <= int(batch.loss_mask.sum()) < int(batch.mask.sum())


@torch.no_grad()
def test_sampling_from_an_unpadding_model_equals_that_of_the_plain_one():
    prompts, mask = ragged(5, 6, side="left", seed=1)
    uniforms = torch.rand(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    params = SamplingParams(max_new_tokens=8, temperature=1.0, end_ids=[1], pad_id=0)
    for name in ("llama", "gpt2", "gemma"):
        plain, unpadding = (
            sample(model, prompts, mask, uniforms, params)
            for model in pair(AutoModelForCausalLM, name)
        )
        assert torch.equal(plain.responses, unpadding.responses), name


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2"])
def test_one_varlen_call_equals_the_loop_over_lengths(name, monkeypatch):
    """The kernel of torch runs on GPUs only; a reference with its signature replaces it."""

    def reference_varlen(q, k, v, bounds, _, longest, __, *, scale, window_size, enable_gqa):
        assert longest == int(bounds.diff().max()) and window_size[1] == 0
        text = torch.repeat_interleave(torch.arange(len(bounds) - 1), bounds.diff())
        place = torch.arange(len(q))
        back = place[:, None] - place[None]
        seen = (text[:, None] == text[None]) & (back >= 0)
        if window_size[0] >= 0:
            seen &= back <= window_size[0]
        return torch.nn.functional.scaled_dot_product_attention(
            *(x.transpose(0, 1)[None] for x in (q, k, v)),
            attn_mask=seen, scale=scale, enable_gqa=enable_gqa,
        )[0].transpose(0, 1)  # fmt: skip

    batch = texts(packed=True)
    plain, unpadding = pair(AutoModelForCausalLM, name)
    monkeypatch.setattr(attention, "varlen_attn", reference_varlen)
    monkeypatch.setattr(attention, "_has_varlen_kernel", lambda *_: True)
    assert_equal_values_and_gradients(
        plain, unpadding, lambda model: text_logprobs(model, batch), batch.loss_mask[:, 1:]
    )


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
def test_attention_on_a_cpu_computes_in_float32_under_bfloat16(name, monkeypatch):
    """This holds for a frozen bfloat16 model, too; the output is near that of float32."""
    batch, seen = texts(packed=False), []
    plain, unpadding = pair(AutoModelForCausalLM, name)
    wanted = text_logprobs(plain, batch)[batch.loss_mask[:, 1:]].detach()
    torch_attention = attention.scaled_dot_product_attention

    def recording_attention(query, key, value, **settings):
        seen.append({query.dtype, key.dtype, value.dtype})
        return torch_attention(query, key, value, **settings)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", recording_attention)
    for model in (unpadding, deepcopy(unpadding).bfloat16()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = text_logprobs(model, batch)[batch.loss_mask[:, 1:]].detach()
        assert float((found - wanted).abs().mean()) < 0.05 * float(wanted.abs().mean())
    assert seen and all(dtypes == {torch.float32} for dtypes in seen)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["gemma", "gemma3"])
def test_one_varlen_call_equals_the_loop_over_lengths_on_a_gpu(name, monkeypatch):
    batch = texts(packed=False).to("cuda")
    _, unpadding = pair(AutoModelForCausalLM, name)
    unpadding, seen = unpadding.cuda(), []
    for kernel in (True, False):
        if not kernel:
            monkeypatch.setattr(attention, "_has_varlen_kernel", lambda *_: False)
        unpadding.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            values = text_logprobs(unpadding, batch)
        values.sum().backward()
        seen.append([values.detach(), *(p.grad for p in unpadding.parameters())])
    torch.testing.assert_close(*seen, atol=0.1, rtol=0.1)


def test_an_exported_config_does_not_name_the_attention_of_this_program(tmp_path):
    _, unpadding = pair(AutoModelForCausalLM, "llama")
    unpadding.config.save_pretrained(tmp_path)
    assert "rlhf" not in (tmp_path / "config.json").read_text()


def test_unpad_groups_texts_by_length():
    mask = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]]).bool()
    positions = position_ids(mask)
    positions[3, 3] = 0  # a second text in the row
    found = unpad(mask, positions)
    assert found.lengths == (1, 2, 2, 3, 3)
    assert found.cu_seqlens.tolist() == [0, 1, 3, 5, 8, 11]
    assert found.equal_length_runs() == [(1, 1), (2, 2), (2, 3)]
    assert found.index.tolist() == [15, 6, 7, 8, 11, 1, 2, 3, 12, 13, 14]
    assert found.positions.tolist() == [0, 0, 1, 0, 1, 0, 1, 2, 0, 1, 2]
    assert torch.equal(found.slot[found.index], torch.arange(11))
    values = torch.arange(11) + 1.0
    unpacked = found.pad(values, mask.shape)
    assert torch.equal(unpacked.flatten()[found.index], values)
    assert bool((unpacked[~mask] == 0).all())
