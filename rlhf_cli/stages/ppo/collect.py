"""Collect a rollout: sample, then let every model say what it thinks of the samples."""

from collections.abc import Iterator

import torch

from rlhf_cli.config.schema import PPO
from rlhf_cli.core.batches import PromptBatch, Rollout
from rlhf_cli.core.returns import missing_eos
from rlhf_cli.models.sampling import sample
from rlhf_cli.models.scoring import response_logprobs, response_values
from rlhf_cli.stages.ppo.guards import require_finite
from rlhf_cli.stages.ppo.players import Ending, Players


def microbatches(num_rows: int, size: int) -> Iterator[torch.Tensor]:
    """Row indices in order, `size` at a time."""
    return iter(torch.arange(num_rows).split(size))


def generate(
    players: Players, batch: PromptBatch, ending: Ending, cfg: PPO, generator: torch.Generator
) -> Rollout:
    """Sample one response a prompt; nothing is judged yet."""
    players.policy.model.eval()
    with players.device.autocast():
        samples = sample(
            players.policy.model,
            batch.tokens,
            batch.mask,
            max_new_tokens=ending.max_new_tokens,
            end_ids=ending.end_ids,
            pad_id=ending.pad_id,
            temperature=cfg.temperature,
            generator=generator,
        )
    players.policy.model.train()
    return Rollout.unjudged(
        batch.tokens, batch.mask, samples.responses, samples.mask, samples.finished
    )


@torch.no_grad()
def judge(players: Players, rollout: Rollout, cfg: PPO) -> torch.Tensor:
    """Fill in logprobs, ref_logprobs, values and scores; returns the policy's entropies (B, R).

    The old log-probs come from the same forward pass that training will make, not from the sampler:
    the first ratio is then 1 up to rounding. A microbatch is trimmed to its own longest response.
    """
    entropies = torch.zeros_like(rollout.logprobs)
    for index in microbatches(len(rollout.scores), cfg.batch.microbatch):
        index = index.to(rollout.scores.device)
        part = rollout.select(index).trim()
        columns = slice(0, part.responses.shape[1])
        with players.device.autocast():
            logprobs, entropy = response_logprobs(
                players.policy.model, part, temperature=cfg.temperature
            )
            ref_logprobs, _ = response_logprobs(
                players.ref_policy, part, temperature=cfg.temperature
            )
            values = response_values(players.value.model, part)
            scores = players.score(
                part.prompts, part.prompt_mask, part.responses, part.response_mask
            )
        rollout.logprobs[index, columns] = logprobs
        rollout.ref_logprobs[index, columns] = ref_logprobs
        rollout.values[index, columns] = values
        rollout.scores[index] = scores.float()
        entropies[index, columns] = entropy
    return entropies


def collect(
    players: Players, batch: PromptBatch, ending: Ending, cfg: PPO, generator: torch.Generator
) -> tuple[Rollout, torch.Tensor]:
    """A judged rollout and its entropies; a score that is no number stops here."""
    rollout = generate(players, batch, ending, cfg, generator)
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
