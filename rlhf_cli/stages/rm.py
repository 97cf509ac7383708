"""Step 2, the reward model: scores that order responses as people did."""

import json
from pathlib import Path

import torch
from torch import Tensor

from rlhf_cli.artifacts.store import write_text
from rlhf_cli.config.schema import RM, Config
from rlhf_cli.core.batches import PreferenceBatch
from rlhf_cli.core.estimates import pair_accuracy
from rlhf_cli.core.preferences import preference_loss
from rlhf_cli.data.collate import preference_batches
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.evaluation.comparisons import Judged, headline, report
from rlhf_cli.evaluation.respond import over_sequences, reward_scores
from rlhf_cli.models.reward import check_head, init_head, shift_scores
from rlhf_cli.models.scoring import last_hidden, sequence_scores
from rlhf_cli.report.preview import Preview
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.stages.setting import (
    Setting,
    lr_factor,
    open_recorder,
    open_setting,
    parent_model,
    require_finite_loss,
)
from rlhf_cli.stages.showing import example, said
from rlhf_cli.telemetry.recorder import Recorder

Step = list[PreferenceBatch]
NUM_ANCHORS = 512  # demonstrations and comparisons that the shift of the scores is computed from
FORWARD = 64  # sequences per forward pass when only scores are wanted


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Train on the comparisons, shift the scores, judge on held-out comparisons, write model/."""
    sft = parent_model(inputs, "sft")
    setting = open_setting(cfg, sft)
    data = setting.encoded("comparisons")
    anchors = anchor_texts(setting, data.train)
    model = setting.scalar_model(sft, dropout=cfg.rm.dropout)
    check_head(model)
    init_head(model, seed=cfg.seed)
    engine = Engine(model, optim=cfg.rm.optim, device=setting.device)
    epochs = [steps_of(setting, data.train, epoch) for epoch in range(cfg.rm.epochs)]
    total = sum(len(epoch) for epoch in epochs)
    with open_recorder(cfg, out, stage="rm", total_steps=total) as recorder:
        data.tell(recorder)
        fit(engine, [step for epoch in epochs for step in epoch], cfg.rm, recorder)
        model.eval()
        shift = centre(setting, model, data.train, anchors)
        found = judge(setting, model, data.held_out)
        tell(recorder, cfg, found, shift)
        recorder.samples(
            "a held-out comparison, scored", scored_sample(setting, model, data.held_out)
        )
    write_text(out / "report.json", json.dumps(found, indent=2))
    setting.export(model, out / "model")
    return headline(found) | {"rm/shift": shift}


def steps_of(setting: Setting, train: list[EncodedComparison], epoch: int) -> list[Step]:
    """One epoch: a list of optimizer steps, each a list of microbatches of whole prompts."""
    cfg = setting.cfg
    return preference_batches(
        train, batch=cfg.rm.batch, pad_id=setting.renderer.pad_id, seed=cfg.seed, epoch=epoch
    )


def fit(engine: Engine, steps: list[Step], cfg: RM, recorder: Recorder) -> None:
    """Every step: all pairs of its prompts, each completion forwarded once."""
    for number, microbatches in enumerate(steps):
        factor = lr_factor(cfg.schedule, number, len(steps))
        recorder.log(learn(engine, microbatches, cfg, factor), number + 1)


def learn(engine: Engine, microbatches: Step, cfg: RM, factor: float) -> dict[str, float]:
    """One optimizer step; every prompt of the whole step weighs the same."""
    engine.model.train()
    num_prompts = sum(batch.num_prompts for batch in microbatches)
    loss, hits, pairs = 0.0, 0.0, 0
    for batch in microbatches:
        moved = batch.to(engine.device.torch)
        with engine.autocast():
            scores = sequence_scores(engine.model, moved.tokens, moved.mask)
        part = pair_loss(scores, moved, cfg, num_prompts)
        engine.backward(part)
        loss += float(part.detach())
        right, seen = strict_hits(scores.detach(), moved)
        hits, pairs = hits + right, pairs + seen
    require_finite_loss(loss, "rm")
    norm = engine.step(factor)
    return {
        "rm/loss": loss,
        "rm/accuracy": hits / max(pairs, 1),
        "rm/lr": engine.peak_lr * factor,
        "rm/grad_norm": norm,
        "rm/pairs": float(pairs),
    }


def pair_loss(scores: Tensor, batch: PreferenceBatch, cfg: RM, num_prompts: int) -> Tensor:
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


def anchor_texts(setting: Setting, train: list[EncodedComparison]) -> list[list[int]]:
    """What shall score 0 on average: the demonstrations, or without any the preferred responses."""
    if setting.cfg.data.demonstrations:
        return [one.ids for one in setting.encoded("demonstrations").train[:NUM_ANCHORS]]
    best = [
        (one, {winner for winner, _ in one.better}, {loser for _, loser in one.better})
        for one in train
    ]
    return [one.sequences()[i] for one, won, lost in best for i in sorted(won - lost)][:NUM_ANCHORS]


@torch.no_grad()
def centre(
    setting: Setting, model, train: list[EncodedComparison], anchors: list[list[int]]
) -> float:
    """Shift the scores so that the anchors' mean is 0 (IG 3.5); returns what was taken away."""
    few = train[:NUM_ANCHORS]
    states, differences, start = hidden(setting, model, sequences(few)), [], 0
    for one in few:
        differences += [states[start + win] - states[start + lose] for win, lose in one.better]
        start += len(one.response_ids)
    return shift_scores(model, hidden(setting, model, anchors), torch.stack(differences))


def sequences(comparisons: list[EncodedComparison]) -> list[list[int]]:
    """Every completion of every comparison, in order."""
    return [ids for one in comparisons for ids in one.sequences()]


def hidden(setting: Setting, model, rows: list[list[int]]) -> Tensor:
    """Last hidden state of every row of token ids, (n, D) on the CPU."""
    return over_sequences(
        last_hidden,
        model,
        rows,
        pad_id=setting.renderer.pad_id,
        device=setting.device,
        batch=FORWARD,
    )


def judge(setting: Setting, model, held_out: list[EncodedComparison]) -> dict:
    """The report on held-out comparisons."""
    cfg = setting.cfg.rm
    return report(judged(setting, model, held_out), ties=cfg.ties.name, tie_param=cfg.tie_param)


def judged(setting: Setting, model, comparisons: list[EncodedComparison]) -> list[Judged]:
    """Every comparison with the model's scores of its responses."""
    scores = reward_scores(
        model,
        sequences(comparisons),
        pad_id=setting.renderer.pad_id,
        device=setting.device,
        batch=FORWARD,
    )
    pieces = scores.split([len(one.response_ids) for one in comparisons])
    return [
        Judged(
            scores=piece,
            lengths=torch.tensor([len(ids) for ids in one.response_ids]),
            better=list(one.better),
            ties=list(one.ties),
            utilities=list(one.record.meta["utilities"])
            if "utilities" in one.record.meta
            else None,
        )
        for one, piece in zip(comparisons, pieces, strict=True)
    ]


def tell(recorder: Recorder, cfg: Config, found: dict, shift: float) -> None:
    """The report in three lines."""
    anchors = "demonstrations" if cfg.data.demonstrations else "preferred responses"
    recorder.note(f"scores shifted by {-shift:+.3f}: the {anchors} now score 0 on average")
    if not found["num_pairs"]:
        recorder.warn("no held-out pairs to judge the reward model on: raise data.eval_fraction")
        return
    said = f"held-out accuracy {said_interval(found['accuracy'])} on {found['num_pairs']} pairs"
    if found["accuracy_ceiling"]:
        said += f"; the annotators' noise allows {found['accuracy_ceiling'][0]:.1%}"
    recorder.note(said)
    recorder.note(
        f"preferring the longer response would give {found['length_baseline'][0]:.1%}; "
        f"score and length correlate {found['score_length_correlation']:+.2f}; ECE {found['ece']:.3f}"
    )


def said_interval(interval: tuple[float, float, float]) -> str:
    mean, low, high = interval
    return f"{mean:.1%} ({low:.1%} to {high:.1%})"


def scored_sample(
    setting: Setting, model, held_out: list[EncodedComparison]
) -> list[dict[str, str]]:
    """The responses of a few held-out comparisons, best score first, with their scores."""
    few = held_out[: min(1, setting.cfg.samples)]
    rows = []
    for one, found in zip(few, judged(setting, model, few), strict=True):
        row = {"prompt": said(one.record.prompt)}
        for place in found.scores.argsort(descending=True).tolist():
            row[f"{float(found.scores[place]):+.2f}"] = one.record.responses[place]
        rows.append(row)
    return rows


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
            "optimizer steps": f"{len(steps)} an epoch, {len(steps) * cfg.rm.epochs} in all",
        },
        example=example(setting.renderer, one.sequences()[0], mask),
        notes=data.report.plain().splitlines(),
    )


def spread(numbers: list[int]) -> str:
    """[4, 9, 9] -> "4 to 9"."""
    return f"{min(numbers)} to {max(numbers)}" if min(numbers) < max(numbers) else str(numbers[0])
