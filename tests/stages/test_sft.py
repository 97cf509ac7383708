"""SFT and the reward model: gradients that know the whole step, packing that changes nothing."""

import random

import pytest
import torch

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import RM, Batch, Batching, LossOn, Schedule, ScheduleKind, Ties
from rlhf_cli.core.sharing import WHOLE, Share
from rlhf_cli.data.collate import preference_batches, sft_batches
from rlhf_cli.data.encode import EncodedComparison, EncodedDemonstration
from rlhf_cli.data.records import Comparison, Demonstration, Message, Origin
from rlhf_cli.models.forward import sequence_scores
from rlhf_cli.stages import rm, sft, training
from rlhf_cli.stages.training import require_finite_loss
from tests.support.tabular import engine as new_engine
from tests.support.tabular import optim
from tests.support.tiny_models import VOCAB, causal, scalar

WHERE = Origin("made in a test", 0)


def demonstrations(count: int, seed: int = 0) -> list[EncodedDemonstration]:
    draw, found = random.Random(seed), []
    record = Demonstration((Message("user", "x"), Message("assistant", "y")), WHERE)
    for _ in range(count):
        prompt, response = draw.randint(1, 6), draw.randint(1, 9)
        ids = [draw.randrange(2, VOCAB) for _ in range(prompt + response)] + [1]
        mask = [False] * prompt + [True] * (response + 1)
        found.append(EncodedDemonstration(ids=ids, loss_mask=mask, record=record))
    return found


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
        batch=Batch(size=len(examples), microbatch=microbatch, max_tokens=budget),
        batching=batching,
        loss_on=loss_on,
        seed=0,
        epoch=0,
        max_tokens=32,
        pad_id=0,
        padded=padded,
    )
    assert len(steps) == 1
    loss = training.token_loss(engine, steps[0]).loss
    return loss, {n: p.grad for n, p in engine.model.named_parameters() if p.grad is not None}


def assert_same(one: dict, other: dict):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.allclose(one[name], other[name], atol=2e-6, rtol=1e-4), name


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
def test_packed_rows_give_the_gradients_of_padded_ones(name, loss_on):
    """No text of a packed row sees another one, and none predicts the next one's first token."""
    examples = demonstrations(12)
    loss, padded = gradients_of_sft(name, examples, loss_on=loss_on)
    packed_loss, packed = gradients_of_sft(
        name, examples, batching=Batching.packed, microbatch=2, loss_on=loss_on
    )
    assert packed_loss == pytest.approx(loss, abs=1e-5)
    assert_same(padded, packed)


@torch.no_grad()
def test_the_sft_loss_is_the_chain_rule_over_the_response_and_its_end():
    """Twin: each response token alone, from the tokens before it; prompts do not count, EOS does."""
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


def test_the_end_token_is_learned():
    """After a few steps of SFT, P(EOS | the whole answer) has risen."""
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
        examples, batch=Batch(size=len(examples), microbatch=8, max_tokens=None),
        batching=Batching.grouped, loss_on=LossOn.response, seed=0, epoch=0, max_tokens=32, pad_id=0,
    )[0]  # fmt: skip


def comparisons(count: int, seed: int = 0) -> list[EncodedComparison]:
    draw, found = random.Random(seed), []
    for _ in range(count):
        num = draw.randint(2, 5)
        prompt = [draw.randrange(2, VOCAB) for _ in range(draw.randint(1, 5))]
        responses = [
            [draw.randrange(2, VOCAB) for _ in range(draw.randint(1, 6))] + [1] for _ in range(num)
        ]
        better = tuple((i, j) for i in range(num) for j in range(i + 1, num))
        record = Comparison((Message("user", "x"),), ("y",) * num, better, (), WHERE)
        found.append(
            EncodedComparison(
                prompt_ids=prompt,
                response_ids=responses,
                better=better[1:],
                ties=better[:1],
                record=record,
            )
        )
    return found


def config(**changes) -> RM:
    values = {
        "epochs": 1,
        "max_steps": None,
        "batch": Batch(size=10, microbatch=10, max_tokens=None),
        "ties": Ties.drop,
        "tie_param": 1.5,
        "margin": 0.0,
        "label_smoothing": 0.0,
        "center_coef": 0.0,
        "dropout": 0.0,
        "optim": optim(0.01),
        "schedule": Schedule(kind=ScheduleKind.constant, warmup=0.0, final=1.0),
    }
    return RM(**values | changes)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("ties", Ties)
def test_rm_gradients_do_not_depend_on_the_microbatch(name, ties):
    gradients = []
    for size, budget in ((1, None), (7, None), (100, None), (None, 50), (9, 30)):
        engine = new_engine(scalar(name, sharpness=2.0), optim(0.1))
        cfg = config(ties=ties)
        steps = preference_batches(
            comparisons(8),
            batch=Batch(size=8, microbatch=size, max_tokens=budget),
            seed=0,
            epoch=0,
            pad_id=0,
        )
        assert len(steps) == 1
        for batch in steps[0]:
            scores = sequence_scores(engine.model, batch.tokens, batch.mask)
            engine.backward(rm.pair_loss(scores, batch, cfg, 8), last=True)
        gradients.append(
            {n: p.grad for n, p in engine.model.named_parameters() if p.grad is not None}
        )
    for other in gradients[1:]:
        assert_same(gradients[0], other)


def summed(parts: list[dict]) -> dict:
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def gradients(engine) -> dict:
    return {n: p.grad for n, p in engine.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("count", [16, 13])
@pytest.mark.parametrize("batching", Batching)
@pytest.mark.parametrize("budget", [None, 20])
def test_eight_processes_learn_what_one_with_eight_microbatches_learns(count, batching, budget):
    """8 x 1 = 1 x 8: the processes' gradients add up, blank microbatches add nothing."""
    examples = demonstrations(count)
    settings = {
        "batch": Batch(size=16, microbatch=2, max_tokens=budget), "batching": batching,
        "loss_on": LossOn.response, "seed": 0, "epoch": 0, "max_tokens": 32, "pad_id": 0,
    }  # fmt: skip
    parts, lengths = [], set()
    num_tokens = sum(sum(one.loss_mask) for one in examples)
    for share in [WHOLE, *(Share(rank, 8) for rank in range(8))]:
        engine = new_engine(causal("llama", sharpness=3.0), optim(0.1))
        step = sft_batches(examples, **settings, share=share)[0]
        for batch in step:
            loss = training.batch_loss(engine.model, batch, num_tokens)
            engine.backward(loss, last=batch is step[-1])
        parts.append(gradients(engine))
        lengths.add(len(step) if share.size > 1 else 0)
    assert len(lengths - {0}) == 1  # every process runs as many microbatches
    assert_same(parts[0], summed(parts[1:]))


@pytest.mark.parametrize("budget", [None, 40])
def test_eight_processes_learn_one_step_of_comparisons(budget):
    examples, parts, lengths = comparisons(11), [], set()
    batch = Batch(size=11, microbatch=9, max_tokens=budget)
    for share in [WHOLE, *(Share(rank, 8) for rank in range(8))]:
        engine = new_engine(scalar("llama", sharpness=2.0), optim(0.1))
        step = preference_batches(
            examples, batch=batch, seed=0, epoch=0, pad_id=0, share=share
        )[0]  # fmt: skip
        for one in step:
            scores = sequence_scores(engine.model, one.tokens, one.mask)
            engine.backward(rm.pair_loss(scores, one, config(), 11), last=True)
        parts.append(gradients(engine))
        lengths.add(len(step) if share.size > 1 else 0)
    assert len(lengths - {0}) == 1
    assert_same(parts[0], summed(parts[1:]))


def test_every_completion_is_forwarded_once():
    """K forwards a prompt, not K(K-1): the rows of a step are its completions."""
    examples = comparisons(8)
    steps = preference_batches(
        examples, batch=Batch(size=8, microbatch=9, max_tokens=None), seed=0, epoch=0, pad_id=0
    )
    rows = sum(len(batch.tokens) for batch in steps[0])
    assert rows == sum(len(one.response_ids) for one in examples)
    pairs = sum(len(batch.pairs) for batch in steps[0])
    assert pairs == sum(len(one.better) + len(one.ties) for one in examples) > rows


def test_the_reward_model_learns_an_order():
    """Longer is better here; a few dozen steps must find it out, on prompts not seen before too."""

    def by_length(count, seed):
        found = comparisons(count, seed)
        for one in found:
            ranked = [
                (i, j) for i in range(len(one.response_ids)) for j in range(len(one.response_ids))
            ]
            length = [len(ids) for ids in one.response_ids]
            one.better = tuple((i, j) for i, j in ranked if length[i] > length[j])
            one.ties = ()
        return [one for one in found if one.better]

    engine = new_engine(scalar("llama"), optim(0.01))
    cfg, train = config(), by_length(200, seed=0)
    for epoch in range(4):
        for step in preference_batches(
            train,
            batch=Batch(size=16, microbatch=100, max_tokens=None),
            seed=0,
            epoch=epoch,
            pad_id=0,
        ):
            rm.learn(engine, step, cfg, 1.0)
    fresh = preference_batches(
        by_length(60, seed=9),
        batch=Batch(size=60, microbatch=999, max_tokens=None),
        seed=0,
        epoch=0,
        pad_id=0,
    )
    with torch.no_grad():
        hits, pairs = rm.strict_hits(
            sequence_scores(engine.model, fresh[0][0].tokens, fresh[0][0].mask), fresh[0][0]
        )
    assert hits / pairs > 0.9


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_stage(loss):
    with pytest.raises(UserError, match=r"lower sft\.optim\.lr"):
        require_finite_loss(loss, "sft")


def test_a_broken_model_does_not_take_a_step():
    engine = new_engine(causal("llama"), optim(0.01))
    with torch.no_grad():
        engine.model.lm_head.weight[3] = float("nan")
    kept = engine.model.model.embed_tokens.weight.detach().clone()
    with pytest.raises(UserError, match="sft/loss is nan"):
        sft.learn(engine, step_of(demonstrations(4)), 1.0)
    assert torch.equal(engine.model.model.embed_tokens.weight, kept)
