"""Collect a rollout: sample responses to prompts, then score the samples with every model.

The processes divide the rows among themselves; afterwards each holds the complete rollout, which is
small beside the models, so that all that follows is the same on each.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from rlhf_cli.config.schema import OldLogprobs, RolloutBatch
from rlhf_cli.core.batches import PromptBatch, Rollout
from rlhf_cli.core.ensembles import members_std
from rlhf_cli.core.kl import k1, k2, k3
from rlhf_cli.core.masking import masked_mean, masked_sum
from rlhf_cli.core.microbatches import BatchCost, BatchLimit, divide
from rlhf_cli.core.returns import missing_eos
from rlhf_cli.models.forward import ModelInputs, reads_unpadded, response_logprobs, response_values
from rlhf_cli.models.generation.sampling import SamplingParams, require_close_logprobs, sample
from rlhf_cli.runtime.engine import Network
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.rollout.checks import require_finite
from rlhf_cli.stages.rollout.models import OnPolicy, RolloutModels

# The rows of a microbatch of the rollout, and the microbatch as all models read it.
Part = tuple[Tensor, ModelInputs]
RECOMPUTE_EVERY = 16  # iterations between two comparisons of the sampler with a forward pass
MAX_GAP = 1e-3  # nats per token: the sampler's log-probs are used up to this mean distance


def collect_rollout(
    models: RolloutModels,
    batch: PromptBatch,
    uniforms: Tensor,
    params: SamplingParams,
    cfg: OnPolicy,
    *,
    recompute: bool = True,
) -> tuple[Rollout, dict[str, float]]:
    """Return a scored rollout and its metrics; raise NotFinite where a score or log-prob is not.

    batch: prompts, each with params.copies responses in consecutive rows. uniforms (B, max_new_tokens),
    B of responses. recompute: a forward pass computes the old log-probs too, and the
    metrics measure the sampler's distance from them.
    """
    gap = None
    with models.clock.phase("generate"):
        rollout, entropies = sample_responses(models, batch, uniforms, params)
    with models.clock.phase("score"):
        parts = readings_of(models, rollout, cfg.batch)
        if recompute:
            logprobs, gap = recompute_logprobs(models, rollout, parts, cfg)
            if cfg.old_logprobs is not OldLogprobs.sampler:
                rollout = replace(rollout, logprobs=logprobs)
        rollout, spread = score_rollout(models, rollout, parts, cfg)
    num = len(rollout.scores)
    models.clock.sampled(responses=num, tokens=int(rollout.response_mask.sum()))
    models.clock.scored(num * len(models.scores))
    metrics = rollout_metrics(rollout, entropies, has_reference=models.ref_policy is not None)
    if len(models.scores) > 1:
        metrics["objective/members_std"] = spread
    return rollout, metrics if gap is None else metrics | {"policy/sampler_gap": gap}


def sample_responses(
    models: RolloutModels, batch: PromptBatch, uniforms: Tensor, params: SamplingParams
) -> tuple[Rollout, Tensor]:
    """Return the responses with the sampler's log-probs, not yet scored, and the entropies."""
    heartbeat("sampling a rollout")
    policy, world, copies = models.policy, models.policy.world, params.copies
    policy.eval()
    with policy.generating() as model:
        samples = sample(
            model,
            world.share.of(batch.tokens),
            world.share.of(batch.mask),
            world.share.of(uniforms.view(-1, copies, uniforms.shape[1])).flatten(0, 1),
            params,
            keep_going=policy.keep_going,
        )
    policy.train()
    num_columns = world.all_reduce_max(samples.responses.shape[1])
    size = (len(batch.tokens), copies, num_columns)
    rollout = Rollout.unscored(
        batch.tokens.repeat_interleave(copies, dim=0),
        batch.mask.repeat_interleave(copies, dim=0),
        all_gather_groups(samples.responses, size, world, fill=params.pad_id),
        all_gather_groups(samples.mask, size, world),
        all_gather_groups(samples.finished, size[:2], world),
    )
    rollout = replace(rollout, logprobs=all_gather_groups(samples.logprobs, size, world))
    return rollout, all_gather_groups(samples.entropies, size, world)


def score_rollout(
    models: RolloutModels, rollout: Rollout, parts: list[Part], cfg: OnPolicy
) -> tuple[Rollout, float]:
    """Return the rollout with ref_logprobs, scores and values: one model after the other reads it all.

    What no model computes is 0: values without a value model, ref_logprobs without a reference. Also
    returns the mean standard deviation of a response's scores over the reward models.
    """
    world = models.policy.world
    if models.ref_policy is not None:
        reference = logprobs_by(models.ref_policy, cfg.temperature)
        rollout = replace(
            rollout, ref_logprobs=forward_all(reference, parts, rollout.ref_logprobs, world)
        )
        models.ref_policy.offload()
    found = []
    for number, score in enumerate(models.scores):
        found.append(forward_all(score, parts, rollout.scores, world))
        if models.reward_models:
            models.reward_models[number].offload()
    members = torch.stack(found)
    scores = models.combine(members)
    rollout = replace(rollout, scores=scores)
    if (value_model := models.value_model) is not None:
        value = lambda inputs: value_model(response_values, inputs)  # noqa: E731
        rollout = replace(rollout, values=forward_all(value, parts, rollout.values, world))
    require_finite(rollout.scores, "score of the reward model", rollout)
    require_finite(rollout.logprobs.sum(1), "log-prob of the policy", rollout)
    eos = cfg.missing_eos
    paid = missing_eos(scores, rollout.finished, mode=eos.mode.name, value=eos.value)
    return replace(rollout, scores=paid), float(members_std(members).mean())


def should_recompute(mode: OldLogprobs, gap: float | None, iteration: int) -> bool:
    """Return whether a forward pass computes the log-probs of this iteration too.

    gap: what the last such pass found, nats per token.
    """
    if mode is OldLogprobs.recompute or iteration % RECOMPUTE_EVERY == 0:
        return True
    return mode is OldLogprobs.auto and (gap is None or gap > MAX_GAP)


def recompute_logprobs(
    models: RolloutModels, rollout: Rollout, parts: list[Part], cfg: OnPolicy
) -> tuple[Tensor, float]:
    """Return the log-probs (B, R) of the forward pass that training makes, and the sampler's gap to them.

    A sampler that is off by more than rounding is refused. gap: mean distance, nats per token.
    """
    policy = logprobs_by(models.policy, cfg.temperature)
    logprobs = forward_all(policy, parts, rollout.logprobs, models.policy.world)
    gap = float(masked_mean((logprobs - rollout.logprobs).abs(), rollout.response_mask))
    require_finite(logprobs.sum(1), "log-prob of the policy", rollout)
    require_close_logprobs(gap, models.device.dtype)
    return logprobs, gap


def logprobs_by(network: Network, temperature: float) -> Callable[[ModelInputs], Tensor]:
    """Return the function that computes the network's log-probs (B, R) of the responses."""
    return lambda inputs: network(response_logprobs, inputs, temperature=temperature)[0]


@torch.no_grad()
def forward_all(
    fn: Callable[[ModelInputs], Tensor], parts: list[Part], like: Tensor, world: World
) -> Tensor:
    """Apply `fn` to every row of the rollout and gather the results of all processes; 0 at padding."""
    gathered = torch.zeros_like(like)
    for index, inputs in parts:
        heartbeat("scoring a rollout")
        found = fn(inputs).float()
        gathered[(index, *(slice(0, n) for n in found.shape[1:]))] = found
    return world.all_reduce(gathered)


def all_gather_groups(values: Tensor, size: tuple[int, ...], world: World, fill: int = 0) -> Tensor:
    """Return every process's rows of a tensor in their places; missing columns are `fill`.

    size: (prompts, responses to each, ...); a prompt and its responses are of one process.
    -> (prompts * responses to each, ...)
    """
    dtype = values.dtype if values.is_floating_point() else torch.long
    gathered = torch.zeros(size, dtype=dtype, device=values.device)
    own = world.share.of(gathered)
    own.fill_(fill)
    columns = tuple(slice(0, n) for n in values.shape[1:])
    own[(slice(None), slice(None), *columns)] = values.to(dtype).view(
        *own.shape[:2], *values.shape[1:]
    )
    return world.all_reduce(gathered).to(values.dtype).flatten(0, 1)


def readings_of(models: RolloutModels, rollout: Rollout, batch: RolloutBatch) -> list[Part]:
    """Return this process's rows in microbatches, each trimmed to its own longest response."""
    indices = microbatches(models, rollout, batch)
    return [(rows, ModelInputs(rollout.select(rows).trim())) for rows in indices]


def microbatches(models: RolloutModels, rollout: Rollout, batch: RolloutBatch) -> list[Tensor]:
    """Return the rows of this process's microbatches; every process has as many.

    The number of rows is a multiple of the number of processes, so that no microbatch is empty.
    """
    share = models.policy.world.share
    rows = torch.arange(len(rollout.scores), device=rollout.scores.device)
    if batch.max_tokens is None:
        return list(share.of(rows).split(batch.microbatch))
    masks = (rollout.prompt_mask, rollout.response_mask)
    lengths = torch.stack([mask.sum(1) for mask in masks], dim=1).tolist()
    costs = [BatchCost(1, sum(widths), tuple(widths)) for widths in lengths]
    padded = not all(reads_unpadded(network.model) for network in models.readers)
    limit = BatchLimit(rows=batch.microbatch, tokens=batch.max_tokens, padded=padded)
    indices = divide(costs, limit, share.size)[share.rank]
    return [torch.tensor(index, device=rows.device) for index in indices]


def rollout_metrics(
    rollout: Rollout, entropies: Tensor, *, has_reference: bool = True
) -> dict[str, float]:
    """Return KL per response in three estimates, score, entropy and length of the rollout."""
    mask = rollout.response_mask
    per_response = {
        name: masked_sum(estimate(rollout.logprobs, rollout.ref_logprobs), mask) / len(mask)
        for name, estimate in (("kl", k1), ("kl_k2", k2), ("kl_k3", k3))
        if has_reference
    }
    ended = rollout.scores[rollout.finished]
    found = {f"objective/{name}": float(value) for name, value in per_response.items()}
    if len(ended):
        found["objective/scores_ended"] = float(ended.mean())
    if len(ended) > 1:
        found["objective/scores_ended_std"] = float(ended.std(unbiased=False))
    return found | {
        "objective/scores": float(rollout.scores.mean()),
        "objective/scores_std": float(rollout.scores.std(unbiased=False)),
        "objective/entropy": float(masked_mean(entropies, mask)),
        "objective/eos_rate": float(rollout.finished.float().mean()),
        "objective/response_length": float(mask.sum(1).float().mean()),
    }
