"""The reward model: gradients, batches, and a ranking that it learns."""

import pytest
import torch

from rlhf_cli.config.schema import Batch, Ties
from rlhf_cli.core.microbatches import WHOLE, Share
from rlhf_cli.data.collate import BatchOptions, preference_batches
from rlhf_cli.models.forward import sequence_scores
from rlhf_cli.stages import rm
from tests.support.examples import assert_same, comparisons, gradients, rm_config, summed
from tests.support.tabular import engine as new_engine
from tests.support.tabular import optim
from tests.support.tiny_models import scalar


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("ties", Ties)
def test_rm_gradients_do_not_depend_on_the_microbatch(name, ties):
    gradients = []
    for size, budget in ((1, None), (7, None), (100, None), (None, 50), (9, 30)):
        engine = new_engine(scalar(name, sharpness=2.0), optim(0.1))
        cfg = rm_config(ties=ties)
        steps = preference_batches(
            comparisons(8),
            BatchOptions(
                batch=Batch(size=8, microbatch=size, max_tokens=budget), seed=0, epoch=0, pad_id=0
            ),
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


@pytest.mark.parametrize("budget", [None, 40])
def test_gradients_of_eight_processes_sum_to_those_of_one(budget):
    examples, parts, lengths = comparisons(11), [], set()
    batch = Batch(size=11, microbatch=9, max_tokens=budget)
    for share in [WHOLE, *(Share(rank, 8) for rank in range(8))]:
        engine = new_engine(scalar("llama", sharpness=2.0), optim(0.1))
        step = preference_batches(
            examples, BatchOptions(batch=batch, seed=0, epoch=0, pad_id=0, share=share)
        )[0]  # fmt: skip
        for one in step:
            scores = sequence_scores(engine.model, one.tokens, one.mask)
            engine.backward(rm.pair_loss(scores, one, rm_config(), 11), last=True)
        parts.append(gradients(engine))
        lengths.add(len(step) if share.size > 1 else 0)
    assert len(lengths - {0}) == 1
    assert_same(parts[0], summed(parts[1:]))


def test_every_completion_is_forwarded_once():
    """A prompt of K completions takes K rows, not K(K-1)."""
    examples = comparisons(8)
    steps = preference_batches(
        examples,
        BatchOptions(batch=Batch(size=8, microbatch=9, max_tokens=None), seed=0, epoch=0, pad_id=0),
    )
    rows = sum(len(batch.tokens) for batch in steps[0])
    assert rows == sum(len(one.response_ids) for one in examples)
    pairs = sum(len(batch.pairs) for batch in steps[0])
    assert pairs == sum(len(one.better) + len(one.ties) for one in examples) > rows


def test_the_reward_model_learns_to_prefer_longer_responses():
    """A few dozen steps suffice, and the accuracy is measured on unseen prompts."""

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
    cfg, train = rm_config(), by_length(200, seed=0)
    for epoch in range(4):
        for step in preference_batches(
            train,
            BatchOptions(
                batch=Batch(size=16, microbatch=100, max_tokens=None), seed=0, epoch=epoch, pad_id=0
            ),
        ):
            rm.learn(engine, step, cfg, 1.0)
    fresh = preference_batches(
        by_length(60, seed=9),
        BatchOptions(
            batch=Batch(size=60, microbatch=999, max_tokens=None), seed=0, epoch=0, pad_id=0
        ),
    )
    with torch.no_grad():
        hits, pairs = rm.strict_hits(
            sequence_scores(engine.model, fresh[0][0].tokens, fresh[0][0].mask), fresh[0][0]
        )
    assert hits / pairs > 0.9
