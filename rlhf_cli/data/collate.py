"""Encoded examples -> batches of tensors, padded or packed.

A global batch is one optimizer step: a list of microbatches. order.py decides which examples it holds,
core/microbatches.py which of them this process reads together; the last microbatches may be blank.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from rlhf_cli.config.schema import Batch, Batching, LossOn
from rlhf_cli.core.batches import PreferenceBatch, PromptBatch, SFTBatch
from rlhf_cli.core.microbatches import WHOLE, BatchCost, BatchLimit, Share, divide, first_fit_rows
from rlhf_cli.data.encode import EncodedComparison, EncodedDemonstration, EncodedPrompt
from rlhf_cli.data.order import chunks, grouped, prompt_order
from rlhf_cli.data.rows import Rows


@dataclass(slots=True, kw_only=True)
class Steps(Sequence[list]):
    """The optimizer steps of an epoch, each collated when it is asked for.

    parts: the examples of each step, by number . collate: of such numbers this process's microbatches.
    """

    parts: list[list[int]]
    collate: Callable[[list[int]], list]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, place: int) -> list:  # slices are not needed
        return self.collate(self.parts[place])


@dataclass(slots=True, frozen=True, kw_only=True)
class BatchOptions:
    """How the examples of an epoch, of any kind, are divided into batches.

    A forward pass holds batch.microbatch rows and batch.max_tokens tokens, pads among them if the
    network reads them (padded). share: the part of each batch that this process reads.
    """

    batch: Batch
    seed: int
    epoch: int
    pad_id: int
    share: Share = WHOLE
    padded: bool = False

    def microbatches(self, costs: list[BatchCost]) -> list[list[int]]:
        """Return the microbatches of this process, as indices of `costs`; the last may be empty."""
        limit = BatchLimit(
            rows=self.batch.microbatch, tokens=self.batch.max_tokens, padded=self.padded
        )
        return divide(costs, limit, self.share.size)[self.share.rank]


def lengths(examples: Sequence[EncodedDemonstration] | Sequence[EncodedComparison]) -> list[int]:
    """Return the number of tokens of each text, of a comparison's longest."""
    if isinstance(examples, Rows):
        return examples.lengths()
    return [
        len(e.prompt_ids) + max(map(len, e.response_ids))
        if isinstance(e, EncodedComparison)
        else len(e.ids)
        for e in examples
    ]


def of_epoch(examples: Sequence, epoch: int) -> Sequence:
    """Return the examples of an epoch: rows of tasks are rendered differently in each."""
    return examples.of_epoch(epoch) if isinstance(examples, Rows) else examples


def pad_right(sequences: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return (tokens, mask) (B, T), real tokens at the left."""
    return _padded(sequences, pad_id, left=False)


def pad_left(sequences: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return (tokens, mask) (B, T), real tokens at the right."""
    return _padded(sequences, pad_id, left=True)


def _padded(sequences: list[list[int]], pad_id: int, *, left: bool) -> tuple[Tensor, Tensor]:
    width = max(map(len, sequences))
    tokens = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(sequences), width), dtype=torch.bool)
    for row, ids in enumerate(sequences):
        place = slice(width - len(ids), width) if left else slice(0, len(ids))
        tokens[row, place] = torch.tensor(ids, dtype=torch.long)
        mask[row, place] = True
    return tokens, mask


def sft_batches(
    examples: Sequence[EncodedDemonstration],
    options: BatchOptions,
    *,
    batching: Batching,
    loss_on: LossOn,
    max_tokens: int,
) -> Steps:
    """Return an epoch as global batches of batch.size demonstrations.

    max_tokens: that a packed row holds.
    """
    examples = of_epoch(examples, options.epoch)
    batch, seed, epoch, capacity = options.batch, options.seed, options.epoch, 0
    if batching is Batching.packed:
        parts = chunks(len(examples), batch.size, seed=seed, epoch=epoch)
        capacity = min(max_tokens, batch.max_tokens or max_tokens)
    else:
        parts = grouped(lengths(examples), batch.size, seed=seed, epoch=epoch)
    return Steps(
        parts=parts,
        collate=lambda part: _sft_step([examples[i] for i in part], options, capacity, loss_on),
    )


def _sft_step(examples, options: BatchOptions, capacity: int, loss_on: LossOn) -> list[SFTBatch]:
    rows = (
        first_fit_rows([len(e.ids) for e in examples], capacity)
        if capacity
        else _one_a_row(examples)
    )
    texts = [[examples[i] for i in row] for row in rows]
    costs = [BatchCost.of([sum(len(e.ids) for e in row)]) for row in texts]
    return [
        _sft_batch([texts[i] for i in part], loss_on, options.pad_id, packed=capacity > 0)
        if part
        else _sft_batch(texts[:1], None, options.pad_id, packed=capacity > 0)
        for part in options.microbatches(costs)
    ]


def _one_a_row(examples) -> list[list[int]]:
    return [[i] for i in sorted(range(len(examples)), key=lambda i: len(examples[i].ids))]


def _sft_batch(rows: list[list], loss_on: LossOn | None, pad_id: int, *, packed: bool) -> SFTBatch:
    """Return one microbatch; without loss_on it is blank: nothing in it is learned."""
    tokens, mask = pad_right([[t for e in row for t in e.ids] for row in rows], pad_id)
    loss_mask = torch.zeros_like(mask)
    positions = torch.zeros_like(tokens)
    for r, row in enumerate(rows):
        start = 0
        for example in row:
            stop = start + len(example.ids)
            learned = _learned(example, loss_on)
            # the first token of a text has nothing before it to be predicted from
            loss_mask[r, start:stop] = torch.tensor([False, *learned[1:]])
            positions[r, start:stop] = torch.arange(len(example.ids))
            start = stop
        positions[r, start:] = torch.arange(tokens.shape[1] - start)
    return SFTBatch(
        tokens=tokens, mask=mask, loss_mask=loss_mask, positions=positions, packed=packed
    )


def _learned(example: EncodedDemonstration, loss_on: LossOn | None) -> list[bool]:
    """Return which tokens are supervised."""
    if loss_on is LossOn.response:
        return example.loss_mask
    return [loss_on is LossOn.all] * len(example.ids)


def preference_batches(examples: Sequence[EncodedComparison], options: BatchOptions) -> Steps:
    """Return an epoch as global batches of batch.size prompts, a prompt's pairs in one microbatch.

    A microbatch holds as many responses as its limits allow, but at least one prompt.
    """
    size, seed, epoch = options.batch.size, options.seed, options.epoch
    return Steps(
        parts=grouped(lengths(examples), size, seed=seed, epoch=epoch),
        collate=lambda part: _preference_step({i: examples[i] for i in part}, options),
    )


def _preference_step(
    indexed: Mapping[int, EncodedComparison], options: BatchOptions
) -> list[PreferenceBatch]:
    index, examples = list(indexed), list(indexed.values())
    costs = [
        BatchCost.of([len(e.prompt_ids) + len(ids) for ids in e.response_ids]) for e in examples
    ]
    return [
        replace(
            preference_batch([examples[i] for i in part], options.pad_id),
            index=[index[i] for i in part],
        )
        if part
        else replace(blank_preference_batch(examples[0], options.pad_id), index=index[:1])
        for part in options.microbatches(costs)
    ]


def blank_preference_batch(example: EncodedComparison, pad_id: int) -> PreferenceBatch:
    """Return rows to compute on, without a pair or a prompt to learn from."""
    batch = preference_batch([example], pad_id)
    return replace(
        batch,
        pairs=batch.pairs[:0],
        targets=batch.targets[:0],
        weights=batch.weights[:0],
        num_prompts=0,
    )


def preference_batch(examples: list[EncodedComparison], pad_id: int) -> PreferenceBatch:
    """Return a microbatch: each response is one row, pairs point at rows, a tie has target 0.5.

    A pair weighs 1 / the labelled pairs of its prompt, ties among them; the weights of every prompt
    add up to 1. Where all its pairs are labelled that is 1/C(K, 2) (IG Eq. 1).
    """
    sequences, lengths, pairs, targets, weights, prompt_of = [], [], [], [], [], []
    for number, example in enumerate(examples):
        base, num = len(sequences), len(example.response_ids)
        sequences += example.sequences()
        lengths += map(len, example.response_ids)
        prompt_of += [number] * num
        labelled = [(pair, 1.0) for pair in example.better] + [(pair, 0.5) for pair in example.ties]
        pairs += [[base + winner, base + loser] for (winner, loser), _ in labelled]
        targets += [target for _, target in labelled]
        weights += [1.0 / len(labelled) for _ in labelled]
    tokens, mask = pad_right(sequences, pad_id)
    return PreferenceBatch(
        tokens=tokens,
        mask=mask,
        lengths=torch.tensor(lengths),
        pairs=torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
        targets=torch.tensor(targets),
        weights=torch.tensor(weights),
        prompt_of=torch.tensor(prompt_of),
        num_prompts=len(examples),
    )


def prompt_batches(
    examples: Sequence[EncodedPrompt],
    *,
    size: int,
    total: int,
    seed: int,
    pad_id: int,
    start: int = 0,
) -> Iterator[PromptBatch]:
    """Yield `total` prompts in batches of `size`, from batch `start` on; the last may be smaller.

    They go round the data as often as needed.
    """
    order = islice(prompt_order(len(examples), seed=seed), start * size, total)
    while index := list(islice(order, size)):
        yield prompt_batch(examples, index, pad_id)


def prompt_batch(examples: Sequence[EncodedPrompt], index: list[int], pad_id: int) -> PromptBatch:
    """Return the prompts of these indices, left padded."""
    tokens, mask = pad_left([examples[i].ids for i in index], pad_id)
    return PromptBatch(tokens=tokens, mask=mask, index=index)
