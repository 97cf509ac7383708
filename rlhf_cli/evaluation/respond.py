"""Let a model answer prompts, and measure each answer: score, KL to a reference, length, ending."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlhf_cli.core.batches import Rollout
from rlhf_cli.core.masking import zero_pads
from rlhf_cli.data.collate import pad_left, pad_right
from rlhf_cli.data.templates import Renderer
from rlhf_cli.models.sampling import sample
from rlhf_cli.models.scoring import response_logprobs, sequence_scores
from rlhf_cli.runtime.device import Device

# (model, tokens (B, T), mask (B, T)) -> one value or vector a row
Look = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(slots=True, kw_only=True)
class Answer:
    """One response: its tokens (the end token included), its text, and whether it ended by itself."""

    prompt_ids: list[int]
    ids: list[int]
    text: str
    finished: bool


@dataclass(slots=True, kw_only=True)
class Asking:
    """How answers are drawn; temperature 1 is the policy itself."""

    max_new_tokens: int
    temperature: float
    batch: int
    seed: int


def respond(
    model: nn.Module, prompts: list[list[int]], renderer: Renderer, device: Device, asking: Asking
) -> list[Answer]:
    """One answer a prompt, in the prompts' order; prompts of like length share a batch."""
    was_training = model.training
    model.eval()
    generator = device.generator(asking.seed)
    answers: dict[int, Answer] = {}
    for index in by_length(prompts, asking.batch):
        batch = [prompts[i] for i in index]
        tokens, mask = pad_left(batch, renderer.pad_id)
        with device.autocast():
            samples = sample(
                model,
                tokens.to(device.torch),
                mask.to(device.torch),
                max_new_tokens=asking.max_new_tokens,
                end_ids=renderer.end_ids,
                pad_id=renderer.pad_id,
                temperature=asking.temperature,
                generator=generator,
            )
        for row, i in enumerate(index):
            ids = samples.responses[row][samples.mask[row]].tolist()
            answers[i] = Answer(
                prompt_ids=prompts[i],
                ids=ids,
                text=renderer.decode_response(ids),
                finished=bool(samples.finished[row]),
            )
    model.train(was_training)
    return [answers[i] for i in range(len(prompts))]


def by_length(sequences: list[list[int]], size: int) -> list[list[int]]:
    """Indices in groups of `size`, sequences of like length together."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    return [order[i : i + size] for i in range(0, len(order), size)]


@torch.no_grad()
def over_sequences(
    look: Look,
    model: nn.Module,
    sequences: list[list[int]],
    *,
    pad_id: int,
    device: Device,
    batch: int,
) -> Tensor:
    """look(model, tokens, mask) of every token sequence, in their order, fp32 on the CPU. (n, ...)"""
    if not sequences:
        return torch.empty(0)
    groups, parts = by_length(sequences, batch), []
    for index in groups:
        tokens, mask = pad_right([sequences[i] for i in index], pad_id)
        with device.autocast():
            part = look(model, tokens.to(device.torch), mask.to(device.torch))
        parts.append(part.float().cpu())
    found = torch.cat(parts)
    ordered = torch.empty_like(found)
    ordered[[i for index in groups for i in index]] = found
    return ordered


def reward_scores(
    model: nn.Module, sequences: list[list[int]], *, pad_id: int, device: Device, batch: int
) -> Tensor:
    """Scores (n,) of whole token sequences, on the CPU."""
    return over_sequences(
        sequence_scores, model, sequences, pad_id=pad_id, device=device, batch=batch
    )


@torch.no_grad()
def kl_to_reference(
    policy: nn.Module,
    reference: nn.Module,
    answers: list[Answer],
    *,
    pad_id: int,
    device: Device,
    batch: int,
) -> Tensor:
    """log policy(y|x) - log reference(y|x) of each answer y drawn from the policy, (n,).

    Its mean is the sampled KL(policy || reference) in nats per response (the k1 estimator).
    """
    gaps = torch.empty(len(answers))
    for index in by_length([answer.prompt_ids for answer in answers], batch):
        part = _as_rollout([answers[i] for i in index], pad_id).to(device.torch)
        with device.autocast():
            ours, _ = response_logprobs(policy, part, temperature=1.0)
            theirs, _ = response_logprobs(reference, part, temperature=1.0)
        gaps[index] = zero_pads(ours - theirs, part.response_mask).sum(1).cpu()
    return gaps


def _as_rollout(answers: list[Answer], pad_id: int) -> Rollout:
    prompts, prompt_mask = pad_left([answer.prompt_ids for answer in answers], pad_id)
    responses, response_mask = pad_right([answer.ids for answer in answers], pad_id)
    finished = torch.tensor([answer.finished for answer in answers])
    return Rollout.unjudged(prompts, prompt_mask, responses, response_mask, finished)
