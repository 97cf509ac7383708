"""Log-probs of given responses: of options in rank classification, of answers after a rationale.

Rank classification takes the option of a question that the model finds likeliest. The log-prob of an
option is that of its tokens and the end token, so that an option which another one begins with is no
likelier for that (FLAN, section 2.3, sums without a normalisation by length).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_cli.core.batches import Rollout
from rlhf_cli.core.masking import zero_pads
from rlhf_cli.data.collate import pad_left, pad_right
from rlhf_cli.evaluation.respond import group_by_length
from rlhf_cli.models.forward import ModelInputs, response_logprobs
from rlhf_cli.runtime.engine import Network
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.runtime.world import World


@dataclass(slots=True, frozen=True, kw_only=True)
class Continuation:
    """A prompt of at least one token, and a response to it whose log-prob is wanted."""

    prompt_ids: list[int]
    ids: list[int]


@torch.no_grad()
def log_likelihoods(
    network: Network, rows: list[Continuation], *, pad_id: int, batch: int, world: World
) -> Tensor:
    """Return the summed log-prob of each response given its prompt, on the CPU, (n,) float64.

    Consecutive rows of one prompt stay together, so an architecture that is read without padding reads
    their prompt once. The processes divide the batches, and all of them get every number.
    """
    found = torch.zeros(len(rows), dtype=torch.float64)
    if not rows:
        return found
    was_training = network.model.training
    network.model.eval()
    for index, counts in world.share.padded_shard(
        group_by_length([row.prompt_ids for row in rows], batch)
    ):
        heartbeat("comparing options")
        part = _as_rollout([rows[i] for i in index], pad_id).to(network.device.torch)
        logprobs, _ = network(response_logprobs, ModelInputs(part), temperature=1.0)
        if counts:
            found[index] = zero_pads(logprobs, part.response_mask).cpu().double().sum(1)
    network.model.train(was_training)
    return world.all_reduce(found)


def _as_rollout(rows: list[Continuation], pad_id: int) -> Rollout:
    prompts, prompt_mask = pad_left([row.prompt_ids for row in rows], pad_id)
    responses, response_mask = pad_right([row.ids for row in rows], pad_id)
    finished = torch.ones(len(rows), dtype=torch.bool)
    return Rollout.unscored(prompts, prompt_mask, responses, response_mask, finished)


@dataclass(slots=True, frozen=True, kw_only=True)
class Choice:
    """A question with its options as texts and as tokens, end token included."""

    prompt_ids: list[int]
    options: tuple[str, ...]
    option_ids: tuple[list[int], ...]


@dataclass(slots=True, frozen=True, kw_only=True)
class Ranked:
    """firsts: {way to rank: index of the option that it puts first}. logprobs: the sum of each option."""

    firsts: dict[str, int]
    logprobs: list[float]


def rank(
    network: Network,
    choices: Sequence[Choice],
    *,
    empty_prompt: list[int],
    pad_id: int,
    batch: int,
    world: World,
) -> list[Ranked]:
    """Return the options of each choice, ranked in four ways.

    sum: of the log-probs; token, byte: divided by the tokens or by the bytes of the text; prior: minus
    the log-prob of the option after `empty_prompt`. Of equal options the first one is taken.
    """
    rows = [
        Continuation(prompt_ids=choice.prompt_ids, ids=ids)
        for choice in choices
        for ids in choice.option_ids
    ]
    alone = {tuple(row.ids): Continuation(prompt_ids=empty_prompt, ids=row.ids) for row in rows}
    settings = {"pad_id": pad_id, "batch": batch, "world": world}
    found = iter(log_likelihoods(network, rows, **settings).tolist())
    priors = log_likelihoods(network, list(alone.values()), **settings).tolist()
    prior_of = dict(zip(alone, priors, strict=True))
    return [
        Ranked(
            logprobs=(logprobs := [next(found) for _ in choice.options]),
            firsts=firsts(choice, logprobs, [prior_of[tuple(ids)] for ids in choice.option_ids]),
        )
        for choice in choices
    ]


def firsts(choice: Choice, logprobs: list[float], priors: list[float]) -> dict[str, int]:
    """Return the first of the best options by each way to rank."""
    num_tokens = [len(ids) for ids in choice.option_ids]
    num_bytes = [len(text.encode()) for text in choice.options]
    scores = {
        "sum": logprobs,
        "token": [x / num for x, num in zip(logprobs, num_tokens, strict=True)],
        "byte": [x / num for x, num in zip(logprobs, num_bytes, strict=True)],
        "prior": [x - prior for x, prior in zip(logprobs, priors, strict=True)],
    }
    return {way: found.index(max(found)) for way, found in scores.items()}
