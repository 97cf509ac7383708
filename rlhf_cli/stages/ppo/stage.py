"""Step 3, PPO: raise the reward-model score of the policy's responses under a KL penalty to the SFT model.

Reading order: `run` here, then `train` in loop.py.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from rlhf_cli.artifacts.layout import MODEL, OFFENDING, VALUE_MODEL
from rlhf_cli.artifacts.store import write_text
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import PPO
from rlhf_cli.config.schema.run import Config
from rlhf_cli.core.batches import PromptBatch
from rlhf_cli.data.collate import prompt_batches
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.data.order import num_batches
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.stages.context import StageContext, open_context, parent_model
from rlhf_cli.stages.dry_run import Preview
from rlhf_cli.stages.ppo.checks import NotFinite
from rlhf_cli.stages.ppo.loop import TrainState, num_episodes, num_iterations, train
from rlhf_cli.stages.ppo.models import PPOModels, PretrainingLoss, build_models
from rlhf_cli.stages.samples import BeforeAfter, example
from rlhf_cli.stages.stage_run import StageRun, open_run
from rlhf_cli.telemetry.recorder import Recorder


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Train policy and value model; write model/ (the policy) and value_model/."""
    sft, rm = parent_model(inputs, "sft"), parent_model(inputs, "rm")
    context = open_context(cfg, sft)
    require_whole_shares(context)
    data = context.encoded("prompts")
    models, notes = build_models(context, sft, rm, data.train)
    samples = BeforeAfter(context=context, prompts=data.held_out[: cfg.samples])
    with open_run(
        context,
        out,
        stage="ppo",
        engines={"policy": models.policy, "value": models.value_model},
        total_steps=num_iterations(cfg.ppo),
        samples=samples,
    ) as stage_run:
        recorder, resumed = stage_run.recorder, stage_run.resumed
        state = TrainState.start(cfg.ppo)
        if resumed:
            state.load_state_dict(resumed.state, resumed.tensors, context.device.torch)
        else:
            data.print_report(recorder)
            for note in notes:
                recorder.note(note)
            context.print_notes(recorder, models.policy)
            samples.sample("before", models.policy)
        metrics = train_or_save(context, models, data.train, state, stage_run, out)
        models.policy.use_average()
        samples.sample("after", models.policy)
        samples.show(recorder)
        context.export(models.policy, out / MODEL)
        context.export(models.value_model, out / VALUE_MODEL)
    return metrics


def train_or_save(
    context: StageContext,
    models: PPOModels,
    prompts: list[EncodedPrompt],
    state: TrainState,
    stage_run: StageRun,
    out: Path,
) -> dict[str, float]:
    """Run the loop; where a number is not finite, save the offending samples before stopping."""
    cfg = context.cfg
    models.ptx = pretraining_loss(context, models.policy, stage_run.recorder)
    try:
        return train(
            models,
            batches(context, prompts, start=state.iteration),
            context.sampling_params(temperature=cfg.ppo.temperature),
            cfg.ppo,
            stage_run.recorder,
            seed=cfg.seed,
            state=state,
            saver=stage_run.saver,
        )
    except NotFinite as error:
        place = save_offending(error, context, out)
        raise UserError(f"{error}; the samples are in {place}. {NOT_FINITE_REMEDY}") from error


def require_whole_shares(context: StageContext) -> None:
    """Refuse sizes that the processes cannot divide; the last rollout and minibatch are what is left."""
    ppo = context.cfg.ppo
    context.require_whole_shares(
        {
            "ppo.batch.rollout": ppo.batch.rollout,
            "ppo.batch.minibatch": ppo.batch.minibatch,
            "ppo.total_episodes": ppo.total_episodes,
        }
    )


def pretraining_loss(
    context: StageContext, policy: Engine, recorder: Recorder
) -> PretrainingLoss | None:
    """Return the loss on pretraining texts that PPO-ptx adds, where ppo.ptx.coef is not 0."""
    if context.cfg.ppo.ptx.coef == 0:
        return None
    data = context.encoded("pretraining")
    data.print_report(recorder)
    return PretrainingLoss(context, data.train, policy=policy)


NOT_FINITE_REMEDY = "Lower ppo.optim.lr, raise ppo.kl.coef, or use runtime.dtype=float32"


def save_offending(error: NotFinite, context: StageContext, out: Path) -> Path:
    """Write the samples behind a number that is not finite: texts, token ids, score."""
    rollout, place = error.rollout, out / OFFENDING
    rows = [
        {
            "prompt": context.renderer.tokenizer.decode(rollout.prompts[i][rollout.prompt_mask[i]]),
            "response_ids": rollout.responses[i][rollout.response_mask[i]].tolist(),
            "response": context.renderer.tokenizer.decode(
                rollout.responses[i][rollout.response_mask[i]]
            ),
            "score": str(float(rollout.scores[i])),
        }
        for i in error.rows
    ]
    if context.world.is_main:
        write_text(place, json.dumps({"reason": str(error), "samples": rows}, indent=2))
    return place


def batches(
    context: StageContext, prompts: list[EncodedPrompt], start: int = 0
) -> Iterator[PromptBatch]:
    """Yield the prompts of every rollout from iteration `start` on, each once before any comes again."""
    return prompt_batches(
        prompts,
        size=context.cfg.ppo.batch.rollout,
        total=context.cfg.ppo.total_episodes,
        pad_id=context.renderer.pad_id,
        seed=context.cfg.seed,
        start=start,
    )


def preview(cfg: Config, inputs: dict[str, Path]) -> Preview:
    """Return what a dry run shows: counts, iterations, steps, and one prompt as the policy sees it."""
    context = open_context(cfg)
    data = context.encoded("prompts")
    episodes = num_episodes(cfg.ppo)
    iterations, left = num_iterations(cfg.ppo), episodes % cfg.ppo.batch.rollout
    first = next(batches(context, data.train))
    return Preview(
        facts={
            "prompts": f"{len(data.train)} to train on, {len(data.held_out)} held out",
            "iterations": f"{iterations} of {cfg.ppo.batch.rollout} episodes"
            + (f", the last of {left}" if left else ""),
            "optimizer steps": f"{most_steps(cfg.ppo)} at most",
            "passes over the prompts": f"{episodes / max(len(data.train), 1):.1f}",
            "first batch": " x ".join(str(n) for n in first.tokens.shape),
        },
        example=example(context.renderer, data.train[0].ids, [False] * len(data.train[0].ids)),
        notes=data.report.plain().splitlines(),
    )


def most_steps(cfg: PPO) -> int:
    """Return the optimizer steps of all iterations; a rollout is a multiple of a minibatch."""
    return cfg.inner_epochs * num_batches(num_episodes(cfg), cfg.batch.minibatch)
