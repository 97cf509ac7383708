"""Which rows of a rollout this process reads together."""

import torch
from torch import Tensor

from rlhf_cli.config.schema import PPOBatch
from rlhf_cli.core.batches import Rollout
from rlhf_cli.core.microbatches import BatchCost, BatchLimit, divide
from rlhf_cli.models.unpadding.attention import reads_unpadded
from rlhf_cli.stages.ppo.players import Players


def microbatches(players: Players, rollout: Rollout, rows: Tensor, batch: PPOBatch) -> list[Tensor]:
    """This process's part of `rows`, cut for one forward pass each; every process has as many.

    rows (n,): n is a multiple of the number of processes, so that none is blank.
    """
    share = players.world.share
    if batch.max_tokens is None:
        return list(share.of(rows).split(batch.microbatch))
    sides = (rollout.prompt_mask, rollout.response_mask)
    lengths = torch.stack([mask[rows].sum(1) for mask in sides], dim=1).tolist()
    loads = [BatchCost(1, sum(widths), tuple(widths)) for widths in lengths]
    limit = BatchLimit(rows=batch.microbatch, tokens=batch.max_tokens, padded=read_padded(players))
    parts = divide(loads, limit, share.size)[share.rank]
    return [rows[torch.tensor(part, device=rows.device)] for part in parts]


def read_padded(players: Players) -> bool:
    """Whether padding counts: one of the networks at least reads it."""
    networks = (players.policy, players.value, players.ref_policy)
    return not all(reads_unpadded(network.model) for network in networks)
