"""Training code that SFT and the reward model share."""

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Batch, Batching, LossOn
from rlhf_cli.core.microbatches import Share
from rlhf_cli.data.collate import BatchOptions, preference_batches, sft_batches
from rlhf_cli.data.encode import EncodedDemonstration
from rlhf_cli.stages.training import require_finite_loss, work_on_comparisons, work_on_texts
from tests.support.examples import comparisons
from tests.support.tabular import engine, optim
from tests.support.tiny_models import causal, scalar


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused(loss):
    with pytest.raises(UserError, match=r"lower sft\.optim\.lr"):
        require_finite_loss(loss, "sft")


def test_blank_microbatches_are_no_work():
    """They keep a process busy that has no rows left in a step; nothing is learned from them."""
    policy = engine(causal("llama"), optim(0.1))
    texts = [
        EncodedDemonstration(ids=[5, 6, 7], loss_mask=[False, True, True], record=None)
        for _ in range(3)
    ]
    share = Share(rank=1, size=2)
    options = BatchOptions(
        batch=Batch(size=3, microbatch=1, max_tokens=None), seed=0, epoch=0, pad_id=0, share=share
    )
    (step,) = sft_batches(
        texts, options, batching=Batching.grouped, loss_on=LossOn.response, max_tokens=9
    )
    assert len(step) == 2 and work_on_texts(policy, step)["tokens"] == 3
    reward = engine(scalar("llama"), optim(0.1))
    (step,) = preference_batches(comparisons(3), options)
    known = [batch for batch in step if batch.num_prompts]
    assert len(known) < len(step)
    assert work_on_comparisons(reward, step)["tokens"] == sum(int(b.mask.sum()) for b in known)
    assert work_on_comparisons(reward, step[len(known) :])["tokens"] == 0
