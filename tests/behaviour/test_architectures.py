"""Every causal type of transformers as a tiny model: supported with its properties, or refused.

Twelve types always run, all of them with `make arch`. The reference is the forward pass of one text alone.
"""

from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import LearningRates, Model
from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.core.logprobs import entropy, token_logprobs
from rlhf_cli.core.randomness import uniforms
from rlhf_cli.models.capabilities import decoder_for, separates_packed_texts
from rlhf_cli.models.export import export
from rlhf_cli.models.forward import (
    ModelInputs,
    accepts,
    response_logprobs,
    response_values,
    sequence_scores,
    text_logprobs,
)
from rlhf_cli.models.generation.sampling import SamplingParams, sample
from rlhf_cli.models.load import load_causal_lm, load_reward_model, load_scalar_model
from rlhf_cli.models.reward_head import HEAD, draw_head, scalar_class, transformers_has_class
from rlhf_cli.runtime.engine import persistent
from tests.support import models_table
from tests.support.architectures import TYPES, tiny_causal_lm

ALWAYS = (
    "bloom",
    "cohere",
    "gemma2",
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "gpt_oss",
    "llama",
    "mamba2",
    "opt",
    "qwen3",
    "qwen3_next",
)
LENGTHS = (1, 12, 5, 9)  # of the prompts: some longer than the window, one of a single token
COPIES, ROOM = 2, 8
TEMPERATURE = 0.7
PRECISION = {"atol": 2e-4, "rtol": 2e-4}
# Decoding with a cache, their layers ignore the time_step_min that complete passes apply.
COARSE_PRECISION = {"atol": 5e-3, "rtol": 5e-3}
COARSE_TYPES = ("nemotron_h", "zamba2")


@pytest.fixture(
    scope="module",
    params=[t if t in ALWAYS else pytest.param(t, marks=pytest.mark.arch) for t in TYPES],
)
def model_type(request):
    return request.param


@pytest.fixture(scope="module")
def model(model_type):
    return tiny_causal_lm(model_type)


@pytest.fixture(scope="module")
def supported_model(model):
    """Return the model if it is not refused."""
    try:
        decoder_for(model)
    except UserError as refusal:
        pytest.skip(str(refusal))
    return model


@pytest.fixture(scope="module")
def folder(supported_model, tmp_path_factory):
    """Return the folder to which a stage exports the model."""
    return written(supported_model, tmp_path_factory.mktemp("exported") / "model")


class Tokenizer:
    """A tokenizer of which only the files matter."""

    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


def written(model, folder):
    weights = ((name, weight.detach()) for name, weight in persistent(model))
    export(model, weights, Tokenizer(), folder, end_ids=[1], pad_id=0)
    return folder


def settings(folder) -> Model:
    return Model(
        path=str(folder),
        revision=None,
        tokenizer=None,
        trust_remote_code=False,
        attention="auto",
        gradient_checkpointing=False,
        lr=LearningRates(sft=0.0, rm=0.0, policy=0.0, value=0.0),
    )


def prompts():
    """Return left-padded prompts: tokens, mask (4, 12)."""
    width = max(LENGTHS)
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(3, 40, (len(LENGTHS), width), generator=generator)
    mask = torch.arange(width) >= width - torch.tensor(LENGTHS)[:, None]
    return tokens.masked_fill(~mask, 0), mask


def rollout(model):
    """Return prompts with sampled responses of several lengths, and the samples."""
    tokens, mask = prompts()
    found = sample(
        model,
        tokens,
        mask,
        uniforms(len(tokens) * COPIES, ROOM, 0),
        SamplingParams(
            max_new_tokens=ROOM,
            temperature=TEMPERATURE,
            end_ids=list(range(1, 8)),
            pad_id=0,
            copies=COPIES,
        ),
    )
    batch = SimpleNamespace(
        prompts=tokens.repeat_interleave(COPIES, dim=0),
        prompt_mask=mask.repeat_interleave(COPIES, dim=0),
        responses=found.responses,
        response_mask=found.mask,
    )
    return batch, found


def texts_of(batch):
    """Yield each row without padding: its tokens, and the number of prompt tokens."""
    for prompt, real, response, is_response in zip(
        batch.prompts, batch.prompt_mask, batch.responses, batch.response_mask, strict=True
    ):
        yield torch.cat([prompt[real], response[is_response]]), int(real.sum())


def alone(model, text):
    """Return the logits of one text alone, without padding. (T,) -> (T, V)"""
    return model(input_ids=text[None], use_cache=False).logits[0]


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(model, values, expected):
    """Assert equal gradients of both, relative to the largest gradient of each weight."""
    seen = []
    for value in (values, expected):
        model.zero_grad()
        value.sin().sum().backward()
        seen.append(gradients(model))
    assert seen[0].keys() == seen[1].keys()
    for name, wanted in seen[1].items():
        scale = wanted.abs().max() + 1e-3
        torch.testing.assert_close(
            seen[0][name] / scale, wanted / scale, atol=2e-3, rtol=0, msg=name
        )


def test_sampling_scoring_and_forward_passes_give_the_same_logprobs(supported_model):
    batch, found = rollout(supported_model)
    assert len(set(found.mask.sum(1).tolist())) > 1
    scored = response_logprobs(supported_model, ModelInputs(batch), temperature=TEMPERATURE)
    expected = [
        (alone(supported_model, text)[None, num - 1 : -1], text[None, num:])
        for text, num in texts_of(batch)
    ]
    logprobs = torch.cat([token_logprobs(*one, temperature=TEMPERATURE)[0] for one in expected])
    entropies = torch.cat([entropy(one[0], temperature=TEMPERATURE)[0] for one in expected])
    sampled = COARSE_PRECISION if supported_model.config.model_type in COARSE_TYPES else PRECISION
    for got, wanted, precision in (
        (found.logprobs, logprobs, sampled),
        (scored[0], logprobs, PRECISION),
        (found.entropies, entropies, sampled),
        (scored[1], entropies, PRECISION),
    ):
        torch.testing.assert_close(got[found.mask].detach(), wanted.detach(), **precision)
    assert_same_gradients(supported_model, scored[0][found.mask], logprobs)


def two_texts():
    """Return (a packed SFTBatch of rows of two texts, the place of each text)."""
    places = [(0, slice(0, 9)), (0, slice(9, 16)), (1, slice(0, 4)), (1, slice(4, 13))]
    tokens = torch.randint(3, 40, (2, 16), generator=torch.Generator().manual_seed(4))
    positions, mask = torch.zeros(2, 16, dtype=torch.long), torch.zeros(2, 16, dtype=torch.bool)
    for row, part in places:
        positions[row, part] = torch.arange(part.stop - part.start)
        mask[row, part] = True
    positions[1, 13:] = torch.arange(3)  # the padding is a text of its own, as collate packs it
    batch = SFTBatch(
        tokens=tokens.masked_fill(~mask, 0),
        mask=mask,
        loss_mask=mask & (positions > 1),
        positions=positions,
        packed=True,
    )
    return batch, places


def test_texts_of_a_packed_row_are_separate_or_packing_is_refused(supported_model):
    batch, places = two_texts()
    if not separates_packed_texts(supported_model):
        assert not accepts(supported_model, "position_ids") or leak(supported_model, batch) > 1e-3
        return
    found = text_logprobs(supported_model, batch)[batch.loss_mask[:, 1:]]
    expected = []
    for row, part in places:
        text = batch.tokens[row, part][None]
        logprobs = token_logprobs(
            alone(supported_model, text[0])[None, :-1], text[:, 1:], temperature=1.0
        )
        expected.append(logprobs[0, 1:])
    torch.testing.assert_close(found.detach(), torch.cat(expected).detach(), **PRECISION)
    assert_same_gradients(supported_model, found, torch.cat(expected))


@torch.no_grad()
def leak(model, batch):
    """Return how much the second text of the first row depends on the first text."""
    logits = model(input_ids=batch.tokens[:1], position_ids=batch.positions[:1]).logits[0]
    return (logits[9:] - alone(model, batch.tokens[0, 9:])).abs().max()


@torch.no_grad()
def test_an_exported_model_gives_the_same_logits_in_transformers(supported_model, folder):
    again, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    text = torch.arange(3, 17)
    # transformers empties the embedding of the padding token whenever it loads Youtu
    kept = slice(supported_model.config.model_type == "youtu", None)
    expected = alone(supported_model, text)[:, kept]
    ours = load_causal_lm(settings(folder))
    for loaded in (again.eval(), ours.eval()):
        torch.testing.assert_close(alone(loaded, text)[:, kept], expected, **PRECISION)


@torch.no_grad()
def test_training_mode_without_dropout_equals_evaluation_mode(supported_model, folder):
    """Gradients are taken in training mode, and must be those of the sampled model."""
    ours, text = load_causal_lm(settings(folder), dropout=0.0), torch.arange(3, 17)
    torch.manual_seed(1)
    torch.testing.assert_close(alone(ours.train(), text), alone(ours.eval(), text), **PRECISION)


def scalar_model(folder, supported_model):
    try:
        scalar_class(supported_model.config)
    except UserError as refusal:
        pytest.skip(str(refusal))
    model = load_scalar_model(settings(folder), str(folder), new_head=True).eval()
    weight = model.get_parameter(HEAD)
    with torch.no_grad():
        weight.copy_(draw_head(weight.shape, seed=3))
    model.config.pad_token_id = 0
    return model


def test_scores_and_values_equal_those_of_each_text_alone(supported_model, folder, tmp_path):
    model = scalar_model(folder, supported_model)
    batch, found = rollout(supported_model)
    body = getattr(model, model.base_model_prefix)
    states = [body(input_ids=text[None], use_cache=False)[0][0] for text, _ in texts_of(batch)]
    numbers = [model.score(state).squeeze(1) for state in states]
    prompt_sizes = [num for _, num in texts_of(batch)]
    values = torch.cat([x[num - 1 : -1] for x, num in zip(numbers, prompt_sizes, strict=True)])
    inputs = ModelInputs(batch)
    got = response_values(model, inputs)[found.mask]
    torch.testing.assert_close(got.detach(), values.detach(), **PRECISION)
    assert_same_gradients(model, got, values)
    scores = sequence_scores(model, inputs.tokens, inputs.mask).detach()
    torch.testing.assert_close(scores, torch.stack([x[-1] for x in numbers]).detach(), **PRECISION)
    again = loaded_reward_model(written(model, tmp_path / "reward"), model)
    text = torch.arange(3, 17)[None]
    with torch.no_grad():
        plain = again(input_ids=text, use_cache=False).logits[0]
    score = sequence_scores(model, text, torch.ones_like(text, dtype=torch.bool)).detach()
    torch.testing.assert_close(plain, score, **PRECISION)


def loaded_reward_model(folder, model):
    """Load it by transformers where it has a class, else by load_reward_model."""
    if not transformers_has_class(model.config):
        return load_reward_model(folder)
    again, report = AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not report["missing_keys"]
    return again.eval()


@torch.no_grad()
def test_a_model_type_is_refused_exactly_when_it_reads_later_tokens(model):
    """A refused model depends on later tokens or later padding, or its forward pass fails."""
    try:
        decoder_for(model)
    except UserError:
        assert not reads_forwards(model)
    else:
        assert reads_forwards(model)


def test_the_table_of_models_in_the_docs_is_current(model_type):
    page = models_table.written()
    if f"transformers {transformers.__version__}:" not in page:
        pytest.skip("the table was made with another version of transformers: make arch")
    assert models_table.row(model_type) in page


def reads_forwards(model) -> bool:
    """Return whether it can be trained and no text depends on later tokens."""
    text = torch.arange(3, 17)
    mask = (torch.arange(14) < 6).long()[None]
    try:
        expected = alone(model, text[:6])
        whole = alone(model, text)[:6]
        padded = model(
            input_ids=(text * mask[0])[None], attention_mask=mask, use_cache=False
        ).logits[0, :6]
        model.train()
        alone(model, text)
    except Exception:
        return False
    finally:
        model.eval()
    return all(
        torch.allclose(x, expected, atol=1e-3 * float(expected.std())) for x in (whole, padded)
    )
