"""Encoded examples -> batches of tensors: order, grouping by length, packing, padding.

A global batch is one optimizer step: a list of microbatches. The order is a function of the seed
and the epoch alone; of each global batch a process takes its share, and all processes have as many
microbatches, the last of which may be blank.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from math import comb
from random import Random

import torch
from torch import Tensor

from rlhf_cli.config.schema import Batch, Batching, LossOn
from rlhf_cli.core.batches import PreferenceBatch, PromptBatch, SFTBatch
from rlhf_cli.core.sharing import WHOLE, Share
from rlhf_cli.data.encode import EncodedComparison, EncodedDemonstration, EncodedPrompt

WINDOW = 32  # global batches whose rows are sorted by length together


def pad_right(sequences: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """(tokens, mask) (B, T): real tokens at the left."""
    return _padded(sequences, pad_id, left=False)


def pad_left(sequences: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """(tokens, mask) (B, T): real tokens at the right."""
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


def shuffled(num: int, *, seed: int, epoch: int) -> list[int]:
    """A permutation of range(num), another one each epoch."""
    order = list(range(num))
    Random(f"{seed}/{epoch}").shuffle(order)
    return order


def grouped(lengths: list[int], size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Indices in global batches of `size`, rows of like length together, batches in random order.

    Only the last batch drawn may be smaller; it holds what is left over, of any length.
    """
    order = shuffled(len(lengths), seed=seed, epoch=epoch)
    whole = len(order) - len(order) % size
    batches = []
    for start in range(0, whole, size * WINDOW):
        window = sorted(order[start : min(whole, start + size * WINDOW)], key=lengths.__getitem__)
        batches += [window[i : i + size] for i in range(0, len(window), size)]
    Random(f"{seed}/{epoch}/batches").shuffle(batches)
    return batches + ([order[whole:]] if whole < len(order) else [])


def sft_batches(
    examples: list[EncodedDemonstration],
    *,
    batch: Batch,
    batching: Batching,
    loss_on: LossOn,
    seed: int,
    epoch: int,
    max_tokens: int,
    pad_id: int,
    share: Share = WHOLE,
) -> list[list[SFTBatch]]:
    """An epoch as global batches of batch.size demonstrations.

    batch.microbatch rows a forward pass; a packed row holds up to max_tokens tokens.
    """
    if batching is Batching.packed:
        order = shuffled(len(examples), seed=seed, epoch=epoch)
        chunks = [order[i : i + batch.size] for i in range(0, len(order), batch.size)]
    else:
        lengths = [len(example.ids) for example in examples]
        chunks = grouped(lengths, batch.size, seed=seed, epoch=epoch)
    capacity = max_tokens if batching is Batching.packed else 0
    return [
        _sft_step([examples[i] for i in chunk], batch.microbatch, capacity, loss_on, pad_id, share)
        for chunk in chunks
    ]


def _sft_step(
    examples, microbatch: int, capacity: int, loss_on: LossOn, pad_id: int, share: Share
) -> list[SFTBatch]:
    rows = pack([len(e.ids) for e in examples], capacity) if capacity else _one_a_row(examples)
    texts = [[examples[i] for i in row] for row in rows]
    parts = [_pieces(Share(rank, share.size).of(texts), microbatch) for rank in range(share.size)]
    packed = capacity > 0
    mine = [_sft_batch(part, loss_on, pad_id, packed=packed) for part in parts[share.rank]]
    missing = max(map(len, parts)) - len(mine)
    return mine + [_sft_batch(texts[:1], None, pad_id, packed=packed)] * missing


def _pieces(items, size: int) -> list:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _one_a_row(examples) -> list[list[int]]:
    return [[i] for i in sorted(range(len(examples)), key=lambda i: len(examples[i].ids))]


def pack(lengths: list[int], capacity: int) -> list[list[int]]:
    """Indices in rows of at most `capacity` tokens, longest first into the first row with room.

    A text longer than the capacity has a row of its own.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, free in enumerate(room) if free >= lengths[i]), None)
        if row is None:
            rows.append([])
            room.append(capacity)
            row = len(rows) - 1
        rows[row].append(i)
        room[row] -= lengths[i]
    return rows


def _sft_batch(rows: list[list], loss_on: LossOn | None, pad_id: int, *, packed: bool) -> SFTBatch:
    """One microbatch; without loss_on it is blank: nothing in it is learned."""
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
    """Which tokens are supervised."""
    if loss_on is LossOn.response:
        return example.loss_mask
    return [loss_on is LossOn.all] * len(example.ids)


def preference_batches(
    examples: list[EncodedComparison],
    *,
    batch: Batch,
    seed: int,
    epoch: int,
    pad_id: int,
    share: Share = WHOLE,
) -> list[list[PreferenceBatch]]:
    """An epoch as global batches of batch.size prompts, all pairs of a prompt in one microbatch.

    A microbatch holds at most batch.microbatch completions, but at least one prompt.
    """
    lengths = [len(e.prompt_ids) + max(map(len, e.response_ids)) for e in examples]
    return [
        _preference_step(chunk, examples, batch, pad_id, share)
        for chunk in grouped(lengths, batch.size, seed=seed, epoch=epoch)
    ]


def _preference_step(
    chunk: list[int], examples, batch: Batch, pad_id: int, share: Share
) -> list[PreferenceBatch]:
    parts = [
        list(_by_completions(Share(rank, share.size).of(chunk), examples, batch))
        for rank in range(share.size)
    ]
    mine = [preference_batch(part, pad_id) for part in parts[share.rank]]
    missing = max(map(len, parts)) - len(mine)
    return mine + [blank_preference_batch(examples[chunk[0]], pad_id)] * missing


def blank_preference_batch(example: EncodedComparison, pad_id: int) -> PreferenceBatch:
    """Rows to compute on, without a pair or a prompt to learn from."""
    batch = preference_batch([example], pad_id)
    return replace(
        batch,
        pairs=batch.pairs[:0],
        targets=batch.targets[:0],
        weights=batch.weights[:0],
        num_prompts=0,
    )


def _by_completions(chunk: list[int], examples, batch: Batch) -> Iterator[list]:
    part, num = [], 0
    for i in chunk:
        more = len(examples[i].response_ids)
        if part and num + more > batch.microbatch:
            yield part
            part, num = [], 0
        part.append(examples[i])
        num += more
    if part:
        yield part


def preference_batch(examples: list[EncodedComparison], pad_id: int) -> PreferenceBatch:
    """One microbatch: each completion a row once, pairs point at rows, a tie has target 0.5."""
    sequences, lengths, pairs, targets, weights, prompt_of = [], [], [], [], [], []
    for number, example in enumerate(examples):
        base, num = len(sequences), len(example.response_ids)
        sequences += example.sequences()
        lengths += map(len, example.response_ids)
        prompt_of += [number] * num
        labelled = [(pair, 1.0) for pair in example.better] + [(pair, 0.5) for pair in example.ties]
        pairs += [[base + winner, base + loser] for (winner, loser), _ in labelled]
        targets += [target for _, target in labelled]
        weights += [1.0 / comb(num, 2)] * len(labelled)
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


def prompt_order(num: int, *, seed: int) -> Iterator[int]:
    """Indices without end: every prompt once before any comes again."""
    epoch = 0
    while num:
        yield from shuffled(num, seed=seed, epoch=epoch)
        epoch += 1


def prompt_batches(
    examples: list[EncodedPrompt],
    *,
    size: int,
    num_batches: int,
    seed: int,
    pad_id: int,
    start: int = 0,
) -> Iterator[PromptBatch]:
    """Batches start..num_batches of `size` prompts, round the data as often as needed."""
    order = islice(prompt_order(len(examples), seed=seed), start * size, num_batches * size)
    for _ in range(start, num_batches):
        yield prompt_batch(examples, list(islice(order, size)), pad_id)


def prompt_batch(examples: list[EncodedPrompt], index: list[int], pad_id: int) -> PromptBatch:
    """The prompts of these indices, left padded."""
    tokens, mask = pad_left([examples[i].ids for i in index], pad_id)
    return PromptBatch(tokens=tokens, mask=mask, index=index)
