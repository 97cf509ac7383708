"""Step 2, the reward model: scores that order responses as people did. Or an ensemble of them."""

import gc
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf_cli.artifacts.layout import MEMBERS, MODEL
from rlhf_cli.artifacts.store import write_text
from rlhf_cli.config.schema import RM
from rlhf_cli.config.schema.run import Config
from rlhf_cli.core.batches import PreferenceBatch
from rlhf_cli.core.estimates import pair_accuracy
from rlhf_cli.core.preferences import PreferenceLoss
from rlhf_cli.core.randomness import stream_seed
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
    mean_scores,
    print_report,
    report_on,
    scored_sample,
    scores_of,
    sequences,
)
from rlhf_cli.stages.samples import example
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
NUM_ANCHORS = 512  # demonstrations and comparisons that the shift of the scores is computed from


@dataclass(slots=True)
class Members:
    """Of every member that is finished the shift, and the scores of held-out responses (n,)."""

    shifts: list[float] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)

    @property
    def at_work(self) -> int:
        """Return the number of the member that is trained, from 1."""
        return len(self.shifts) + 1

    def finish(self, shift: float, scores: Tensor) -> None:
        """Record what this one reached; the next is trained then."""
        self.shifts.append(shift)
        self.scores.append(scores)

    def state_dict(self) -> dict[str, Any]:
        return {"shifts": self.shifts}

    def tensors(self) -> dict[str, Tensor]:
        return {f"scores/{number}": found for number, found in enumerate(self.scores)}

    def load_state_dict(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.shifts = state["shifts"]
        self.scores = [tensors[f"scores/{number}"] for number in range(len(self.shifts))]


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Train every member on the comparisons, shift its scores, evaluate it; write model/ and members/."""
    sft = parent_model(inputs, "sft")
    context = open_context(cfg, sft)
    context.require_whole_shares({"rm.batch.size": cfg.rm.batch.size})
    data = context.encoded("comparisons")
    train = with_pairs(data.train, cfg.rm.ties, cfg)
    anchors = anchor_texts(context, train)
    engine, members = new_reward_model(context, sft), Members()
    steps = cfg.rm.members * total_steps(cfg, len(train))
    with open_run(
        context, out, stage="rm", engines={"model": engine}, total_steps=steps
    ) as stage_run:
        recorder, saver = stage_run.recorder, stage_run.saver
        if stage_run.resumed:
            members.load_state_dict(stage_run.resumed.state, stage_run.resumed.tensors)
        else:
            data.print_report(recorder)
            context.print_notes(recorder, engine, samples=False)
        for number in range(members.at_work, cfg.rm.members + 1):
            if engine is None:
                engine = saver.engines["model"] = new_reward_model(context, sft, number)
            fit(context, engine, train, recorder, saver, members)
            engine.eval()
            with context.clock.phase("score"):
                shift = centre(context, engine, train, anchors)
                scores = scores_of(context, engine, data.held_out)
            context.export(engine, out / folder_of(number))
            members.finish(shift, scores)
            engine = saver.engines["model"] = None
            gc.collect()  # its memory is that of the next
        found = report_on(cfg, data.held_out, members.scores)
        print_report(recorder, cfg, found, members.shifts)
        sample = scored_sample(cfg, data.held_out, mean_scores(members.scores))
        recorder.samples("a held-out comparison, scored", sample)
    if context.world.is_main:
        write_text(out / "report.json", json.dumps(found, indent=2))
    high = {"rm/score_p999": found["score_p999"]} if found["num_pairs"] else {}
    return headline(found) | {"rm/shift": members.shifts[0]} | high


def folder_of(member: int) -> Path:
    """Return where a member is, inside the stage's folder; the first is the model of the stage."""
    return Path(MODEL) if member == 1 else Path(MEMBERS) / str(member)


def seed_of(seed: int, member: int) -> int:
    """Return the seed of a member's head and order of the data; the first has that of the run."""
    return seed if member == 1 else stream_seed(seed, "member", member)


def total_steps(cfg: Config, num_comparisons: int) -> int:
    """Return how many optimizer steps the stage takes."""
    rm = cfg.rm
    return num_steps(num_comparisons, rm.batch.size, epochs=rm.epochs, max_steps=rm.max_steps)


def new_reward_model(context: StageContext, sft: Path, member: int = 1) -> Engine:
    """Return the SFT model with a fresh scalar head."""
    cfg = context.cfg
    model = context.scalar_model(sft, new_head=True, dropout=cfg.rm.dropout)
    check_head(model)
    engine = context.engine(model, cfg.rm.optim)
    reset_head(engine, seed=seed_of(cfg.seed, member))
    return engine


def steps_of(
    context: StageContext,
    train: Sequence[EncodedComparison],
    epoch: int,
    *,
    member: int = 1,
    padded: bool = False,
) -> Sequence[Step]:
    """Return one epoch: a list of optimizer steps, each a list of this process's microbatches.

    padded: the model reads padding.
    """
    options = BatchOptions(
        batch=context.cfg.rm.batch,
        pad_id=context.renderer.pad_id,
        seed=seed_of(context.cfg.seed, member),
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
    members: Members,
) -> None:
    """Take every step that is left of the member at work: all pairs of the prompts of each."""
    cfg, padded, member = context.cfg.rm, not reads_unpadded(engine.model), members.at_work
    total = total_steps(context.cfg, len(train))
    before = (member - 1) * total
    for step, microbatches in steps_after(
        engine.steps,
        per_epoch=num_batches(len(train), cfg.batch.size),
        total=total,
        steps_of=lambda epoch: steps_of(context, train, epoch, member=member, padded=padded),
    ):
        context.seed_dropout("rm", before + step)
        factor = lr_factor(cfg.schedule, step - 1, total)
        with context.clock.phase("learn"):
            metrics = learn(engine, microbatches, cfg, factor)
        context.clock.count(**work_on_comparisons(engine, microbatches))
        recorder.log(metrics, before + step)
        saver.after_step(before + step, members)


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
        yield from (one.sequences()[i] for i in one.preferred)


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
