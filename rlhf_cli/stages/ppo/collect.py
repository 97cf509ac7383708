"""Collect a rollout: sample, then let every model say what it thinks of the samples.

The processes divide the rows among themselves; afterwards each holds the whole rollout, which is
small beside the models, so that all that follows is the same on each.
"""

import torch
from torch import Tensor

from rlhf_cli.config.schema import PPO
from rlhf_cli.core.batches import PromptBatch, Rollout
from rlhf_cli.core.returns import missing_eos
from rlhf_cli.models.sampling import sample
from rlhf_cli.models.scoring import response_logprobs, response_values
from rlhf_cli.runtime.watchdog import alive
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.ppo.guards import require_finite
from rlhf_cli.stages.ppo.players import Ending, Players


def generate(
    players: Players, batch: PromptBatch, uniforms: Tensor, ending: Ending, cfg: PPO
) -> Rollout:
    """Sample one response a prompt; nothing is judged yet. uniforms (B, max_new_tokens)"""
    alive("sampling a rollout")
    world, policy = players.world, players.policy
    policy.eval()
    with policy.generating() as model:
        samples = sample(
            model,
            world.share.of(batch.tokens),
            world.share.of(batch.mask),
            world.share.of(uniforms),
            end_ids=ending.end_ids,
            pad_id=ending.pad_id,
            temperature=cfg.temperature,
            going_on=policy.going_on,
            reference=ending.reference,
        )
    policy.train()
    width = world.largest(samples.responses.shape[1])
    size = (len(batch.tokens), width)
    return Rollout.unjudged(
        batch.tokens,
        batch.mask,
        together(samples.responses, size, world, fill=ending.pad_id),
        together(samples.mask, size, world),
        together(samples.finished, size[:1], world),
    )


def together(values: Tensor, size: tuple[int, ...], world: World, fill: int = 0) -> Tensor:
    """Every process's rows of a tensor in their places; missing columns are `fill`. -> size"""
    whole = torch.zeros(size, dtype=torch.long, device=values.device)
    mine = world.share.of(whole)
    mine.fill_(fill)
    mine[(slice(None), *(slice(0, n) for n in values.shape[1:]))] = values.long()
    return world.sum(whole).to(values.dtype)


@torch.no_grad()
def judge(players: Players, rollout: Rollout, cfg: PPO) -> Tensor:
    """Fill in logprobs, ref_logprobs, values and scores; returns the policy's entropies (B, R).

    The old log-probs come from the same forward pass that training will make, not from the sampler:
    the first ratio is then 1 up to rounding. A microbatch is trimmed to its own longest response.
    """
    world, entropies = players.world, torch.zeros_like(rollout.logprobs)
    rows = torch.arange(len(rollout.scores), device=rollout.scores.device)
    for index in world.share.of(rows).split(cfg.batch.microbatch):
        alive("judging a rollout")
        part = rollout.select(index).trim()
        columns = slice(0, part.responses.shape[1])
        logprobs, entropy = players.policy(response_logprobs, part, temperature=cfg.temperature)
        ref_logprobs, _ = players.ref_policy(response_logprobs, part, temperature=cfg.temperature)
        rollout.logprobs[index, columns] = logprobs
        rollout.ref_logprobs[index, columns] = ref_logprobs
        rollout.values[index, columns] = players.value(response_values, part)
        rollout.scores[index] = players.score(
            part.prompts, part.prompt_mask, part.responses, part.response_mask
        ).float()
        entropies[index, columns] = entropy
    for name in ("logprobs", "ref_logprobs", "values", "scores"):
        setattr(rollout, name, world.sum(getattr(rollout, name)))
    return world.sum(entropies)


def collect(
    players: Players, batch: PromptBatch, uniforms: Tensor, ending: Ending, cfg: PPO
) -> tuple[Rollout, Tensor]:
    """A judged rollout and its entropies; a score that is no number stops here."""
    rollout = generate(players, batch, uniforms, ending, cfg)
    entropies = judge(players, rollout, cfg)
    require_finite(rollout.scores, "score of the reward model", rollout)
    require_finite(rollout.logprobs.sum(1), "log-prob of the policy", rollout)
    rollout.scores = missing_eos(
        rollout.scores,
        rollout.finished,
        mode=cfg.missing_eos.mode.name,
        value=cfg.missing_eos.value,
    )
    return rollout, entropies
