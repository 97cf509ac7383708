"""Step 2, the reward model: scores that order responses as people did."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from rlhf_cli.artifacts.layout import MODEL
from rlhf_cli.artifacts.store import write_text
from rlhf_cli.config.schema import RM, Config
from rlhf_cli.core.batches import PreferenceBatch
from rlhf_cli.core.estimates import pair_accuracy
from rlhf_cli.core.preferences import preference_loss
from rlhf_cli.data.collate import preference_batches
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.data.order import num_batches, num_steps, steps_after
from rlhf_cli.evaluation.comparisons import headline
from rlhf_cli.evaluation.respond import forward_sequences
from rlhf_cli.models.forward import last_hidden, sequence_scores
from rlhf_cli.models.reward_head import HEAD, check_head, shift_head_mean
from rlhf_cli.models.unpadding.attention import reads_unpadded
from rlhf_cli.report.preview import Preview
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.stages import work
from rlhf_cli.stages.judging import renew_head
from rlhf_cli.stages.rm_report import FORWARD, judge, scored_sample, sequences, tell
from rlhf_cli.stages.saving import Saver, open_saver
from rlhf_cli.stages.setting import (
    Setting,
    lr_factor,
    open_recorder,
    open_setting,
    parent_model,
    require_finite_loss,
)
from rlhf_cli.stages.showing import example
from rlhf_cli.telemetry.recorder import Recorder

Step = list[PreferenceBatch]
NUM_ANCHORS = 512  # demonstrations and comparisons that the shift of the scores is computed from


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Train on the comparisons, shift the scores, judge on held-out comparisons, write model/."""
    sft = parent_model(inputs, "sft")
    setting = open_setting(cfg, sft)
    setting.require_whole_shares({"rm.batch.size": cfg.rm.batch.size})
    data = setting.encoded("comparisons")
    anchors = anchor_texts(setting, data.train)
    engine = new_reward_model(setting, sft)
    saver = open_saver(setting, out, {"model": engine})
    resumed = saver.resumed
    with open_recorder(
        setting,
        out,
        stage="rm",
        total_steps=total_steps(cfg, len(data.train)),
        resumed=resumed and resumed.recorder,
    ) as recorder:
        saver.recorder_state = recorder.state
        if not resumed:
            data.tell(recorder)
            setting.tell(recorder, engine, samples=False)
        fit(setting, engine, data.train, recorder, saver, done=resumed.step if resumed else 0)
        engine.eval()
        with setting.clock.part("score"):
            shift = centre(setting, engine, data.train, anchors)
            found = judge(setting, engine, data.held_out)
            sample = scored_sample(setting, engine, data.held_out)
        tell(recorder, cfg, found, shift)
        recorder.samples("a held-out comparison, scored", sample)
        setting.export(engine, out / MODEL)
    if setting.world.is_main:
        write_text(out / "report.json", json.dumps(found, indent=2))
    return headline(found) | {"rm/shift": shift}


def total_steps(cfg: Config, num_comparisons: int) -> int:
    """Return how many optimizer steps the stage takes."""
    rm = cfg.rm
    return num_steps(num_comparisons, rm.batch.size, epochs=rm.epochs, max_steps=rm.max_steps)


def new_reward_model(setting: Setting, sft: Path) -> Engine:
    """The SFT model with a fresh scalar head."""
    cfg = setting.cfg
    model = setting.scalar_model(sft, new_head=True, dropout=cfg.rm.dropout)
    check_head(model)
    engine = setting.engine(model, cfg.rm.optim)
    renew_head(engine, seed=cfg.seed)
    return engine


def steps_of(
    setting: Setting, train: Sequence[EncodedComparison], epoch: int, *, padded: bool = False
) -> Sequence[Step]:
    """One epoch: a list of optimizer steps, each a list of this process's microbatches.

    padded: the model reads padding.
    """
    return preference_batches(
        train,
        batch=setting.cfg.rm.batch,
        pad_id=setting.renderer.pad_id,
        seed=setting.cfg.seed,
        epoch=epoch,
        share=setting.world.share,
        padded=padded,
    )


def fit(
    setting: Setting,
    engine: Engine,
    train: Sequence[EncodedComparison],
    recorder: Recorder,
    saver: Saver,
    *,
    done: int,
) -> None:
    """Every step after the first `done`: all pairs of its prompts, each completion forwarded once."""
    cfg, padded = setting.cfg.rm, not reads_unpadded(engine.model)
    total = total_steps(setting.cfg, len(train))
    for step, microbatches in steps_after(
        done,
        per_epoch=num_batches(len(train), cfg.batch.size),
        total=total,
        steps_of=lambda epoch: steps_of(setting, train, epoch, padded=padded),
    ):
        setting.seed_dropout("rm", step)
        factor = lr_factor(cfg.schedule, step - 1, total)
        with setting.clock.part("learn"):
            metrics = learn(engine, microbatches, cfg, factor)
        setting.clock.count(**work.of_comparisons(engine, microbatches))
        recorder.log(metrics, step)
        saver.after_step(step, dict)


def learn(engine: Engine, microbatches: Step, cfg: RM, factor: float) -> dict[str, float]:
    """One optimizer step; every prompt of the whole step weighs the same."""
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
    """The loss of one microbatch as its share of the whole step."""
    return preference_loss(
        scores,
        batch.pairs,
        batch.targets,
        batch.weights,
        num_prompts=num_prompts,
        ties=cfg.ties.name,
        tie_param=cfg.tie_param,
        margin=cfg.margin,
        label_smoothing=cfg.label_smoothing,
        center_coef=cfg.center_coef,
    )


def strict_hits(scores: Tensor, batch: PreferenceBatch) -> tuple[float, int]:
    """Pairs that were not ties: how many are ordered right, and how many there are."""
    pairs = batch.pairs[batch.targets == 1.0]
    return (pair_accuracy(scores, pairs) * len(pairs) if len(pairs) else 0.0), len(pairs)


def anchor_texts(setting: Setting, train: Sequence[EncodedComparison]) -> list[list[int]]:
    """What shall score 0 on average: the demonstrations, or without any the preferred responses."""
    if setting.cfg.data.demonstrations:
        return [one.ids for one in setting.encoded("demonstrations").train[:NUM_ANCHORS]]
    return list(islice(preferred(train), NUM_ANCHORS))


def preferred(comparisons: Iterable[EncodedComparison]) -> Iterator[list[int]]:
    """Yield the responses that win and never lose, with their prompts."""
    for one in comparisons:
        won, lost = {winner for winner, _ in one.better}, {loser for _, loser in one.better}
        yield from (one.sequences()[i] for i in sorted(won - lost))


def centre(
    setting: Setting, engine: Engine, train: Sequence[EncodedComparison], anchors: list[list[int]]
) -> float:
    """Shift the scores so that the anchors' mean is 0 (IG 3.5); returns what was taken away."""
    few = train[:NUM_ANCHORS]
    states, differences, start = hidden(setting, engine, sequences(few)), [], 0
    for one in few:
        differences += [states[start + win] - states[start + lose] for win, lose in one.better]
        start += len(one.response_ids)
    weight = engine.get(HEAD)
    moved, shift = shift_head_mean(
        weight, hidden(setting, engine, anchors), torch.stack(differences)
    )
    engine.put(HEAD, moved)
    return shift


def hidden(setting: Setting, network: Network, rows: list[list[int]]) -> Tensor:
    """Last hidden state of every row of token ids, (n, D) on the CPU."""
    return forward_sequences(
        last_hidden,
        network,
        rows,
        pad_id=setting.renderer.pad_id,
        batch=FORWARD,
        world=setting.world,
    )


def preview(cfg: Config, inputs: dict[str, Path]) -> Preview:
    """What a dry run shows: counts, steps, and one comparison with its first response coloured."""
    setting = open_setting(cfg)
    data = setting.encoded("comparisons")
    steps = steps_of(setting, data.train, epoch=0)
    one = data.train[0]
    mask = [False] * len(one.prompt_ids) + [True] * len(one.response_ids[0])
    strict, ties = sum(len(c.better) for c in data.train), sum(len(c.ties) for c in data.train)
    return Preview(
        facts={
            "comparisons": f"{len(data.train)} prompts to train on, {len(data.held_out)} held out",
            "responses a prompt": spread([len(c.response_ids) for c in data.train]),
            "pairs": f"{strict} strict, {ties} ties",
            "optimizer steps": f"{len(steps)} an epoch, {total_steps(cfg, len(data.train))} in all",
        },
        example=example(setting.renderer, one.sequences()[0], mask),
        notes=data.report.plain().splitlines(),
    )


def spread(numbers: list[int]) -> str:
    """[4, 9, 9] -> "4 to 9"."""
    return f"{min(numbers)} to {max(numbers)}" if min(numbers) < max(numbers) else str(numbers[0])
