"""How many prompts, rollouts and steps a method has that learns from its own samples."""

from collections.abc import Iterator

from rlhf_cli.core.batches import PromptBatch
from rlhf_cli.data.collate import prompt_batches
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.data.order import num_batches
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.dry_run import Preview
from rlhf_cli.stages.rollout.models import OnPolicy
from rlhf_cli.stages.samples import example


def num_episodes(cfg: OnPolicy) -> int:
    """Return how many responses are learned from: total_episodes, or max_steps rollouts if fewer."""
    if cfg.max_steps is None:
        return cfg.total_episodes
    return min(cfg.total_episodes, cfg.max_steps * cfg.batch.rollout)


def num_iterations(cfg: OnPolicy) -> int:
    return num_batches(num_episodes(cfg), cfg.batch.rollout)


def most_steps(cfg: OnPolicy) -> int:
    """Return the optimizer steps of all iterations; a rollout is a multiple of a minibatch."""
    return cfg.inner_epochs * num_batches(num_episodes(cfg), cfg.batch.minibatch)


def batches(
    context: StageContext,
    prompts: list[EncodedPrompt],
    cfg: OnPolicy,
    *,
    start: int = 0,
    group: int = 1,
    extra: int = 0,
) -> Iterator[PromptBatch]:
    """Yield the prompts of every rollout from batch `start` on, each once before any comes again.

    group: responses per prompt. extra: further rollouts per iteration, at most.
    """
    return prompt_batches(
        prompts,
        size=cfg.batch.rollout // group,
        total=cfg.total_episodes // group * (1 + extra),
        pad_id=context.renderer.pad_id,
        seed=context.cfg.seed,
        start=start,
    )


def require_whole_shares(context: StageContext, stage: str, cfg: OnPolicy, group: int = 1) -> None:
    """Refuse sizes that the processes cannot divide; the last rollout and minibatch are what is left."""
    sizes = {
        f"{stage}.batch.rollout": cfg.batch.rollout,
        f"{stage}.total_episodes": cfg.total_episodes,
    }
    context.require_whole_shares(sizes, unit=group)
    context.require_whole_shares({f"{stage}.batch.minibatch": cfg.batch.minibatch})


def preview(context: StageContext, cfg: OnPolicy, *, group: int = 1) -> Preview:
    """Return what a dry run shows: counts, iterations, steps, and one prompt as the policy sees it."""
    data = context.encoded("prompts")
    episodes, rollout = num_episodes(cfg), cfg.batch.rollout
    left = episodes % rollout
    first = next(batches(context, data.train, cfg, group=group))
    passes = episodes / group / max(len(data.train), 1)
    return Preview(
        facts={
            "prompts": f"{len(data.train)} to train on, {len(data.held_out)} held out",
            "iterations": f"{num_iterations(cfg)} of {rollout} episodes"
            + (f", the last of {left}" if left else ""),
            "optimizer steps": f"{most_steps(cfg)} at most",
            "passes over the prompts": f"{passes:.1f}",
            "first batch": " x ".join(str(n) for n in first.tokens.shape),
        },
        example=example(context.renderer, data.train[0].ids, [False] * len(data.train[0].ids)),
        notes=data.report.plain().splitlines(),
    )
