"""Reading without padding is reading with it: the same numbers, the same gradients."""

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
    """The same network twice: one that reads padded rows, one that packs them."""
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
    if case == "alike":
        prompt_mask[:], response_mask[:] = True, True
    if case == "nothing said":
        response_mask[2] = False
    return SimpleNamespace(
        prompts=prompts, prompt_mask=prompt_mask, responses=responses, response_mask=response_mask
    )


def texts(*, packed: bool):
    """Rows of two texts and padding, or of one; the second half of each text is supervised."""
    tokens, mask = ragged(4, 12, side="right", seed=3)
    positions = position_ids(mask)
    if packed:
        positions = torch.where(positions >= 2, positions - 2, positions)
    loss_mask = mask & (positions % 3 > 0)
    return SFTBatch(
        tokens=tokens, mask=mask, loss_mask=loss_mask, positions=positions, packed=packed
    )


def assert_alike(plain, packs, look, mask):
    """The same values where mask is True, and the same gradient of every parameter."""
    seen = []
    for model in (plain, packs):
        model.zero_grad()
        values = look(model)
        assert values.dtype == torch.float32
        if values.requires_grad:
            values[mask].sin().sum().backward()
        seen.append(values.detach()[mask])
    torch.testing.assert_close(seen[1], seen[0], atol=2e-5, rtol=2e-5)
    for (name, one), other in zip(plain.named_parameters(), packs.parameters(), strict=True):
        if one.grad is not None or other.grad is not None:
            blank = torch.zeros_like(one)
            wanted, found = (p.grad if p.grad is not None else blank for p in (one, other))
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4, msg=name)


def test_who_packs():
    for name in CONFIGS:
        plain, packs = pair(AutoModelForCausalLM, name)
        assert not reads_unpadded(plain)
        assert reads_unpadded(packs) == (name not in PADDED), name
    eager = deepcopy(CONFIGS["llama"])
    eager._attn_implementation = "eager"
    assert not reads_unpadded(enable_unpadding(SimpleNamespace(config=eager)))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("case", ["ragged", "one token", "alike", "nothing said"])
def test_responses(name, case):
    part = rollout(case)
    plain, packs = pair(AutoModelForCausalLM, name)
    for which in (0, 1):
        assert_alike(
            plain,
            packs,
            lambda model, k=which: response_logprobs(model, ModelInputs(part), temperature=0.7)[k],
            part.response_mask,
        )
    plain, packs = pair(AutoModelForSequenceClassification, name)
    assert_alike(
        plain, packs, lambda model: response_values(model, ModelInputs(part)), part.response_mask
    )


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_scores(name, side):
    tokens, mask = ragged(6, 9, side=side, seed=4)
    mask[0] = torch.arange(9) == (8 if side == "left" else 0)  # a row of one token
    plain, packs = pair(AutoModelForSequenceClassification, name)
    every = torch.ones(6, dtype=torch.bool)
    assert_alike(plain, packs, lambda model: sequence_scores(model, tokens, mask), every)
    assert_alike(plain, packs, lambda model: last_hidden(model, tokens, mask), every)
    assert_alike(plain, packs, lambda model: token_scores(model, tokens, mask), mask)


def completions():
    """Two prompts left padded, answered three times and twice; one answer is the start of another."""
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
def test_equal_beginnings_are_read_once(name):
    """The numbers and gradients are those of reading every row, with fewer tokens read."""
    part = completions()
    tokens = torch.cat([part.prompts, part.responses], dim=1)
    mask = torch.cat([part.prompt_mask, part.response_mask], dim=1)
    plain, packs = pair(AutoModelForCausalLM, name)
    read = []
    packs.get_input_embeddings().register_forward_pre_hook(
        lambda _, given: read.append(given[0].numel())
    )
    assert_alike(
        plain,
        packs,
        lambda model: response_logprobs(model, ModelInputs(part), temperature=0.7)[0],
        part.response_mask,
    )
    prompts = part.prompt_mask[[0, 3]].sum()
    fewest = int(prompts + part.response_mask.sum() - 4)
    assert read == [fewest if reads_unpadded(packs) else len(mask) * int(mask.sum(1).max())]
    plain, packs = pair(AutoModelForSequenceClassification, name)
    every = torch.ones(5, dtype=torch.bool)
    assert_alike(
        plain, packs, lambda model: response_values(model, ModelInputs(part)), part.response_mask
    )
    assert_alike(plain, packs, lambda model: sequence_scores(model, tokens, mask), every)
    assert_alike(plain, packs, lambda model: token_scores(model, tokens, mask), mask)


def test_what_is_shared_is_what_precedes_alike():
    """[1 2 3 | 1 2 4 5 | 9 2 4 | 9 2]: the 1 2 and the 9 2 are read once, the other 2 4 are not."""
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


def test_dropout_differs_from_row_to_row():
    """With dropout, equal beginnings are not equal: every row is read."""
    part = completions()
    _, packs = pair(AutoModelForCausalLM, "llama")
    packs.config.attention_dropout = 0.5
    read = []
    packs.get_input_embeddings().register_forward_pre_hook(
        lambda _, given: read.append(given[0].numel())
    )
    for drops in (True, False):
        response_logprobs(packs.train(drops), ModelInputs(part), temperature=1.0)
    assert read[0] == int(part.prompt_mask.sum() + part.response_mask.sum()) > read[1]


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "opt"])
@pytest.mark.parametrize("packed", [False, True])
def test_texts(name, packed):
    """OPT has no positions that could restart, so its rows hold one text each."""
    batch = texts(packed=packed)
    plain, packs = pair(AutoModelForCausalLM, name)
    assert_alike(plain, packs, lambda model: text_logprobs(model, batch), batch.loss_mask[:, 1:])


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3"])
def test_gradient_checkpointing_recomputes_the_same(name):
    batch = texts(packed=True)
    plain, packs = pair(AutoModelForCausalLM, name)
    packs.train().gradient_checkpointing_enable({"use_reentrant": False})
    assert_alike(plain, packs, lambda model: text_logprobs(model, batch), batch.loss_mask[:, 1:])


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
@torch.no_grad()
def test_a_hole_in_the_mask_is_no_token(name):
    """[5, -, 9 | -, 3] is the text [5, 9 | 3]."""
    _, packs = pair(AutoModelForCausalLM, name)
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
    found = response_logprobs(packs, ModelInputs(holes), temperature=1.0)
    wanted = response_logprobs(packs, ModelInputs(whole), temperature=1.0)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one[:, 1:], other)
        assert float(one[0, 0]) == 0


def test_a_token_with_nothing_before_it_is_refused():
    _, packs = pair(AutoModelForCausalLM, "llama")
    part = rollout("ragged")
    part.prompt_mask[1] = False
    with pytest.raises(ValueError, match="first of its text"):
        response_logprobs(packs, ModelInputs(part), temperature=1.0)


def test_a_batch_without_tokens_still_calls_every_layer():
    """Processes that share a network must all call it; what comes out has no gradient."""
    _, packs = pair(AutoModelForCausalLM, "llama")
    batch = texts(packed=False)
    batch.mask[:], batch.loss_mask[:] = False, False
    called = []
    for module in packs.modules():
        module.register_forward_hook(lambda module, *_: called.append(module))
    text_logprobs(packs, batch).sum().backward()
    assert packs.lm_head in called and packs.model.layers[1].mlp in called
    assert all(float(p.grad.abs().max()) == 0 for p in packs.parameters())


def test_no_logits_of_all_tokens_exist():
    """The widest tensor kept for the backward pass is that of the supervised tokens, or narrower."""
    batch = texts(packed=False)
    _, packs = pair(AutoModelForCausalLM, "llama")
    sizes = []

    def keep(tensor):
        if tensor.shape[-1] == VOCAB:
            sizes.append(tensor.shape[0])
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        text_logprobs(packs, batch)
    assert max(sizes, default=0) <= int(batch.loss_mask.sum()) < int(batch.mask.sum())


@torch.no_grad()
def test_sampling_is_as_before():
    prompts, mask = ragged(5, 6, side="left", seed=1)
    uniforms = torch.rand(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    params = SamplingParams(max_new_tokens=8, temperature=1.0, end_ids=[1], pad_id=0)
    for name in ("llama", "gpt2", "gemma"):
        plain, packs = (
            sample(model, prompts, mask, uniforms, params)
            for model in pair(AutoModelForCausalLM, name)
        )
        assert torch.equal(plain.responses, packs.responses), name


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2"])
def test_one_call_for_all_lengths_is_the_loop(name, monkeypatch):
    """torch's kernel runs on GPUs only; a stand-in with its signature and meaning takes its place."""

    def stand_in(q, k, v, bounds, _, longest, __, *, scale, window_size, enable_gqa):
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
    plain, packs = pair(AutoModelForCausalLM, name)
    monkeypatch.setattr(attention, "varlen_attn", stand_in)
    monkeypatch.setattr(attention, "_has_varlen_kernel", lambda *_: True)
    assert_alike(plain, packs, lambda model: text_logprobs(model, batch), batch.loss_mask[:, 1:])


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
def test_attention_on_a_cpu_is_float32_under_bfloat16(name, monkeypatch):
    """Also of a frozen model whose weights are bfloat16; what comes out is near float32's."""
    batch, seen = texts(packed=False), []
    plain, packs = pair(AutoModelForCausalLM, name)
    wanted = text_logprobs(plain, batch)[batch.loss_mask[:, 1:]].detach()
    torch_attention = attention.scaled_dot_product_attention

    def watched(query, key, value, **settings):
        seen.append({query.dtype, key.dtype, value.dtype})
        return torch_attention(query, key, value, **settings)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", watched)
    for model in (packs, deepcopy(packs).bfloat16()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = text_logprobs(model, batch)[batch.loss_mask[:, 1:]].detach()
        assert float((found - wanted).abs().mean()) < 0.05 * float(wanted.abs().mean())
    assert seen and all(dtypes == {torch.float32} for dtypes in seen)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["gemma", "gemma3"])
def test_one_call_for_all_lengths_is_the_loop_on_a_gpu(name, monkeypatch):
    batch = texts(packed=False).to("cuda")
    _, packs = pair(AutoModelForCausalLM, name)
    packs, seen = packs.cuda(), []
    for kernel in (True, False):
        if not kernel:
            monkeypatch.setattr(attention, "_has_varlen_kernel", lambda *_: False)
        packs.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            values = text_logprobs(packs, batch)
        values.sum().backward()
        seen.append([values.detach(), *(p.grad for p in packs.parameters())])
    torch.testing.assert_close(*seen, atol=0.1, rtol=0.1)


def test_exported_config_does_not_tell(tmp_path):
    _, packs = pair(AutoModelForCausalLM, "llama")
    packs.config.save_pretrained(tmp_path)
    assert "rlhf" not in (tmp_path / "config.json").read_text()


def test_texts_of_one_length_lie_together():
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
