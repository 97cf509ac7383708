"""Step 2, the reward model: scores that order responses as people did."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from rlhf_cli.artifacts.layout import MODEL
from rlhf_cli.artifacts.store import write_text
from rlhf_cli.config.schema import RM
from rlhf_cli.config.schema.run import Config
from rlhf_cli.core.batches import PreferenceBatch
from rlhf_cli.core.estimates import pair_accuracy
from rlhf_cli.core.preferences import PreferenceLoss
from rlhf_cli.data.collate import BatchOptions, preference_batches
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.data.order import num_batches, num_steps, steps_after
from rlhf_cli.evaluation.comparisons import headline
from rlhf_cli.evaluation.respond import forward_sequences
from rlhf_cli.models.forward import last_hidden, reads_unpadded, sequence_scores
from rlhf_cli.models.reward_head import HEAD, check_head, shift_head_mean
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.stages.context import StageContext, open_context, parent_model
from rlhf_cli.stages.dry_run import Preview
from rlhf_cli.stages.reward_scorer import reset_head
from rlhf_cli.stages.rm_report import (
    FORWARD,
    evaluate_scores,
    print_report,
    scored_sample,
    sequences,
)
from rlhf_cli.stages.samples import example
from rlhf_cli.stages.saving import Saver
from rlhf_cli.stages.stage_run import open_run
from rlhf_cli.stages.training import lr_factor, require_finite_loss, work_on_comparisons
from rlhf_cli.telemetry.recorder import Recorder

Step = list[PreferenceBatch]
NUM_ANCHORS = 512  # demonstrations and comparisons that the shift of the scores is computed from


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Train on the comparisons, shift the scores, evaluate on held-out comparisons, write model/."""
    sft = parent_model(inputs, "sft")
    context = open_context(cfg, sft)
    context.require_whole_shares({"rm.batch.size": cfg.rm.batch.size})
    data = context.encoded("comparisons")
    anchors = anchor_texts(context, data.train)
    engine = new_reward_model(context, sft)
    steps = total_steps(cfg, len(data.train))
    with open_run(
        context, out, stage="rm", engines={"model": engine}, total_steps=steps
    ) as stage_run:
        recorder = stage_run.recorder
        if not stage_run.resumed:
            data.print_report(recorder)
            context.print_notes(recorder, engine, samples=False)
        fit(context, engine, data.train, recorder, stage_run.saver)
        engine.eval()
        with context.clock.phase("score"):
            shift = centre(context, engine, data.train, anchors)
            found = evaluate_scores(context, engine, data.held_out)
            sample = scored_sample(context, engine, data.held_out)
        print_report(recorder, cfg, found, shift)
        recorder.samples("a held-out comparison, scored", sample)
        context.export(engine, out / MODEL)
    if context.world.is_main:
        write_text(out / "report.json", json.dumps(found, indent=2))
    return headline(found) | {"rm/shift": shift}


def total_steps(cfg: Config, num_comparisons: int) -> int:
    """Return how many optimizer steps the stage takes."""
    rm = cfg.rm
    return num_steps(num_comparisons, rm.batch.size, epochs=rm.epochs, max_steps=rm.max_steps)


def new_reward_model(context: StageContext, sft: Path) -> Engine:
    """Return the SFT model with a fresh scalar head."""
    cfg = context.cfg
    model = context.scalar_model(sft, new_head=True, dropout=cfg.rm.dropout)
    check_head(model)
    engine = context.engine(model, cfg.rm.optim)
    reset_head(engine, seed=cfg.seed)
    return engine


def steps_of(
    context: StageContext, train: Sequence[EncodedComparison], epoch: int, *, padded: bool = False
) -> Sequence[Step]:
    """Return one epoch: a list of optimizer steps, each a list of this process's microbatches.

    padded: the model reads padding.
    """
    options = BatchOptions(
        batch=context.cfg.rm.batch,
        pad_id=context.renderer.pad_id,
        seed=context.cfg.seed,
        epoch=epoch,
        share=context.world.share,
        padded=padded,
    )
    return preference_batches(train, options)


def fit(
    context: StageContext,
    engine: Engine,
    train: Sequence[EncodedComparison],
    recorder: Recorder,
    saver: Saver,
) -> None:
    """Take every step that is left: all pairs of its prompts, each response forwarded once."""
    cfg, padded = context.cfg.rm, not reads_unpadded(engine.model)
    total = total_steps(context.cfg, len(train))
    for step, microbatches in steps_after(
        engine.steps,
        per_epoch=num_batches(len(train), cfg.batch.size),
        total=total,
        steps_of=lambda epoch: steps_of(context, train, epoch, padded=padded),
    ):
        context.seed_dropout("rm", step)
        factor = lr_factor(cfg.schedule, step - 1, total)
        with context.clock.phase("learn"):
            metrics = learn(engine, microbatches, cfg, factor)
        context.clock.count(**work_on_comparisons(engine, microbatches))
        recorder.log(metrics, step)
        saver.after_step(step)


def learn(engine: Engine, microbatches: Step, cfg: RM, factor: float) -> dict[str, float]:
    """Take one optimizer step; every prompt of the global batch has the same weight."""
    engine.train()
    world = engine.world
    prompts = world.sum_scalars({"n": sum(batch.num_prompts for batch in microbatches)})["n"]
    loss, hits, pairs = 0.0, 0.0, 0
    for number, batch in enumerate(microbatches, start=1):
        heartbeat("learning from comparisons")
        moved = batch.to(engine.device.torch)
        scores = engine(sequence_scores, moved.tokens, moved.mask)
        part = pair_loss(scores, moved, cfg, prompts)
        engine.backward(part, last=number == len(microbatches))
        loss += float(part.detach())
        right, seen = strict_hits(scores.detach(), moved)
        hits, pairs = hits + right, pairs + seen
    whole = world.sum_scalars({"loss": loss, "hits": hits, "pairs": pairs})
    require_finite_loss(whole["loss"], "rm")
    norm = engine.step(factor)
    return {
        "rm/loss": whole["loss"],
        "rm/accuracy": whole["hits"] / max(whole["pairs"], 1),
        "rm/lr": engine.peak_lr * factor,
        "rm/grad_norm": norm,
        "rm/pairs": whole["pairs"],
    } | engine.device.peak_memory()


def pair_loss(scores: Tensor, batch: PreferenceBatch, cfg: RM, num_prompts: float) -> Tensor:
    """Compute the loss of one microbatch as its share of the global batch."""
    loss = PreferenceLoss(
        ties=cfg.ties.name,
        tie_param=cfg.tie_param,
        margin=cfg.margin,
        label_smoothing=cfg.label_smoothing,
        center_coef=cfg.center_coef,
    )
    return loss(scores, batch.pairs, batch.targets, batch.weights, num_prompts=num_prompts)


def strict_hits(scores: Tensor, batch: PreferenceBatch) -> tuple[float, int]:
    """Return how many pairs without a tie are ordered right, and how many there are."""
    pairs = batch.pairs[batch.targets == 1.0]
    return (pair_accuracy(scores, pairs) * len(pairs) if len(pairs) else 0.0), len(pairs)


def anchor_texts(context: StageContext, train: Sequence[EncodedComparison]) -> list[list[int]]:
    """Return the texts that score 0 on average: demonstrations, or else the preferred responses."""
    if context.cfg.data.demonstrations:
        return [one.ids for one in context.encoded("demonstrations").train[:NUM_ANCHORS]]
    return list(islice(preferred(train), NUM_ANCHORS))


def preferred(comparisons: Iterable[EncodedComparison]) -> Iterator[list[int]]:
    """Yield the responses that win and never lose, with their prompts."""
    for one in comparisons:
        won, lost = {winner for winner, _ in one.better}, {loser for _, loser in one.better}
        yield from (one.sequences()[i] for i in sorted(won - lost))


def centre(
    context: StageContext,
    engine: Engine,
    train: Sequence[EncodedComparison],
    anchors: list[list[int]],
) -> float:
    """Shift the scores so that the anchors' mean is 0 (IG 3.5); return the subtracted mean."""
    few = train[:NUM_ANCHORS]
    states, differences, start = hidden(context, engine, sequences(few)), [], 0
    for one in few:
        differences += [states[start + win] - states[start + lose] for win, lose in one.better]
        start += len(one.response_ids)
    weight = engine.get(HEAD)
    moved, shift = shift_head_mean(
        weight, hidden(context, engine, anchors), torch.stack(differences)
    )
    engine.put(HEAD, moved)
    return shift


def hidden(context: StageContext, network: Network, rows: list[list[int]]) -> Tensor:
    """Compute the last hidden state of every row of token ids, (n, D) on the CPU."""
    return forward_sequences(
        last_hidden,
        network,
        rows,
        pad_id=context.renderer.pad_id,
        batch=FORWARD,
        world=context.world,
    )


def preview(cfg: Config, inputs: dict[str, Path]) -> Preview:
    """Return a dry run's counts, steps, and one comparison with its first response coloured."""
    context = open_context(cfg)
    data = context.encoded("comparisons")
    steps = steps_of(context, data.train, epoch=0)
    one = data.train[0]
    mask = [False] * len(one.prompt_ids) + [True] * len(one.response_ids[0])
    strict, ties = sum(len(c.better) for c in data.train), sum(len(c.ties) for c in data.train)
    return Preview(
        facts={
            "comparisons": f"{len(data.train)} prompts to train on, {len(data.held_out)} held out",
            "responses per prompt": spread([len(c.response_ids) for c in data.train]),
            "pairs": f"{strict} strict, {ties} ties",
            "optimizer steps": f"{len(steps)} per epoch, {total_steps(cfg, len(data.train))} in total",
        },
        example=example(context.renderer, one.sequences()[0], mask),
        notes=data.report.plain().splitlines(),
    )


def spread(numbers: list[int]) -> str:
    """Return [4, 9, 9] as "4 to 9"."""
    return f"{min(numbers)} to {max(numbers)}" if min(numbers) < max(numbers) else str(numbers[0])
