"""Collect a rollout: sample, then let every model say what it thinks of the samples.

The processes divide the rows among themselves; afterwards each holds the whole rollout, which is
small beside the models, so that all that follows is the same on each.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_cli.config.schema import PPO, OldLogprobs
from rlhf_cli.core.batches import PromptBatch, Rollout
from rlhf_cli.core.masking import masked_mean
from rlhf_cli.core.returns import missing_eos
from rlhf_cli.models.forward import ModelInputs, response_logprobs, response_values
from rlhf_cli.models.generation.sampling import SamplingParams, require_close_logprobs, sample
from rlhf_cli.runtime.engine import Network
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.ppo.guards import require_finite
from rlhf_cli.stages.ppo.microbatches import microbatches
from rlhf_cli.stages.ppo.players import Players

# The rows of a part of the rollout, and the part as all networks read it.
Part = tuple[Tensor, ModelInputs]
LOOK_EVERY = 16  # iterations between two comparisons of the sampler's log-probs with a forward pass
GAP = 1e-3  # nats per token: the sampler's log-probs are used up to this mean distance


def generate(
    players: Players, batch: PromptBatch, uniforms: Tensor, params: SamplingParams
) -> tuple[Rollout, Tensor]:
    """Sample one response per prompt, with log-probs; nothing is judged yet. uniforms (B, max_new_tokens)

    Returns the entropies (B, R) too, of what each token was drawn from.
    """
    heartbeat("sampling a rollout")
    world, policy = players.world, players.policy
    policy.eval()
    with policy.generating() as model:
        samples = sample(
            model,
            world.share.of(batch.tokens),
            world.share.of(batch.mask),
            world.share.of(uniforms),
            params,
            keep_going=policy.going_on,
        )
    policy.train()
    width = world.all_reduce_max(samples.responses.shape[1])
    size = (len(batch.tokens), width)
    rollout = Rollout.unscored(
        batch.tokens,
        batch.mask,
        together(samples.responses, size, world, fill=params.pad_id),
        together(samples.mask, size, world),
        together(samples.finished, size[:1], world),
    )
    rollout.logprobs = together(samples.logprobs, size, world)
    return rollout, together(samples.entropies, size, world)


def together(values: Tensor, size: tuple[int, ...], world: World, fill: int = 0) -> Tensor:
    """Every process's rows of a tensor in their places; missing columns are `fill`. -> size"""
    dtype = values.dtype if values.is_floating_point() else torch.long
    whole = torch.zeros(size, dtype=dtype, device=values.device)
    mine = world.share.of(whole)
    mine.fill_(fill)
    mine[(slice(None), *(slice(0, n) for n in values.shape[1:]))] = values.to(dtype)
    return world.all_reduce(whole).to(values.dtype)


def parts_of(players: Players, rollout: Rollout, cfg: PPO) -> list[Part]:
    """This process's rows, a microbatch at a time, each trimmed to its own longest response."""
    rows = torch.arange(len(rollout.scores), device=rollout.scores.device)
    pieces = microbatches(players, rollout, rows, cfg.batch)
    return [(index, ModelInputs(rollout.select(index).trim())) for index in pieces]


@torch.no_grad()
def gathered(
    say: Callable[[ModelInputs], Tensor], parts: list[Part], like: Tensor, world: World
) -> Tensor:
    """What `say` says of every row of the rollout, 0 where it says nothing; known to all processes."""
    whole = torch.zeros_like(like)
    for index, inputs in parts:
        alive("judging a rollout")
        found = say(inputs).float()
        whole[(index, *(slice(0, n) for n in found.shape[1:]))] = found
    return world.all_reduce(whole)


def logprobs_by(network: Network, temperature: float) -> Callable[[ModelInputs], Tensor]:
    """The network's log-probs of the responses."""
    return lambda inputs: network(response_logprobs, inputs, temperature=temperature)[0]


def judge(players: Players, rollout: Rollout, parts: list[Part], cfg: PPO) -> None:
    """Fill in ref_logprobs, values and scores: model after model, each of which reads every part."""
    world = players.world
    reference = logprobs_by(players.ref_policy, cfg.temperature)
    rollout.ref_logprobs = gathered(reference, parts, rollout.ref_logprobs, world)
    players.ref_policy.offload()
    rollout.scores = gathered(players.score, parts, rollout.scores, world)
    players.rest()
    value = lambda inputs: players.value(response_values, inputs)  # noqa: E731
    rollout.values = gathered(value, parts, rollout.values, world)


def looks(mode: OldLogprobs, gap: float | None, iteration: int) -> bool:
    """Whether a forward pass tells the log-probs of this iteration too; gap: what the last one found."""
    if mode is OldLogprobs.recompute or iteration % LOOK_EVERY == 0:
        return True
    return mode is OldLogprobs.auto and (gap is None or gap > GAP)


def compare(players: Players, rollout: Rollout, parts: list[Part], cfg: PPO) -> float:
    """Log-probs by the forward pass that training makes; how far the sampler's are from them.

    They take the place of the sampler's, unless those are wanted whatever they are. A sampler that is off
    by more than rounding is refused. Mean distance in nats per token.
    """
    policy = logprobs_by(players.policy, cfg.temperature)
    logprobs = gathered(policy, parts, rollout.logprobs, players.world)
    gap = float(masked_mean((logprobs - rollout.logprobs).abs(), rollout.response_mask))
    require_finite(logprobs.sum(1), "log-prob of the policy", rollout)
    require_close_logprobs(gap, players.device.dtype)
    if cfg.old_logprobs is not OldLogprobs.sampler:
        rollout.logprobs = logprobs
    return gap


def collect(
    players: Players,
    batch: PromptBatch,
    uniforms: Tensor,
    params: SamplingParams,
    cfg: PPO,
    *,
    look: bool = True,
) -> tuple[Rollout, Tensor, float | None]:
    """A judged rollout, its entropies, and with `look` how far the sampler's log-probs are off.

    A score that is no number stops here.
    """
    with players.clock.part("generate"):
        rollout, entropies = generate(players, batch, uniforms, params)
    with players.clock.part("score"):
        parts = parts_of(players, rollout, cfg)
        gap = compare(players, rollout, parts, cfg) if look else None
        judge(players, rollout, parts, cfg)
        require_finite(rollout.scores, "score of the reward model", rollout)
        require_finite(rollout.logprobs.sum(1), "log-prob of the policy", rollout)
    rollout.scores = missing_eos(
        rollout.scores,
        rollout.finished,
        mode=cfg.missing_eos.mode.name,
        value=cfg.missing_eos.value,
    )
    return rollout, entropies, gap
