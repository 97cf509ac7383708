"""Log-probs of given responses: of options in rank classification, of answers after a rationale."""

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
