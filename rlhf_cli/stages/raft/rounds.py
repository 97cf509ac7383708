"""The rounds of RAFT: draw prompts, sample, keep, learn."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from random import Random
from typing import Any

import torch
from torch import Tensor

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import RAFT, Batching, LossOn, RaftKeep, RaftSource
from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.core.randomness import stream_seed
from rlhf_cli.data.collate import BatchOptions, sft_batches
from rlhf_cli.data.encode import EncodedComparison, EncodedDemonstration, EncodedPrompt
from rlhf_cli.data.order import num_batches, prompt_order
from rlhf_cli.evaluation.kept_samples import Kept, distinct_bigrams, keep
from rlhf_cli.evaluation.respond import Answer, kl_to_reference
from rlhf_cli.models.forward import reads_unpadded
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.stages.context import Encoded, StageContext
from rlhf_cli.stages.reward_scorer import RewardModel
from rlhf_cli.stages.samples import sample_to_use
from rlhf_cli.stages.saving import Saver
from rlhf_cli.stages.training import lr_factor, require_finite_loss, token_loss, work_on_texts
from rlhf_cli.telemetry.recorder import Recorder

Step = list[SFTBatch]
Texts = list[tuple[list[int], int]]  # token ids, and how many of them are the prompt's


@dataclass(slots=True, kw_only=True)
class Models:
    """What a round samples with and compares with; reward and reference are None without samples."""

    policy: Engine
    reward: RewardModel | None = None
    reference: Network | None = None


@dataclass(slots=True, kw_only=True)
class Rounds:
    """What a stage of this kind works with. stage: its name, which is that of its section."""

    context: StageContext
    stage: str
    own: RAFT
    models: Models
    data: Encoded


@dataclass(slots=True)
class RaftState:
    """Inside `round`: the texts it kept, the step before its first, its metrics, the last ones."""

    round: int = 0
    begun: int = 0
    kept: Texts | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def tensors(self) -> dict[str, Tensor]:
        return {}


def samples(own: RAFT) -> bool:
    """Return whether the policy's own samples are learned from."""
    return own.source is RaftSource.samples


def num_rounds(own: RAFT) -> int:
    return own.rounds if samples(own) else 1


def most_steps(own: RAFT, data: Encoded) -> int:
    """Return the optimizer steps if every prompt keeps what it can; the schedule spans these."""
    if not samples(own):
        kept = len(top_ranked(data.train))
    elif own.keep is RaftKeep.top:
        kept = max(1, round(own.top * own.prompts * own.samples))
    else:
        kept = own.prompts
    return num_rounds(own) * own.epochs * num_batches(kept, own.batch.size)


def fit(rounds: Rounds, state: RaftState, recorder: Recorder, saver: Saver) -> dict[str, float]:
    """Run the rounds that are left: draw prompts, sample, keep, learn; return the last metrics."""
    own, clock, policy = rounds.own, rounds.context.clock, rounds.models.policy
    total = most_steps(own, rounds.data)
    for number in range(state.round, num_rounds(own)):
        if state.kept is None:
            state.kept, state.metrics = collect(rounds, number)
            state.begun = policy.steps
        steps = steps_of(rounds, state.kept, number, padded=not reads_unpadded(policy.model))
        for microbatches in steps[policy.steps - state.begun :]:
            with clock.phase("learn"):
                factor = lr_factor(own.schedule, policy.steps, total)
                state.last = state.metrics | learn(rounds, microbatches, factor)
            clock.count(**work_on_texts(policy, microbatches))
            recorder.log(state.last, policy.steps)
            saver.after_step(policy.steps, state)
        state.round, state.kept = number + 1, None
    return state.last


def collect(rounds: Rounds, number: int) -> tuple[Texts, dict[str, float]]:
    """Return the texts that round `number` learns from, and what is measured of them."""
    context, own, models, data = rounds.context, rounds.own, rounds.models, rounds.data
    if not samples(own):
        texts = [(p + r, len(p)) for p, r in top_ranked(data.train)]
        texts = [one for one in texts if one[0][-1] in context.renderer.end_ids]
        return required(texts, "data.comparisons has no preferred response that ended"), {}
    prompts = prompts_of_round(data.train, number, size=own.prompts, seed=context.cfg.seed)
    tries = sample_to_use(
        context,
        models.policy,
        [prompt.ids for prompt in prompts],
        temperature=own.temperature,
        batch=own.sample_batch,
        seeds=[stream_seed(context.cfg.seed, "raft", number, i) for i in range(own.samples)],
    )
    every = [one for some in tries for one in some]
    scores = torch.stack([models.reward.score_answers(some) for some in tries], dim=1)
    by_prompt = list(zip(*tries, strict=True))
    rng = Random(stream_seed(context.cfg.seed, "raft", "keep", number))
    kept = keep(by_prompt, scores.tolist(), own.keep, top=own.top, rng=rng)
    texts = [(one.prompt_ids + one.ids, len(one.prompt_ids)) for one in kept.answers]
    found = round_metrics(rounds.stage, kept, scores, kl_of(rounds, every), number)
    return required(texts, "no response of the round ended: nothing is left to learn from"), found


def kl_of(rounds: Rounds, answers: list[Answer]) -> float:
    """Return the mean log-ratio of the policy to the SFT model, nats per response."""
    context = rounds.context
    with context.clock.phase("score"):
        found = kl_to_reference(
            rounds.models.policy,
            rounds.models.reference,
            answers,
            pad_id=context.renderer.pad_id,
            batch=rounds.own.sample_batch,
            world=context.world,
        )
    return float(found.mean())


def round_metrics(
    stage: str, kept: Kept, scores: Tensor, kl: float, number: int
) -> dict[str, float]:
    """Return scores of all samples and of those kept, KL, length and variety."""
    num = max(len(kept.answers), 1)
    return {
        f"{stage}/round": float(number + 1),
        f"{stage}/scores": float(scores.mean()),
        f"{stage}/kept_scores": sum(kept.scores) / num,
        f"{stage}/kept": float(len(kept.answers)),
        f"{stage}/prompts_dropped": float(kept.num_dropped),
        f"{stage}/length": sum(len(one.ids) for one in kept.answers) / num,
        f"{stage}/distinct_bigrams": distinct_bigrams(kept.answers),
        "objective/kl": kl,
    }


def required(texts: Texts, problem: str) -> Texts:
    """Refuse a round without anything to learn from."""
    if not texts:
        raise UserError(f"{problem}; raise data.max_response_tokens, or train the SFT model longer")
    return texts


def prompts_of_round(
    prompts: Sequence[EncodedPrompt], number: int, *, size: int, seed: int
) -> list[EncodedPrompt]:
    """Return the prompts of a round: none comes again before all were used."""
    order = prompt_order(len(prompts), seed=seed)
    return [prompts[i] for i in islice(order, number * size, (number + 1) * size)]


def top_ranked(comparisons: Sequence[EncodedComparison]) -> list[tuple[list[int], list[int]]]:
    """Return prompt and response of the responses that win and never lose."""
    return [(one.prompt_ids, one.response_ids[i]) for one in comparisons for i in one.preferred]


def steps_of(rounds: Rounds, kept: Texts, number: int, *, padded: bool) -> list[Step]:
    """Return the optimizer steps of a round, all its epochs."""
    context, own, cfg = rounds.context, rounds.own, rounds.context.cfg
    texts = [
        EncodedDemonstration(
            ids=list(ids), loss_mask=[i >= prompt for i in range(len(ids))], record=None
        )
        for ids, prompt in kept
    ]
    return [
        step
        for epoch in range(own.epochs)
        for step in sft_batches(
            texts,
            BatchOptions(
                batch=own.batch,
                seed=cfg.seed,
                epoch=number * own.epochs + epoch,
                pad_id=context.renderer.pad_id,
                share=context.world.share,
                padded=padded,
            ),
            batching=Batching.grouped,
            loss_on=LossOn.response,
            max_tokens=cfg.data.max_prompt_tokens + cfg.data.max_response_tokens,
        )
    ]


def learn(rounds: Rounds, microbatches: Step, factor: float) -> dict[str, float]:
    """Take one optimizer step; every kept token of the whole step weighs the same."""
    policy, stage = rounds.models.policy, rounds.stage
    policy.train()
    found = token_loss(policy, microbatches)
    require_finite_loss(found.loss, stage)
    norm = policy.step(factor)
    return {
        f"{stage}/loss": found.loss,
        f"{stage}/lr": policy.peak_lr * factor,
        f"{stage}/grad_norm": norm,
    } | policy.device.peak_memory()
