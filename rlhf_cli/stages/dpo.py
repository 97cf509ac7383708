"""Direct preference optimization: the comparisons raise and lower the policy's own log-probs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from rlhf_cli.artifacts.layout import MODEL
from rlhf_cli.artifacts.store import write_text
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import DPO, Ties
from rlhf_cli.config.schema.run import Config
from rlhf_cli.core.batches import PreferenceBatch
from rlhf_cli.core.direct import DirectLoss
from rlhf_cli.data.collate import BatchOptions, preference_batches
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.data.order import num_batches, num_steps, steps_after
from rlhf_cli.evaluation.comparisons import headline, report, scored_rankings
from rlhf_cli.models.forward import reads_unpadded, response_sums
from rlhf_cli.models.generation.sampling import TOLERANCE
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.stages.context import StageContext, open_context, parent_model
from rlhf_cli.stages.dry_run import Preview
from rlhf_cli.stages.reference_logprobs import (
    offsets,
    reference_logprobs,
    response_logprobs,
    rows_of,
)
from rlhf_cli.stages.samples import BeforeAfter, compared_prompts, example
from rlhf_cli.stages.saving import Saver
from rlhf_cli.stages.stage_run import open_run
from rlhf_cli.stages.training import (
    lr_factor,
    require_finite_loss,
    with_pairs,
    work_on_comparisons,
)
from rlhf_cli.telemetry.recorder import Recorder

Step = list[PreferenceBatch]
FELL = 1.0  # nats by which both log-probs must have fallen for a note


@dataclass(slots=True, kw_only=True)
class Comparisons:
    """Comparisons to train on with the reference's log-prob of every response, (n,)."""

    rows: Sequence[EncodedComparison]
    reference: Tensor
    starts: list[int] = field(default_factory=list)

    def __post_init__(self):
        self.starts = offsets(self.rows)

    def reference_of(self, batch: PreferenceBatch) -> Tensor:
        """Return the reference's log-probs of the batch's responses, (N,)."""
        return self.reference[rows_of(batch, batch.index, self.starts)]


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Train the policy on the comparisons, evaluate it on held-out ones, write model/ and report.json."""
    sft = parent_model(inputs, "sft")
    context = open_context(cfg, sft)
    context.require_whole_shares({"dpo.batch.size": cfg.dpo.batch.size})
    data = context.encoded("comparisons")
    rows = with_pairs(data.train, cfg.dpo.ties, cfg)
    require_pairs(rows, cfg.dpo)
    reference, held_out = reference_logprobs(context, sft, rows, data.held_out)
    train = Comparisons(rows=rows, reference=reference)
    engine = context.engine(context.causal_lm(sft), cfg.dpo.optim)
    samples = BeforeAfter(context=context, prompts=compared_prompts(data.held_out[: cfg.samples]))
    steps = total_steps(cfg, len(rows))
    with open_run(
        context, out, stage="dpo", engines={"policy": engine}, total_steps=steps, samples=samples
    ) as stage_run:
        recorder = stage_run.recorder
        if not stage_run.resumed:
            data.print_report(recorder)
            context.print_notes(recorder, engine)
            samples.sample("before", engine)
        fit(context, engine, train, recorder, stage_run.saver)
        samples.sample("after", engine)
        samples.show(recorder)
        engine.eval()
        with context.clock.phase("score"):
            log_ratios = response_logprobs(context, engine, data.held_out) - held_out
        scored = scored_rankings(data.held_out, cfg.dpo.beta * log_ratios)
        found = report(scored, ties=cfg.dpo.ties.name, tie_param=cfg.dpo.tie_param)
        context.export(engine, out / MODEL)
    if context.world.is_main:
        write_text(out / "report.json", json.dumps(found, indent=2))
    return headline(found, stage="dpo")


def total_steps(cfg: Config, num_comparisons: int) -> int:
    """Return how many optimizer steps the stage takes."""
    dpo = cfg.dpo
    return num_steps(num_comparisons, dpo.batch.size, epochs=dpo.epochs, max_steps=dpo.max_steps)


def require_pairs(comparisons: Sequence[EncodedComparison], cfg: DPO) -> None:
    """Refuse comparisons without anything to learn from."""
    if cfg.ties is Ties.drop and not any(one.better for one in comparisons):
        raise UserError(
            "data.comparisons has ties only, which dpo.ties=drop leaves out: set dpo.ties=soft, or give "
            "comparisons with a preference"
        )


def steps_of(
    context: StageContext, train: Sequence[EncodedComparison], epoch: int, *, padded: bool = False
) -> Sequence[Step]:
    """Return one epoch: a list of optimizer steps, each a list of this process's microbatches.

    padded: the model reads padding.
    """
    options = BatchOptions(
        batch=context.cfg.dpo.batch,
        pad_id=context.renderer.pad_id,
        seed=context.cfg.seed,
        epoch=epoch,
        share=context.world.share,
        padded=padded,
    )
    return preference_batches(train, options)


def fit(
    context: StageContext, engine: Engine, train: Comparisons, recorder: Recorder, saver: Saver
) -> None:
    """Take every step that is left; note once where both log-probs of a pair have fallen."""
    cfg, padded = context.cfg.dpo, not reads_unpadded(engine.model)
    total = total_steps(context.cfg, len(train.rows))
    for step, microbatches in steps_after(
        engine.steps,
        per_epoch=num_batches(len(train.rows), cfg.batch.size),
        total=total,
        steps_of=lambda epoch: steps_of(context, train.rows, epoch, padded=padded),
    ):
        factor = lr_factor(cfg.schedule, step - 1, total)
        with context.clock.phase("learn"):
            metrics = learn(engine, train, microbatches, cfg, factor)
        context.clock.count(**work_on_comparisons(engine, microbatches))
        recorder.log(metrics, step)
        if step == total and both_fell(metrics, cfg):
            recorder.warn(fell_note(metrics, cfg))
        saver.after_step(step)


def learn(
    engine: Engine, train: Comparisons, microbatches: Step, cfg: DPO, factor: float
) -> dict[str, float]:
    """Take one optimizer step; every prompt of the global batch has the same weight."""
    engine.train()
    world, place = engine.world, engine.device.torch
    prompts = world.sum_scalars({"n": sum(batch.num_prompts for batch in microbatches)})["n"]
    likely = world.sum_scalars({"n": sum(float(top_tokens(b)[1].sum()) for b in microbatches)})["n"]
    sums: dict[str, float] = {}
    for number, batch in enumerate(microbatches, start=1):
        heartbeat("learning from comparisons")
        moved, reference = batch.to(place), train.reference_of(batch).to(place)
        logprobs = engine(response_sums, moved)
        parts = losses(logprobs, reference, moved, cfg, num_prompts=prompts, num_tokens=likely)
        engine.backward(torch.stack(list(parts.values())).sum(), last=number == len(microbatches))
        terms = pair_statistics(logprobs.detach(), reference, moved, cfg.beta)
        terms |= {name: part.detach() for name, part in parts.items()}
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + float(term)
    whole = world.sum_scalars(sums)
    if engine.steps == 0:
        check_start(whole["gap"] / max(whole["tokens"], 1), engine.device.dtype)
    loss = sum(whole[name] for name in parts)
    require_finite_loss(loss, "dpo")
    pairs = max(whole["pairs"], 1)
    norm = engine.step(factor)
    return (
        {"dpo/loss": loss, "dpo/lr": engine.peak_lr * factor, "dpo/grad_norm": norm}
        | {name: value / pairs for name, value in whole.items() if "/" in name}
        | engine.device.peak_memory()
    )


def losses(
    logprobs: Tensor,
    reference: Tensor,
    batch: PreferenceBatch,
    cfg: DPO,
    *,
    num_prompts: float,
    num_tokens: float,
) -> dict[str, Tensor]:
    """Return the terms of the loss of one microbatch, as shares of the global batch."""
    pair_loss = DirectLoss(
        loss=cfg.loss.name,
        beta=cfg.beta,
        label_smoothing=cfg.label_smoothing,
        ties=cfg.ties.name,
        tie_param=cfg.tie_param,
        margin=cfg.margin,
    )
    found = {
        "loss": pair_loss(
            logprobs - reference,
            batch.lengths,
            batch.pairs,
            batch.targets,
            batch.weights,
            num_prompts=num_prompts,
        )
    }
    if cfg.sft_coef > 0:
        top, _ = top_tokens(batch)
        found["sft_loss"] = -cfg.sft_coef * logprobs[top].sum() / max(num_tokens, 1)
    return found


def top_tokens(batch: PreferenceBatch) -> tuple[Tensor, Tensor]:
    """Return the rows of the responses that win and never lose, and their numbers of tokens."""
    strict = batch.pairs[batch.targets == 1.0]
    top = torch.tensor(
        sorted({*strict[:, 0].tolist()} - {*strict[:, 1].tolist()}), dtype=torch.long
    )
    top = top.to(batch.pairs.device)
    return top, batch.lengths[top]


def pair_statistics(
    logprobs: Tensor, reference: Tensor, batch: PreferenceBatch, beta: float
) -> dict[str, Tensor]:
    """Return sums over the strict pairs of a microbatch, and of |log-ratio| over all tokens."""
    strict = batch.pairs[batch.targets == 1.0]
    rewards = beta * (logprobs - reference)
    chosen, rejected = rewards[strict[:, 0]], rewards[strict[:, 1]]
    return {
        "rewards/chosen": chosen.sum(),
        "rewards/rejected": rejected.sum(),
        "rewards/margins": (chosen - rejected).sum(),
        "rewards/accuracies": (chosen > rejected).float().sum(),
        "logps/chosen": logprobs[strict[:, 0]].sum(),
        "logps/rejected": logprobs[strict[:, 1]].sum(),
        "pairs": torch.tensor(float(len(strict))),
        "gap": (logprobs - reference).abs().sum(),
        "tokens": batch.lengths.sum(),
    }


def check_start(gap: float, dtype: torch.dtype) -> None:
    """Refuse a policy that is not its reference before the first step: log-ratios must be 0."""
    if gap > TOLERANCE[dtype]:
        raise UserError(
            f"DPO would start {gap:.2g} nats per token away from its reference: the log-probs in "
            f"{Path('.cache') / 'reference'} of runs_dir are not those of this model; remove that folder"
        )


def both_fell(metrics: dict[str, float], cfg: DPO) -> bool:
    """Return whether chosen and rejected responses are both less likely than under the reference."""
    fell = (metrics[f"rewards/{which}"] / cfg.beta <= -FELL for which in ("chosen", "rejected"))
    return all(fell) and metrics["rewards/margins"] > 0


def fell_note(metrics: dict[str, float], cfg: DPO) -> str:
    """Return in words that the margin grew by lowering both."""
    chosen, rejected = (metrics[f"rewards/{w}"] / cfg.beta for w in ("chosen", "rejected"))
    return (
        f"the log-probs of chosen and rejected responses both fell, by {-chosen:.1f} and {-rejected:.1f} "
        "nats: the margin grew because rejected ones fell more; dpo.sft_coef holds the chosen ones up"
    )


def preview(cfg: Config, inputs: dict[str, Path]) -> Preview:
    """Return a dry run's counts, steps, and one comparison with its first response coloured."""
    context = open_context(cfg)
    data = context.encoded("comparisons")
    steps = steps_of(context, data.train, epoch=0)
    one = data.train[0]
    mask = [False] * len(one.prompt_ids) + [True] * len(one.response_ids[0])
    return Preview(
        facts={
            "comparisons": f"{len(data.train)} prompts to train on, {len(data.held_out)} held out",
            "pairs": f"{sum(len(c.better) for c in data.train)} strict, "
            f"{sum(len(c.ties) for c in data.train)} ties",
            "optimizer steps": f"{len(steps)} per epoch, {total_steps(cfg, len(data.train))} in total",
        },
        example=example(context.renderer, one.sequences()[0], mask),
        notes=data.report.plain().splitlines(),
    )
