"""Step 1, supervised fine-tuning: raise the likelihood of the demonstrations' responses."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rlhf_cli.artifacts.store import model_folder
from rlhf_cli.config.schema import Config, SelectBy
from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.data.collate import sft_batches
from rlhf_cli.data.encode import EncodedDemonstration
from rlhf_cli.report.preview import Preview
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.stages.judging import RewardModel
from rlhf_cli.stages.setting import (
    Setting,
    lr_factor,
    open_recorder,
    open_setting,
    require_finite_loss,
)
from rlhf_cli.stages.showing import ask, before_and_after, example, prompts_of
from rlhf_cli.stages.tokens import batch_loss, count_targets, token_loss
from rlhf_cli.telemetry.recorder import Recorder

Step = list[SFTBatch]


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Train on the demonstrations, keep the chosen epoch, write model/."""
    setting = open_setting(cfg)
    data = setting.encoded("demonstrations")
    model = setting.causal_lm(dropout=cfg.sft.dropout)
    engine = Engine(model, optim=cfg.sft.optim, device=setting.device)
    epochs = [steps_of(setting, data.train, epoch) for epoch in range(cfg.sft.epochs)]
    total = sum(len(epoch) for epoch in epochs)
    with open_recorder(cfg, out, stage="sft", total_steps=total) as recorder:
        data.tell(recorder)
        prompts = prompts_of(setting, data.held_out)
        with before_and_after(setting, model, prompts[: cfg.samples], recorder):
            best = fit(setting, engine, epochs, data.held_out, recorder)
            model.load_state_dict(best.weights)
    setting.export(model, out / "model")
    return best.metrics


def steps_of(setting: Setting, train: list[EncodedDemonstration], epoch: int) -> list[Step]:
    """One epoch: a list of optimizer steps, each a list of microbatches."""
    cfg = setting.cfg
    return sft_batches(
        train,
        batch=cfg.sft.batch,
        batching=cfg.sft.batching,
        loss_on=cfg.sft.loss_on,
        pad_id=setting.renderer.pad_id,
        max_tokens=cfg.data.max_prompt_tokens + cfg.data.max_response_tokens,
        seed=cfg.seed,
        epoch=epoch,
    )


@dataclass(slots=True, kw_only=True)
class Kept:
    """The weights that are kept, and why: `value` is what they were chosen by, larger is better."""

    weights: dict[str, Tensor]
    metrics: dict[str, float]
    value: float


def fit(
    setting: Setting, engine: Engine, epochs: list[list[Step]], held_out: list, recorder: Recorder
) -> Kept:
    """All epochs; after each one the held-out loss, and the weights kept if they are the best so far."""
    cfg, step, best = setting.cfg.sft, 0, None
    total = sum(len(epoch) for epoch in epochs)
    judge = Judge(setting, held_out) if cfg.select_by is SelectBy.rm_score else None
    for number, epoch in enumerate(epochs, start=1):
        for microbatches in epoch:
            metrics = learn(engine, microbatches, lr_factor(cfg.schedule, step, total))
            step += 1
            if step == total or microbatches is not epoch[-1]:
                recorder.log(metrics, step)
        metrics |= {"sft/epoch": float(number)} | held_out_loss(setting, engine, held_out)
        if judge is not None:
            metrics["sft/rm_score"] = judge.mean_score(engine.model)
        recorder.log(metrics, step)
        value = worth(metrics, cfg.select_by, number)
        if best is None or value > best.value:
            best = Kept(weights=copy_of(engine.model), metrics=metrics, value=value)
    return best


def learn(engine: Engine, microbatches: Step, factor: float) -> dict[str, float]:
    """One optimizer step; every supervised token of the whole step weighs the same."""
    engine.model.train()
    loss = token_loss(engine, microbatches)
    require_finite_loss(loss, "sft")
    norm = engine.step(factor)
    return {
        "sft/loss": loss,
        "sft/lr": engine.peak_lr * factor,
        "sft/grad_norm": norm,
        "sft/tokens": float(count_targets(microbatches)),
    }


@torch.no_grad()
def held_out_loss(setting: Setting, engine: Engine, held_out: list) -> dict[str, float]:
    """Mean negative log-likelihood per supervised token of the held-out demonstrations."""
    if not held_out:
        return {}
    engine.model.eval()
    batches = [batch for step in steps_of(setting, held_out, epoch=0) for batch in step]
    num_tokens, loss = count_targets(batches), 0.0
    for batch in batches:
        moved = batch.to(engine.device.torch)
        with engine.autocast():
            loss += float(batch_loss(engine.model, moved, num_tokens))
    return {"sft/eval_loss": loss}


def worth(metrics: dict[str, float], select_by: SelectBy, epoch: int) -> float:
    """What an epoch is chosen by; InstructGPT chose by reward-model score, not by validation loss."""
    if select_by is SelectBy.eval_loss:
        return -metrics["sft/eval_loss"]
    return metrics["sft/rm_score"] if select_by is SelectBy.rm_score else float(epoch)


def copy_of(model) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


class Judge:
    """A reward model that scores the policy's answers to held-out prompts, for rm_score selection."""

    def __init__(self, setting: Setting, held_out: list[EncodedDemonstration]):
        folder = model_folder(Path(setting.cfg.sft.reward_model))
        self.setting = setting
        self.prompts = prompts_of(setting, held_out)[: setting.cfg.evaluation.prompts]
        self.reward = RewardModel.load(setting, folder, self.prompts)

    def mean_score(self, model) -> float:
        """Mean score of one sampled answer a prompt."""
        answers = ask(self.setting, model, self.prompts, self.setting.cfg.seed)
        return float(self.reward.score_answers(answers).mean())


def preview(cfg: Config, inputs: dict[str, Path]) -> Preview:
    """What a dry run shows: counts, steps, and one demonstration with its supervised tokens coloured."""
    setting = open_setting(cfg)
    data = setting.encoded("demonstrations")
    steps = steps_of(setting, data.train, epoch=0)
    return Preview(
        facts={
            "demonstrations": f"{len(data.train)} to train on, {len(data.held_out)} held out",
            "optimizer steps": f"{len(steps)} an epoch, {len(steps) * cfg.sft.epochs} in all",
            "supervised tokens": f"{sum(count_targets(step) for step in steps)} an epoch",
            "first microbatch": " x ".join(str(n) for n in steps[0][0].tokens.shape),
        },
        example=example(setting.renderer, data.train[0].ids, data.train[0].loss_mask),
        notes=data.report.plain().splitlines(),
    )
