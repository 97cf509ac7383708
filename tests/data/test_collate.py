"""Batches hold every text once, with any padding, grouping or packing."""

import math
from collections import Counter
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cli.config.schema import Batch, Batching, LossOn
from rlhf_cli.core.microbatches import Share
from rlhf_cli.core.preferences import PreferenceLoss
from rlhf_cli.data.collate import (
    BatchOptions,
    pad_left,
    pad_right,
    preference_batch,
    preference_batches,
    prompt_batches,
    sft_batches,
)
from rlhf_cli.data.encode import EncodedComparison, EncodedDemonstration, EncodedPrompt
from rlhf_cli.data.order import grouped, prompt_order, shuffled

PAD = 0


def demonstrations(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 40, (num,), generator=generator).tolist()
    return [
        EncodedDemonstration(
            ids=[1 + (i * 50 + t) % 997 for t in range(length)],
            loss_mask=[t >= length // 2 for t in range(length)],
            record=None,
        )
        for i, length in enumerate(lengths)
    ]


def batches_of(
    examples,
    batching=Batching.grouped,
    loss_on=LossOn.response,
    epoch=0,
    size=8,
    rows=3,
    budget=None,
    padded=False,
    seed=1,
):
    return sft_batches(
        examples,
        BatchOptions(
            batch=Batch(size=size, microbatch=rows, max_tokens=budget),
            seed=seed,
            epoch=epoch,
            pad_id=PAD,
            padded=padded,
        ),
        batching=batching,
        loss_on=loss_on,
        max_tokens=64,
    )


def texts_in(batch):
    """Return (ids, supervised ids) of every text of a batch, split where positions restart."""
    found = []
    for row in range(batch.tokens.shape[0]):
        real = int(batch.mask[row].sum())
        starts = [t for t in range(real) if batch.positions[row, t] == 0] + [real]
        for start, stop in pairwise(starts):
            ids = batch.tokens[row, start:stop]
            learned = ids[batch.loss_mask[row, start:stop]]
            found.append((tuple(ids.tolist()), tuple(learned.tolist())))
    return found


def expected(examples, *, everything=False):
    return Counter(
        (tuple(e.ids), tuple(e.ids[1:] if everything else e.ids[len(e.ids) // 2 :]))
        for e in examples
    )


def test_pad_left_and_pad_right_give_tokens_and_masks():
    tokens, mask = pad_left([[1, 2, 3], [4]], PAD)
    assert tokens.tolist() == [[1, 2, 3], [0, 0, 4]]
    assert mask.tolist() == [[True] * 3, [False, False, True]]
    tokens, mask = pad_right([[1, 2, 3], [4]], PAD)
    assert tokens.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert mask.tolist() == [[True] * 3, [True, False, False]]
    assert mask.dtype == torch.bool


@pytest.mark.parametrize("batching", Batching)
@pytest.mark.parametrize("loss_on", LossOn)
def test_an_epoch_holds_every_demonstration_once_with_its_own_loss_mask(batching, loss_on):
    examples = demonstrations(53)
    steps = batches_of(examples, batching, loss_on)
    found = Counter(text for step in steps for batch in step for text in texts_in(batch))
    assert found == expected(examples, everything=loss_on is LossOn.all)


@pytest.mark.parametrize("batching", Batching)
def test_a_step_holds_batch_size_demonstrations_in_microbatches_of_limited_rows(batching):
    steps = batches_of(demonstrations(53), batching)
    sizes = [sum(len(texts_in(batch)) for batch in step) for step in steps]
    assert sizes == [8] * 6 + [5]
    assert all(batch.tokens.shape[0] <= 3 for step in steps for batch in step)
    assert all(batch.packed is (batching is Batching.packed) for step in steps for batch in step)


@pytest.mark.parametrize("batching", Batching)
@pytest.mark.parametrize("padded", [False, True])
def test_a_budget_of_tokens_is_respected_and_loses_no_text(batching, padded):
    """Pads count where the network reads them, and packed rows respect the budget, too."""
    examples = demonstrations(53)
    for budget in (100, 50):
        steps = batches_of(examples, batching, size=16, rows=None, budget=budget, padded=padded)
        found = Counter(text for step in steps for batch in step for text in texts_in(batch))
        assert found == expected(examples)
        for batch in (batch for step in steps for batch in step):
            read = batch.mask.numel() if padded else int(batch.mask.sum())
            assert read <= budget


def test_a_budget_of_tokens_gives_fewer_microbatches_than_a_limit_of_rows():
    examples = demonstrations(64)
    by_rows = batches_of(examples, size=32, rows=3)
    most = max(int(batch.mask.sum()) for step in by_rows for batch in step)
    by_tokens = batches_of(examples, size=32, rows=None, budget=most)
    assert sum(map(len, by_tokens)) < 0.8 * sum(map(len, by_rows))


@pytest.mark.parametrize("batching", Batching)
def test_pads_hold_the_pad_token_and_are_not_supervised(batching):
    for step in batches_of(demonstrations(20), batching):
        for batch in step:
            assert (batch.tokens[~batch.mask] == PAD).all()
            assert not batch.loss_mask[~batch.mask].any()
            assert batch.mask[:, 0].all()


def test_packed_rows_respect_their_capacity_and_are_fewer():
    examples = demonstrations(64)
    packed = [b for step in batches_of(examples, Batching.packed, size=32) for b in step]
    assert max(b.tokens.shape[1] for b in packed) <= 64
    shuffled = [b for step in batches_of(examples, Batching.packed, size=1) for b in step]
    rows = sum(b.tokens.shape[0] for b in packed)
    assert rows < 0.6 * sum(b.tokens.shape[0] for b in shuffled)


def test_positions_restart_at_every_packed_text_and_never_elsewhere():
    steps = batches_of(demonstrations(40), Batching.packed)
    batch = next(b for step in steps for b in step if len(texts_in(b)) > b.tokens.shape[0])
    for row in batch.positions.tolist():
        assert all(b in (0, a + 1) for a, b in pairwise(row))


def test_the_order_depends_on_the_seed_and_the_epoch_alone():
    examples = demonstrations(30)

    def order(epoch, seed=1):
        steps = batches_of(examples, epoch=epoch, seed=seed)
        return [text for step in steps for b in step for text in texts_in(b)]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != order(0, seed=2)
    assert Counter(order(0)) == Counter(order(1)) == Counter(order(0, seed=2))


def test_shuffled_gives_another_order_per_seed_and_epoch():
    orders = [shuffled(20, seed=seed, epoch=epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(20)) for order in orders)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 99), min_size=1, max_size=200), st.integers(1, 16))
def test_groups_are_full_except_the_last_and_contain_each_index_once(lengths, size):
    groups = grouped(lengths, size, seed=2, epoch=3)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(len(group) == size for group in groups[:-1])


def test_grouping_by_length_saves_padding():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 500, (512,), generator=generator).tolist()

    def padding(groups):
        return sum(max(lengths[i] for i in g) - lengths[j] for g in groups for j in g)

    ordered = [list(range(i, i + 16)) for i in range(0, 512, 16)]
    assert padding(grouped(lengths, 16, seed=0, epoch=0)) < 0.1 * padding(ordered)


def comparisons(num):
    return [
        EncodedComparison(
            prompt_ids=[1000 + i] * (1 + i % 5),
            response_ids=[[10 * i + k + 1] * (k + 1) for k in range(2 + i % 4)],
            better=tuple(
                (j, k) for j in range(2 + i % 4) for k in range(j + 1, 2 + i % 4) if k > 1
            ),
            ties=((0, 1),),
            record=None,
        )
        for i in range(num)
    ]


def test_all_pairs_of_a_prompt_are_in_one_microbatch_with_their_completions():
    examples = comparisons(23)
    steps = preference_batches(
        examples,
        BatchOptions(
            batch=Batch(size=6, microbatch=7, max_tokens=None), seed=1, epoch=0, pad_id=PAD
        ),
    )
    assert [sum(b.num_prompts for b in step) for step in steps] == [6, 6, 6, 5]
    seen = Counter()
    for batch in (b for step in steps for b in step):
        rows = [
            tuple(row[mask].tolist()) for row, mask in zip(batch.tokens, batch.mask, strict=True)
        ]
        for (winner, loser), target, weight in zip(
            batch.pairs.tolist(), batch.targets.tolist(), batch.weights.tolist(), strict=True
        ):
            assert batch.prompt_of[winner] == batch.prompt_of[loser]
            prompt = batch.prompt_of[batch.pairs[:, 0]] == batch.prompt_of[winner]
            assert weight == pytest.approx(1 / int(prompt.sum()))
            seen[rows[winner], rows[loser], target] += 1
        assert batch.lengths.tolist() == [len([t for t in row if t < 1000]) for row in rows]
        assert batch.tokens.shape[0] <= 7 or batch.num_prompts == 1
    wanted = Counter()
    for example in examples:
        rows = [tuple(ids) for ids in example.sequences()]
        for pairs, target in ((example.better, 1.0), (example.ties, 0.5)):
            wanted.update((rows[w], rows[b], target) for w, b in pairs)
    assert seen == wanted


def test_ranks_without_remaining_prompts_get_empty_microbatches():
    """Three processes share four prompts, one per microbatch; the totals equal those of one."""
    examples, counted = comparisons(4), []
    for rank in range(3):
        ((first, second),) = preference_batches(
            examples, BatchOptions(batch=Batch(size=4, microbatch=1, max_tokens=None), seed=1, epoch=0,
            pad_id=PAD, share=Share(rank, 3))
        )  # fmt: skip
        counted += [(b.num_prompts, len(b.pairs), len(b.weights)) for b in (first, second)]
    wanted = [(1, len(e.better) + len(e.ties), len(e.better) + len(e.ties)) for e in examples]
    assert sorted(counted) == sorted([*wanted, (0, 0, 0), (0, 0, 0)])


@pytest.mark.parametrize("padded", [False, True])
def test_a_budget_of_tokens_keeps_the_completions_of_a_prompt_together(padded):
    examples = comparisons(23)
    (step,) = preference_batches(
        examples, BatchOptions(batch=Batch(size=23, microbatch=None, max_tokens=60), seed=1, epoch=0,
        pad_id=PAD, padded=padded)
    )  # fmt: skip
    assert sum(batch.num_prompts for batch in step) == 23
    assert sum(len(batch.pairs) for batch in step) == sum(
        len(one.better) + len(one.ties) for one in examples
    )
    for batch in step:
        read = batch.mask.numel() if padded else int(batch.mask.sum())
        assert read <= 60 or batch.num_prompts == 1
    assert max(batch.num_prompts for batch in step) > 1


def test_every_completion_is_one_row():
    (step,) = preference_batches(
        comparisons(9),
        BatchOptions(
            batch=Batch(size=9, microbatch=1000, max_tokens=None), seed=1, epoch=0, pad_id=PAD
        ),
    )
    (batch,) = step
    assert batch.tokens.shape[0] == sum(len(e.response_ids) for e in comparisons(9))
    assert batch.num_prompts == 9
    assert batch.prompt_of.unique().tolist() == list(range(9))


def test_weights_of_a_fully_labelled_prompt_sum_to_one():
    (step,) = preference_batches(
        comparisons(1),
        BatchOptions(
            batch=Batch(size=1, microbatch=9, max_tokens=None), seed=1, epoch=0, pad_id=PAD
        ),
    )
    assert step[0].weights.sum() == pytest.approx(1.0)
    four = EncodedComparison(
        prompt_ids=[1],
        response_ids=[[2], [3], [4], [5]],
        better=tuple((j, k) for j in range(4) for k in range(j + 1, 4)),
        ties=(),
        record=None,
    )
    (step,) = preference_batches(
        [four],
        BatchOptions(
            batch=Batch(size=1, microbatch=9, max_tokens=None), seed=1, epoch=0, pad_id=PAD
        ),
    )
    assert step[0].pairs.shape == (6, 2)
    assert step[0].weights.sum() == pytest.approx(1.0)


def test_a_partly_labelled_prompt_has_the_same_weight_as_any_other():
    """Of four responses, two pairs are labelled: 1/2 each, not 1/6. A tie counts as a label."""
    some = EncodedComparison(
        prompt_ids=[1],
        response_ids=[[2], [3], [4], [5]],
        better=((0, 1),),
        ties=((2, 3),),
        record=None,
    )
    batch = preference_batch([some], PAD)
    assert batch.weights.tolist() == [0.5, 0.5]
    scores, settings = torch.zeros(4), {"tie_param": 1.0, "margin": 0.0, "label_smoothing": 0.0}
    for ties, share in (("soft", 1.0), ("drop", 0.5)):
        loss = PreferenceLoss(ties=ties, center_coef=0.0, **settings)
        found = loss(scores, batch.pairs, batch.targets, batch.weights, num_prompts=1)
        assert float(found) == pytest.approx(share * math.log(2))


def prompts(num):
    return [EncodedPrompt(ids=[i + 1] * (1 + i % 3), messages=(), record=None) for i in range(num)]


def test_prompt_batches_are_padded_left_and_hold_their_indices():
    examples = prompts(7)
    batch = next(prompt_batches(examples, size=5, total=5, seed=1, pad_id=PAD))
    for row, place in enumerate(batch.index):
        assert batch.tokens[row][batch.mask[row]].tolist() == examples[place].ids
        assert batch.mask[row, -1]


def test_every_prompt_occurs_once_before_any_is_repeated():
    order = list(islice(prompt_order(7, seed=3), 21))
    assert [sorted(order[i : i + 7]) for i in (0, 7, 14)] == [list(range(7))] * 3
    assert order[:7] != order[7:14]


def test_prompt_batches_resume_at_a_later_start():
    def index(start):
        batches = prompt_batches(prompts(7), size=4, total=22, seed=3, pad_id=PAD, start=start)
        return [batch.index for batch in batches]

    assert [len(batch) for batch in index(0)] == [4, 4, 4, 4, 4, 2]
    assert index(2) == index(0)[2:]
    assert index(5) == index(0)[5:]
