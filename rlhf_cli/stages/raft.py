"""RAFT: rounds of sampling, keeping what the reward model prefers, and SFT on that (2304.06767)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from rlhf_cli.artifacts.layout import MODEL
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Batching, LossOn, RaftKeep, RaftSource
from rlhf_cli.config.schema.run import Config
from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.core.randomness import stream_seed
from rlhf_cli.data.collate import BatchOptions, sft_batches
from rlhf_cli.data.encode import EncodedComparison, EncodedDemonstration, EncodedPrompt
from rlhf_cli.data.order import num_batches, prompt_order
from rlhf_cli.evaluation.kept_samples import Kept, distinct_bigrams, keep
from rlhf_cli.evaluation.respond import Answer, kl_to_reference, respond
from rlhf_cli.models.forward import reads_unpadded
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.stages.context import Encoded, StageContext, open_context, parent_model
from rlhf_cli.stages.dry_run import Preview
from rlhf_cli.stages.reward_scorer import RewardModel
from rlhf_cli.stages.samples import BeforeAfter, compared_prompts, example
from rlhf_cli.stages.saving import Saver
from rlhf_cli.stages.stage_run import open_run
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


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Run all rounds; write model/."""
    sft = parent_model(inputs, "sft")
    context = open_context(cfg, sft)
    context.require_whole_shares({"raft.batch.size": cfg.raft.batch.size})
    data = context.encoded("prompts" if samples(cfg) else "comparisons")
    models = Models(policy=context.engine(context.causal_lm(sft), cfg.raft.optim))
    if samples(cfg):
        models.reward = RewardModel.load(context, parent_model(inputs, "rm"), data.train)
        models.reference = context.network(context.causal_lm(sft))
    shown = data.held_out[: cfg.samples]
    prompts = shown if samples(cfg) else compared_prompts(shown)
    before_after = BeforeAfter(context=context, prompts=prompts)
    with open_run(
        context,
        out,
        stage="raft",
        engines={"policy": models.policy},
        total_steps=most_steps(cfg, data),
        samples=before_after,
    ) as stage_run:
        recorder, state = stage_run.recorder, RaftState()
        if stage_run.resumed:
            state.load_state_dict(stage_run.resumed.state)
        else:
            data.print_report(recorder)
            context.print_notes(recorder, models.policy)
            before_after.sample("before", models.policy)
        metrics = fit(context, models, data, state, recorder, stage_run.saver)
        before_after.sample("after", models.policy)
        before_after.show(recorder)
        context.export(models.policy, out / MODEL)
    return metrics


def samples(cfg: Config) -> bool:
    """Return whether the policy's own samples are learned from."""
    return cfg.raft.source is RaftSource.samples


def num_rounds(cfg: Config) -> int:
    return cfg.raft.rounds if samples(cfg) else 1


def most_steps(cfg: Config, data: Encoded) -> int:
    """Return the optimizer steps if every prompt keeps what it can; the schedule spans these."""
    raft = cfg.raft
    if not samples(cfg):
        kept = len(top_ranked(data.train))
    elif raft.keep is RaftKeep.top:
        kept = max(1, round(raft.top * raft.prompts * raft.samples))
    else:
        kept = raft.prompts
    return num_rounds(cfg) * raft.epochs * num_batches(kept, raft.batch.size)


def fit(
    context: StageContext,
    models: Models,
    data: Encoded,
    state: RaftState,
    recorder: Recorder,
    saver: Saver,
) -> dict[str, float]:
    """Run the rounds that are left: draw prompts, sample, keep, learn; return the last metrics."""
    cfg, policy = context.cfg, models.policy
    total = most_steps(cfg, data)
    for number in range(state.round, num_rounds(cfg)):
        if state.kept is None:
            state.kept, state.metrics = collect(context, models, data, number)
            state.begun = policy.steps
        steps = steps_of(context, state.kept, number, padded=not reads_unpadded(policy.model))
        for microbatches in steps[policy.steps - state.begun :]:
            with context.clock.phase("learn"):
                factor = lr_factor(cfg.raft.schedule, policy.steps, total)
                state.last = state.metrics | learn(policy, microbatches, factor)
            context.clock.count(**work_on_texts(policy, microbatches))
            recorder.log(state.last, policy.steps)
            saver.after_step(policy.steps, state)
        state.round, state.kept = number + 1, None
    return state.last


def collect(
    context: StageContext, models: Models, data: Encoded, number: int
) -> tuple[Texts, dict[str, float]]:
    """Return the texts that round `number` learns from, and what is measured of them."""
    if not samples(context.cfg):
        texts = [(p + r, len(p)) for p, r in top_ranked(data.train)]
        texts = [one for one in texts if one[0][-1] in context.renderer.end_ids]
        return required(texts, "data.comparisons has no preferred response that ended"), {}
    raft, prompts = context.cfg.raft, prompts_of_round(context, data.train, number)
    with context.clock.phase("generate"):
        tries = respond(
            models.policy,
            [prompt.ids for prompt in prompts],
            context.renderer,
            context.sampling_params(temperature=raft.temperature),
            context.world,
            batch=raft.sample_batch,
            seeds=[stream_seed(context.cfg.seed, "raft", number, i) for i in range(raft.samples)],
        )
    context.clock.count(generated=sum(len(one.ids) for some in tries for one in some))
    scores = torch.stack([models.reward.score_answers(some) for some in tries], dim=1)
    by_prompt = list(zip(*tries, strict=True))
    rng = Random(stream_seed(context.cfg.seed, "raft", "keep", number))
    kept = keep(by_prompt, scores.tolist(), raft.keep, top=raft.top, rng=rng)
    texts = [(one.prompt_ids + one.ids, len(one.prompt_ids)) for one in kept.answers]
    every = [one for some in tries for one in some]
    found = round_metrics(kept, scores, kl_of(context, models, every), number)
    return required(texts, "no response of the round ended: nothing is left to learn from"), found


def kl_of(context: StageContext, models: Models, answers: list[Answer]) -> float:
    """Return the mean log-ratio of the policy to the SFT model, nats per response."""
    with context.clock.phase("score"):
        found = kl_to_reference(
            models.policy,
            models.reference,
            answers,
            pad_id=context.renderer.pad_id,
            batch=context.cfg.raft.sample_batch,
            world=context.world,
        )
    return float(found.mean())


def round_metrics(kept: Kept, scores: Tensor, kl: float, number: int) -> dict[str, float]:
    """Return scores of all samples and of those kept, KL, length and variety."""
    num = max(len(kept.answers), 1)
    return {
        "raft/round": float(number + 1),
        "raft/scores": float(scores.mean()),
        "raft/kept_scores": sum(kept.scores) / num,
        "raft/kept": float(len(kept.answers)),
        "raft/prompts_dropped": float(kept.num_dropped),
        "raft/length": sum(len(one.ids) for one in kept.answers) / num,
        "raft/distinct_bigrams": distinct_bigrams(kept.answers),
        "objective/kl": kl,
    }


def required(texts: Texts, problem: str) -> Texts:
    """Refuse a round without anything to learn from."""
    if not texts:
        raise UserError(f"{problem}; raise data.max_response_tokens, or train the SFT model longer")
    return texts


def prompts_of_round(
    context: StageContext, prompts: Sequence[EncodedPrompt], number: int
) -> list[EncodedPrompt]:
    """Return the prompts of a round: none comes again before all were used."""
    size = context.cfg.raft.prompts
    order = prompt_order(len(prompts), seed=context.cfg.seed)
    return [prompts[next(order)] for _ in range((number + 1) * size)][number * size :]


def top_ranked(comparisons: Sequence[EncodedComparison]) -> list[tuple[list[int], list[int]]]:
    """Return prompt and response of the responses that win and never lose."""
    found = []
    for one in comparisons:
        won, lost = {winner for winner, _ in one.better}, {loser for _, loser in one.better}
        found += [(one.prompt_ids, one.response_ids[i]) for i in sorted(won - lost)]
    return found


def steps_of(context: StageContext, kept: Texts, number: int, *, padded: bool) -> list[Step]:
    """Return the optimizer steps of a round, all its epochs."""
    cfg = context.cfg
    texts = [
        EncodedDemonstration(
            ids=list(ids), loss_mask=[i >= prompt for i in range(len(ids))], record=None
        )
        for ids, prompt in kept
    ]
    return [
        step
        for epoch in range(cfg.raft.epochs)
        for step in sft_batches(
            texts,
            BatchOptions(
                batch=cfg.raft.batch,
                seed=cfg.seed,
                epoch=number * cfg.raft.epochs + epoch,
                pad_id=context.renderer.pad_id,
                share=context.world.share,
                padded=padded,
            ),
            batching=Batching.grouped,
            loss_on=LossOn.response,
            max_tokens=cfg.data.max_prompt_tokens + cfg.data.max_response_tokens,
        )
    ]


def learn(policy: Engine, microbatches: Step, factor: float) -> dict[str, float]:
    """Take one optimizer step; every kept token of the whole step weighs the same."""
    policy.train()
    found = token_loss(policy, microbatches)
    require_finite_loss(found.loss, "raft")
    norm = policy.step(factor)
    return {
        "raft/loss": found.loss,
        "raft/lr": policy.peak_lr * factor,
        "raft/grad_norm": norm,
    } | policy.device.peak_memory()


def preview(cfg: Config, inputs: dict[str, Path]) -> Preview:
    """Return what a dry run shows: counts, rounds, steps, and one prompt."""
    context = open_context(cfg)
    data = context.encoded("prompts" if samples(cfg) else "comparisons")
    first = data.train[0]
    ids = first.ids if samples(cfg) else first.prompt_ids
    facts = {
        "rounds": f"{num_rounds(cfg)} of {cfg.raft.prompts} prompts, {cfg.raft.samples} responses each"
        if samples(cfg)
        else f"one, of {len(top_ranked(data.train))} preferred responses",
        "optimizer steps": f"{most_steps(cfg, data)} at most",
    }
    return Preview(
        facts=facts,
        example=example(context.renderer, ids, [False] * len(ids)),
        notes=data.report.plain().splitlines(),
    )
