"""Fast decoding equals plain decoding: cache, prepacked weights, order, copies, log-probs."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, GemmaConfig, MistralConfig, Qwen2Config

from rlhf_cli.core.logprobs import entropy
from rlhf_cli.core.randomness import uniforms
from rlhf_cli.models.forward import ModelInputs, response_logprobs
from rlhf_cli.models.generation import cuda_graphs, decoding, kv_cache, onednn_linear, sampling
from rlhf_cli.models.generation.sampling import (
    Samples,
    SamplingParams,
    sample,
    sample_and_score,
    sample_token,
)
from rlhf_cli.models.unpadding.attention import enable_unpadding
from tests.support.tiny_models import CONFIGS, SPECIAL, VOCAB, causal, ragged

SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    **SPECIAL,
}
MORE_CONFIGS = {
    "qwen2": Qwen2Config(num_key_value_heads=2, **SHAPE),
    "gemma": GemmaConfig(num_key_value_heads=1, head_dim=4, **SHAPE),
    "sliding": MistralConfig(num_key_value_heads=2, sliding_window=5, **SHAPE),
}
NAMES = [*CONFIGS, *MORE_CONFIGS]
PARAMS = SamplingParams(max_new_tokens=20, temperature=1.3, end_ids=list(range(1, 12)), pad_id=0)


def network(name: str):
    if name in CONFIGS:
        return causal(name, sharpness=4.0)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MORE_CONFIGS[name], dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    return model


@pytest.fixture(autouse=True)
def pack_every_layer(monkeypatch):
    """Prepack layers of any size, grow caches often, and read prompts in several parts."""
    monkeypatch.setattr(
        onednn_linear, "_threshold", lambda dtype: onednn_linear.Threshold(1, range(2, 99))
    )
    monkeypatch.setattr(kv_cache, "GROWTH_COLUMNS", 2)
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", {"cpu": 20})


def assert_equal_samples(found: Samples, expected: Samples) -> None:
    assert torch.equal(found.mask, expected.mask)
    assert torch.equal(found.responses, expected.responses)
    assert torch.equal(found.finished, expected.finished)
    torch.testing.assert_close(found.logprobs, expected.logprobs, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_greedy_decoding_equals_that_of_transformers(name, padded):
    model = network(name)
    prompts, mask = ragged(8, 6, side="left")
    if not padded:
        prompts, mask = prompts.clamp(min=2), torch.ones_like(mask)
    drawn = uniforms(8, 12, 0)
    ours = sample(model, prompts, mask, drawn, replace(PARAMS, max_new_tokens=12, temperature=0))
    expected = model.generate(
        input_ids=prompts,
        attention_mask=mask.long(),
        do_sample=False,
        max_new_tokens=12,
        eos_token_id=PARAMS.end_ids,
        pad_token_id=0,
    )[:, prompts.shape[1] :]
    assert torch.equal(ours.responses, expected)


@pytest.mark.parametrize("name", NAMES)
def test_sampling_draws_the_same_tokens_as_the_plain_loop(name):
    """Rows finish one by one, so their places in the cache are reused and padding is dropped."""
    model = network(name)
    prompts, mask = ragged(24, 9, side="left", seed=3)
    drawn = uniforms(24, 20, 5)
    plain = sample(model, prompts, mask, drawn, replace(PARAMS, reference=True))
    assert len(plain.mask.sum(1).unique()) > 3
    assert_equal_samples(sample(model, prompts, mask, drawn, PARAMS), plain)


def use_graph_decoder(monkeypatch, record) -> list:
    """Make `sample` use the CUDA-graph decoder with this capture; return the list of decoders."""
    made = []

    def decoder(*inputs, **settings):
        made.append(cuda_graphs.CUDAGraphDecoder(*inputs, capture=record, **settings))
        return made[-1]

    monkeypatch.setattr(sampling, "decoder_class", lambda *_, **__: decoder)
    monkeypatch.setattr(sampling, "CHECK_EVERY", {"cpu": 3})
    monkeypatch.setattr(cuda_graphs, "COLUMN_BLOCK", 4)
    monkeypatch.setattr(cuda_graphs, "MIN_ROWS", 2)
    return made


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_steps_that_can_be_captured_equal_plain_decoding(monkeypatch, name, packed):
    """All but the capture itself runs: fixed addresses, batches of powers of two, rare checks.

    packed: with the attention that models are loaded with. Rows finish while the cache grows.
    """
    model = enable_unpadding(network(name)) if packed else network(name)
    if not cuda_graphs.can_capture(model):
        assert name == "sliding"
        return
    made = use_graph_decoder(monkeypatch, lambda step: step)
    prompts, mask = ragged(11, 9, side="left", seed=3)
    drawn = uniforms(22, 20, 5)
    found = sample(model, prompts, mask, drawn, replace(PARAMS, copies=2))
    monkeypatch.undo()
    assert_equal_samples(
        found, sample(model, prompts, mask, drawn, replace(PARAMS, reference=True, copies=2))
    )
    sizes, columns = (sorted(set(part)) for part in zip(*made[0].steps, strict=True))
    assert sizes[-1] == 32 and len(sizes) > 2 and len(columns) > 2


def test_a_captured_step_reads_tensors_at_fixed_addresses(monkeypatch):
    """A graph is replayed on the same memory, so no tensor that a step reads may be reallocated."""
    model = causal("llama", sharpness=4.0)

    def record(step):
        step()
        places = [(name, x.data_ptr()) for name, x in held(made[0])]

        def repeat():
            assert [(name, x.data_ptr()) for name, x in held(made[0])] == places
            step()

        return repeat

    def held(decoder):
        named = [
            (name, getattr(decoder, name))
            for name in ("tokens", "position_inputs", "column", "visible")
        ]
        return named + [(f"memory {i}", x) for i, kv in enumerate(decoder.memory) for x in kv]

    made = use_graph_decoder(monkeypatch, record)
    prompts, mask = ragged(11, 9, side="left", seed=3)
    drawn = uniforms(11, 20, 5)
    found = sample(model, prompts, mask, drawn, PARAMS)
    monkeypatch.undo()
    assert_equal_samples(
        found, sample(model, prompts, mask, drawn, replace(PARAMS, reference=True))
    )


def test_a_failed_graph_capture_warns_once_and_decoding_continues(monkeypatch):
    class Stream:
        def wait_stream(self, other):
            pass

    def fail(step, side, graph):
        step()
        raise RuntimeError("operation not permitted when stream is capturing")

    for name in ("CUDAGraph", "current_stream", "Stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: Stream())
    for name in ("synchronize", "current_device"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    monkeypatch.setattr(cuda_graphs, "_capture_stream", lambda device: Stream())
    monkeypatch.setattr(cuda_graphs, "_capture", fail)
    monkeypatch.setattr(cuda_graphs, "_refused", [])
    use_graph_decoder(monkeypatch, cuda_graphs.captured)
    model, drawn = causal("llama", sharpness=4.0), uniforms(11, 20, 5)
    prompts, mask = ragged(11, 9, side="left", seed=3)
    with pytest.warns(
        UserWarning, match="without CUDA graphs: operation not permitted"
    ) as warnings:
        found = sample(model, prompts, mask, drawn, PARAMS)
    assert len(warnings) == 1 and len(cuda_graphs._refused) == 1
    monkeypatch.undo()
    assert_equal_samples(
        found, sample(model, prompts, mask, drawn, replace(PARAMS, reference=True))
    )


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotary_positions_that_depend_on_the_length_cannot_be_captured(kind):
    model = causal("llama")
    assert cuda_graphs.can_capture(model)
    model.config.rope_parameters = {"rope_type": kind}
    assert not cuda_graphs.can_capture(model)
    model.config.rope_parameters = {"full": {"rope_type": "default"}, "far": {"rope_type": kind}}
    assert not cuda_graphs.can_capture(model)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_copies_of_a_prompt_sample_as_separate_prompts_do(name):
    model = network(name)
    prompts, mask = ragged(7, 9, side="left", seed=4)
    drawn = uniforms(21, 12, 6)
    params = replace(PARAMS, max_new_tokens=12, temperature=1.0)
    plain = replace(params, reference=True)
    shared = sample(model, prompts, mask, drawn, replace(params, copies=3))
    thrice = (x.repeat_interleave(3, dim=0) for x in (prompts, mask))
    assert_equal_samples(shared, sample(model, *thrice, drawn, plain))
    assert_equal_samples(shared, sample(model, prompts, mask, drawn, replace(plain, copies=3)))


@torch.no_grad()
@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_logprobs_of_sampling_equal_those_of_scoring(name, reference):
    model = network(name)
    prompts, mask = ragged(12, 9, side="left", seed=2)
    drawn = uniforms(12, 12, 6)
    params = replace(PARAMS, max_new_tokens=12, temperature=0.7, reference=reference)
    found = sample(model, prompts, mask, drawn, params)
    part = SimpleNamespace(
        prompts=prompts, prompt_mask=mask, responses=found.responses, response_mask=found.mask
    )
    scored, _ = response_logprobs(model, ModelInputs(part), temperature=0.7)
    assert found.logprobs.dtype is torch.float32
    assert (found.logprobs[~found.mask] == 0).all()
    torch.testing.assert_close(found.logprobs[found.mask], scored[found.mask], atol=3e-4, rtol=1e-4)


def test_sampling_restores_the_model_after_an_error_too():
    """This holds when sampling fails, too; and changed weights are packed again."""
    model, drawn = causal("llama"), uniforms(4, 5, 0)
    prompts, mask = ragged(4, 6, side="left")
    params = replace(PARAMS, max_new_tokens=5, temperature=0)
    before = sample(model, prompts, mask, drawn, params)

    def fail(_):
        assert any("forward" in vars(layer) for layer in model.modules())
        raise InterruptedError

    with pytest.raises(InterruptedError):
        sample(model, prompts, mask, drawn, params, keep_going=fail)
    assert not any("forward" in vars(layer) for layer in model.modules())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-3)
    after = sample(model, prompts, mask, drawn, params)
    assert_equal_samples(
        after, sample(model, prompts, mask, drawn, replace(params, reference=True))
    )
    assert after.responses.shape != before.responses.shape or (
        not torch.equal(after.responses, before.responses)
    )


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_prepacked_linear_layers_equal_plain_ones(name):
    model = causal(name)
    tokens = torch.randint(2, VOCAB, (3, 7))
    plain = model(tokens).logits
    with onednn_linear.prepacked(model):
        packed = model(tokens).logits
        one = model(tokens[:1, :1]).logits
    torch.testing.assert_close(packed, plain)
    torch.testing.assert_close(one, plain[:1, :1])


@torch.no_grad()
@pytest.mark.skipif(
    not onednn_linear._threshold(torch.bfloat16), reason="the processor has no bfloat16"
)
def test_prepacked_linear_layers_follow_autocast():
    model = causal("llama")
    tokens = torch.randint(2, VOCAB, (3, 7))
    with torch.autocast("cpu", torch.bfloat16):
        plain = model(tokens).logits
        with onednn_linear.prepacked(model):
            packed = model(tokens).logits
    assert packed.dtype is plain.dtype is torch.bfloat16
    torch.testing.assert_close(packed, plain, atol=2e-2, rtol=2e-2)


def test_sharded_weights_are_not_prepacked_and_decode_in_lock_step():
    model = causal("llama")
    assert not decoding.in_lock_step(model)
    model.lm_head.weight.data = torch.empty(0)
    assert decoding.in_lock_step(model)
    names = [layer.weight for layer, *_ in onednn_linear._layers(model)]
    assert all(weight.numel() for weight in names)


def test_the_cache_moves_rows_and_exposes_only_written_columns():
    cache = kv_cache.KVCache(num_rows=4, num_columns=9)
    states = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 2, 3, 5)
    cache.begin_prefill(slice(0, 4), 1)
    cache.update(states, -states, 0)
    running = torch.tensor([False, True, False, True])
    places = cache.keep(running)
    assert places.tolist() == [3, 1]
    cache.set_view(slice(0, 2), 2)
    for _ in range(5):
        keys, values = cache.update(states[places, :, :1] + 10, states[places, :, :1], 0)
    assert keys.shape == (2, 2, 7, 5) and cache.get_seq_length() == 7
    assert keys[:, 0, :, 0].tolist() == [[3.0] * 2 + [13.0] * 5, [1.0] * 2 + [11.0] * 5]
    assert values[:, 0, :2, 0].tolist() == [[-3.0] * 2, [-1.0] * 2]


def test_decoder_class_follows_the_device_the_model_and_the_options():
    """CUDA graphs are used on CUDA devices alone, and only when requested."""
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    choose, llama = sampling.decoder_class, causal("llama")
    assert choose(llama, cpu, reference=False, cuda_graphs=True) is decoding.FastDecoder
    assert choose(llama, cuda, reference=False, cuda_graphs=False) is decoding.FastDecoder
    assert choose(llama, cuda, reference=False, cuda_graphs=True) is cuda_graphs.CUDAGraphDecoder
    assert choose(llama, cuda, reference=True, cuda_graphs=True) is decoding.PlainDecoder
    sliding = network("sliding")
    assert choose(sliding, cuda, reference=False, cuda_graphs=True) is decoding.FastDecoder


@pytest.mark.parametrize("width", [7, 64, 130])
def test_sample_and_score_draws_the_same_tokens_as_sample_token(width):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, width, generator=generator) * 3
    logits[:, ::3] = float("-inf")
    drawn = uniforms(4000, 1, 1)[:, 0]
    drawn[:2] = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    tokens, logprobs, entropies = sample_and_score(logits, drawn, temperature=0.8)
    assert torch.equal(tokens, sample_token(logits, drawn, temperature=0.8))
    expected = (logits / 0.8).log_softmax(-1).gather(1, tokens[:, None]).squeeze(1)
    torch.testing.assert_close(logprobs, expected, atol=1e-5, rtol=1e-5)
    expected = entropy(logits[:, None], temperature=0.8).squeeze(1)
    torch.testing.assert_close(entropies, expected, atol=1e-5, rtol=1e-5)
