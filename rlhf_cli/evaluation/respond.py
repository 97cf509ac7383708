"""Responses of a model to given prompts, their scores and their KL to a reference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rlhf_cli.core.batches import Rollout
from rlhf_cli.core.masking import masked_mean, zero_pads
from rlhf_cli.core.randomness import uniforms
from rlhf_cli.data.collate import pad_left, pad_right
from rlhf_cli.data.templates import Renderer
from rlhf_cli.models.forward import ModelInputs, response_logprobs, sequence_scores
from rlhf_cli.models.generation.sampling import (
    Samples,
    SamplingParams,
    require_close_logprobs,
    sample,
)
from rlhf_cli.runtime.engine import Network
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.runtime.world import World

# (model, tokens (B, T), mask (B, T)) -> one value or vector per row
ForwardFn = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(slots=True, kw_only=True)
class Answer:
    """One response: its tokens (the end token included), its text, and whether it ended with EOS."""

    prompt_ids: list[int]
    ids: list[int]
    text: str
    finished: bool


def respond(
    network: Network,
    prompts: list[list[int]],
    renderer: Renderer,
    params: SamplingParams,
    world: World,
    *,
    batch: int,
    seeds: list[int],
) -> list[list[Answer]]:
    """Return one answer per prompt for each seed, in the prompts' order.

    A prompt is read once for all seeds; prompts of similar length share a batch of at most `batch` answers.
    The processes divide the batches, and all of them get every answer. Each compares the sampler of its
    first batch with a forward pass.
    """
    if not prompts:
        return [[] for _ in seeds]
    size = (len(prompts), params.max_new_tokens)
    drawn = torch.stack([uniforms(*size, seed, "answers") for seed in seeds], dim=1)
    responses = torch.zeros(drawn.shape, dtype=torch.long)
    lengths, finished = torch.zeros(drawn.shape[:2], dtype=torch.long), torch.zeros(drawn.shape[:2])
    was_training, first = network.model.training, None
    network.model.eval()
    with network.generating() as model:
        groups = group_by_length(prompts, max(1, batch // len(seeds)))
        for index, counts in world.share.padded_shard(groups):
            heartbeat("answering prompts")
            some = [prompts[i] for i in index]
            rollout, samples = _answers(network, model, some, drawn[index], params)
            first = first or rollout
            if counts:
                found = samples.responses.cpu().unflatten(0, drawn[index].shape[:2])
                responses[index, :, : found.shape[2]] = found
                lengths[index] = samples.mask.sum(1).cpu().view(len(index), -1)
                finished[index] = samples.finished.float().cpu().view(len(index), -1)
    if params.temperature > 0:
        gap = sampler_logprob_gap(network, first, params.temperature)
        require_close_logprobs(gap, network.device.dtype)
    network.model.train(was_training)
    responses, lengths = world.all_reduce(responses), world.all_reduce(lengths).tolist()
    ended = world.all_reduce(finished).tolist()
    return [
        [
            _answer(prompt, responses[i, n, : lengths[i][n]].tolist(), bool(ended[i][n]), renderer)
            for i, prompt in enumerate(prompts)
        ]
        for n in range(len(seeds))
    ]


@torch.no_grad()
def sampler_logprob_gap(network: Network, batch: Rollout, temperature: float) -> float:
    """Return the mean distance of the batch's log-probs from those of a forward pass, nats per token."""
    logprobs = network(response_logprobs, ModelInputs(batch), temperature=temperature)[0]
    return float(masked_mean((logprobs - batch.logprobs).abs(), batch.response_mask))


def _answers(
    network: Network,
    model: nn.Module,
    prompts: list[list[int]],
    drawn: Tensor,
    params: SamplingParams,
) -> tuple[Rollout, Samples]:
    """Sample n answers per prompt, for drawn (prompts, n, R); return them also as rows to be scored."""
    place, copies = network.device.torch, drawn.shape[1]
    tokens, mask = (x.to(place) for x in pad_left(prompts, params.pad_id))
    samples = sample(
        model,
        tokens,
        mask,
        drawn.flatten(0, 1),
        replace(params, copies=copies),
        keep_going=network.keep_going,
    )
    rows = (x.repeat_interleave(copies, dim=0) for x in (tokens, mask))
    batch = Rollout.unscored(*rows, samples.responses, samples.mask, samples.finished)
    batch.logprobs = samples.logprobs
    return batch, samples


def _answer(prompt: list[int], ids: list[int], finished: bool, renderer: Renderer) -> Answer:
    text = renderer.decode_response(ids)
    return Answer(prompt_ids=prompt, ids=ids, text=text, finished=finished)


def group_by_length(sequences: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Return indices in groups of `size`, sequences of similar length together."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    return [order[i : i + size] for i in range(0, len(order), size)]


@torch.no_grad()
def forward_sequences(
    forward: ForwardFn,
    network: Network,
    sequences: list[list[int]],
    *,
    pad_id: int,
    batch: int,
    world: World,
) -> Tensor:
    """Return forward(model, tokens, mask) of every token sequence, in their order, fp32 on the CPU.

    -> (n, ...)
    """
    if not sequences:
        return torch.empty(0)
    found: Tensor | None = None
    for index, counts in world.share.padded_shard(group_by_length(sequences, batch)):
        heartbeat("reading sequences")
        tokens, mask = pad_right([sequences[i] for i in index], pad_id)
        place = network.device.torch
        part = network(forward, tokens.to(place), mask.to(place)).float().cpu()
        if found is None:
            found = torch.zeros(len(sequences), *part.shape[1:])
        if counts:
            found[index] = part
    assert found is not None
    return world.all_reduce(found)


def reward_scores(
    network: Network, sequences: list[list[int]], *, pad_id: int, batch: int, world: World
) -> Tensor:
    """Return the scores (n,) of complete token sequences, on the CPU."""
    return forward_sequences(
        sequence_scores, network, sequences, pad_id=pad_id, batch=batch, world=world
    )


@torch.no_grad()
def kl_to_reference(
    policy: Network,
    reference: Network,
    answers: list[Answer],
    *,
    pad_id: int,
    batch: int,
    world: World,
) -> Tensor:
    """Return log policy(y|x) - log reference(y|x) of each answer y sampled from the policy, (n,).

    Its mean is the sampled KL(policy || reference) in nats per response (the k1 estimator).
    """
    gaps = torch.zeros(len(answers))
    groups = group_by_length([answer.prompt_ids for answer in answers], batch)
    for index, counts in world.share.padded_shard(groups):
        heartbeat("comparing with the reference")
        part = _as_rollout([answers[i] for i in index], pad_id).to(policy.device.torch)
        inputs = ModelInputs(part)
        ours, _ = policy(response_logprobs, inputs, temperature=1.0)
        theirs, _ = reference(response_logprobs, inputs, temperature=1.0)
        if counts:
            gaps[index] = zero_pads(ours - theirs, part.response_mask).sum(1).float().cpu()
    return world.all_reduce(gaps)


@torch.no_grad()
def response_entropies(
    policy: Network, answers: list[Answer], *, pad_id: int, batch: int, world: World
) -> Tensor:
    """Return the summed entropy in nats of the distributions that each answer was sampled from, (n,).

    At temperature 1; divided by the answers' tokens it is the entropy per token that a rollout reports.
    """
    found = torch.zeros(len(answers))
    groups = group_by_length([answer.prompt_ids for answer in answers], batch)
    for index, counts in world.share.padded_shard(groups):
        heartbeat("computing entropies")
        part = _as_rollout([answers[i] for i in index], pad_id).to(policy.device.torch)
        _, entropies = policy(response_logprobs, ModelInputs(part), temperature=1.0)
        if counts:
            found[index] = zero_pads(entropies, part.response_mask).sum(1).float().cpu()
    return world.all_reduce(found)


def _as_rollout(answers: list[Answer], pad_id: int) -> Rollout:
    prompts, prompt_mask = pad_left([answer.prompt_ids for answer in answers], pad_id)
    responses, response_mask = pad_right([answer.ids for answer in answers], pad_id)
    finished = torch.tensor([answer.finished for answer in answers])
    return Rollout.unscored(prompts, prompt_mask, responses, response_mask, finished)
