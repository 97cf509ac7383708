"""SFT: gradients are normalized over the complete step, and packing does not change them."""

from dataclasses import replace

import pytest
import torch

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Batch, Batching, LossOn
from rlhf_cli.core.microbatches import WHOLE, Share
from rlhf_cli.data.collate import BatchOptions, sft_batches
from rlhf_cli.stages import sft, training
from tests.support.examples import assert_same, demonstrations, gradients, summed
from tests.support.tabular import engine as new_engine
from tests.support.tabular import optim
from tests.support.tiny_models import causal


def gradients_of_sft(
    name: str,
    examples,
    *,
    batching=Batching.grouped,
    microbatch: int | None = 4,
    budget: int | None = None,
    padded=False,
    loss_on=LossOn.response,
):
    engine = new_engine(causal(name, sharpness=3.0), optim(0.1))
    steps = sft_batches(
        examples,
        BatchOptions(
            batch=Batch(size=len(examples), microbatch=microbatch, max_tokens=budget),
            seed=0,
            epoch=0,
            pad_id=0,
            padded=padded,
        ),
        batching=batching,
        loss_on=loss_on,
        max_tokens=32,
    )
    assert len(steps) == 1
    loss = training.token_loss(engine, steps[0]).loss
    return loss, {n: p.grad for n, p in engine.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_sft_gradients_do_not_depend_on_the_microbatch(name):
    examples = demonstrations(12)
    loss, whole = gradients_of_sft(name, examples, microbatch=12)
    for size in (1, 5):
        other_loss, other = gradients_of_sft(name, examples, microbatch=size)
        assert other_loss == pytest.approx(loss, abs=1e-5)
        assert_same(whole, other)


@pytest.mark.parametrize("batching", Batching)
@pytest.mark.parametrize("padded", [False, True])
def test_sft_gradients_do_not_depend_on_the_budget_of_tokens(batching, padded):
    examples = demonstrations(12)
    loss, whole = gradients_of_sft("llama", examples, microbatch=12)
    for microbatch, budget in ((None, 40), (2, 25), (None, 1)):
        other_loss, other = gradients_of_sft(
            "llama", examples, batching=batching, microbatch=microbatch, budget=budget,
            padded=padded,
        )  # fmt: skip
        assert other_loss == pytest.approx(loss, abs=1e-5)
        assert_same(whole, other)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "neox"])
@pytest.mark.parametrize("loss_on", LossOn)
def test_packed_rows_give_the_same_gradients_as_padded_rows(name, loss_on):
    """Texts of a packed row do not attend to one another or predict each other's first tokens."""
    examples = demonstrations(12)
    loss, padded = gradients_of_sft(name, examples, loss_on=loss_on)
    packed_loss, packed = gradients_of_sft(
        name, examples, batching=Batching.packed, microbatch=2, loss_on=loss_on
    )
    assert packed_loss == pytest.approx(loss, abs=1e-5)
    assert_same(padded, packed)


@torch.no_grad()
def test_the_sft_loss_equals_the_chain_rule_over_the_response_with_eos():
    """Reference: each response token from the tokens before it; EOS counts, the prompt does not."""
    examples, model = demonstrations(5), causal("llama", sharpness=3.0)
    total, count = 0.0, 0
    for example in examples:
        for place, supervised in enumerate(example.loss_mask):
            if supervised:
                logits = model(torch.tensor([example.ids[:place]])).logits[0, -1]
                total -= float(logits.log_softmax(0)[example.ids[place]])
                count += 1
    with torch.enable_grad():
        loss, _ = gradients_of_sft("llama", examples)
    assert loss == pytest.approx(total / count, abs=1e-5)
    assert count == sum(sum(e.loss_mask) for e in examples)


def test_training_raises_the_probability_of_eos():
    """After a few steps of SFT, P(EOS | the complete answer) has risen."""
    example = demonstrations(1, seed=3)[0]
    engine = new_engine(causal("llama"), optim(0.01))

    def end_probability():
        with torch.no_grad():
            logits = engine.model(torch.tensor([example.ids[:-1]])).logits[0, -1]
        return float(logits.softmax(0)[1])

    before = end_probability()
    for _ in range(20):
        training.token_loss(engine, step_of([example]))
        engine.step(1.0)
    assert before < 0.1
    assert end_probability() > 0.5


def step_of(examples):
    return sft_batches(
        examples,
        BatchOptions(
            batch=Batch(size=len(examples), microbatch=8, max_tokens=None), seed=0, epoch=0, pad_id=0
        ),
        batching=Batching.grouped, loss_on=LossOn.response, max_tokens=32,
    )[0]  # fmt: skip


@pytest.mark.parametrize("count", [16, 13])
@pytest.mark.parametrize("batching", Batching)
@pytest.mark.parametrize("budget", [None, 20])
def test_gradients_of_eight_processes_sum_to_those_of_one(count, batching, budget):
    """Gradients of the processes add up, and empty microbatches add nothing."""
    examples = demonstrations(count)
    options = BatchOptions(
        batch=Batch(size=16, microbatch=2, max_tokens=budget), seed=0, epoch=0, pad_id=0
    )
    settings = {"batching": batching, "loss_on": LossOn.response, "max_tokens": 32}
    parts, lengths = [], set()
    num_tokens = sum(sum(one.loss_mask) for one in examples)
    for share in [WHOLE, *(Share(rank, 8) for rank in range(8))]:
        engine = new_engine(causal("llama", sharpness=3.0), optim(0.1))
        step = sft_batches(examples, replace(options, share=share), **settings)[0]
        for batch in step:
            loss = training.batch_loss(engine.model, batch, num_tokens)
            engine.backward(loss, last=batch is step[-1])
        parts.append(gradients(engine))
        lengths.add(len(step) if share.size > 1 else 0)
    assert len(lengths - {0}) == 1  # every process runs as many microbatches
    assert_same(parts[0], summed(parts[1:]))


def test_a_loss_that_is_not_finite_takes_no_step():
    engine = new_engine(causal("llama"), optim(0.01))
    with torch.no_grad():
        engine.model.lm_head.weight[3] = float("nan")
    kept = engine.model.model.embed_tokens.weight.detach().clone()
    with pytest.raises(UserError, match="sft/loss is nan"):
        sft.learn(engine, step_of(demonstrations(4)), 1.0)
    assert torch.equal(engine.model.model.embed_tokens.weight, kept)
