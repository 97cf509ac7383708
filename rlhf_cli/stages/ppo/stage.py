"""Step 3, PPO: raise the reward-model score of the policy's responses under a KL penalty to the SFT model.

Reading order: `run` here, then `train` in loop.py.
"""

from itertools import chain
from pathlib import Path

from rlhf_cli.artifacts.layout import MODEL, VALUE_MODEL
from rlhf_cli.config.schema.run import Config
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.stages.context import StageContext, open_context, parent_model
from rlhf_cli.stages.dry_run import Preview
from rlhf_cli.stages.ppo.loop import start, train
from rlhf_cli.stages.ppo.models import PPOModels, PretrainingLoss, build_models
from rlhf_cli.stages.reward_scorer import RewardModel, reward_folders
from rlhf_cli.stages.rollout import episodes
from rlhf_cli.stages.rollout.offending import offending_kept
from rlhf_cli.stages.rollout.state import TrainState
from rlhf_cli.stages.rollout.watch import PolicyWatch, open_watch, watched_prompts
from rlhf_cli.stages.samples import BeforeAfter
from rlhf_cli.stages.stage_run import StageRun, open_run
from rlhf_cli.telemetry.recorder import Recorder


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Train policy and value model; write model/ (the policy) and value_model/."""
    sft, rm = parent_model(inputs, "sft"), reward_folders(inputs)
    context = open_context(cfg, sft)
    episodes.require_whole_shares(context, "ppo", cfg.ppo)
    data = context.encoded("prompts")
    watched = watched_prompts(context, cfg.ppo.watch, data.held_out)
    reward = RewardModel.load(context, rm, chain(data.train, watched))
    models, notes = build_models(context, sft, rm, reward)
    samples = BeforeAfter(context=context, prompts=data.held_out[: cfg.samples])
    with open_run(
        context,
        out,
        stage="ppo",
        engines={"policy": models.policy, "value": models.value_model},
        total_steps=episodes.num_iterations(cfg.ppo),
        samples=samples,
    ) as stage_run:
        recorder, resumed = stage_run.recorder, stage_run.resumed
        state = start(cfg.ppo)
        watch = open_watch(
            context,
            cfg.ppo.watch,
            watched,
            reward=reward,
            reference=models.ref_policy,
            rm=inputs["rm"],
            out=out,
            recorder=recorder,
        )
        if resumed:
            state.load_state_dict(resumed.state, resumed.tensors, context.device.torch)
            watch.resume(state.iteration)
        else:
            data.print_report(recorder)
            for note in notes:
                recorder.note(note)
            context.print_notes(recorder, models.policy)
            samples.sample("before", models.policy)
            watch.look(models.policy, 0)
        metrics = train_or_save(context, models, data.train, state, stage_run, watch, out)
        models.policy.use_average()
        samples.sample("after", models.policy)
        samples.show(recorder)
        context.export(models.policy, out / MODEL)
        context.export(models.value_model, out / VALUE_MODEL)
        metrics |= watch.finish()
    return metrics


def train_or_save(
    context: StageContext,
    models: PPOModels,
    prompts: list[EncodedPrompt],
    state: TrainState,
    stage_run: StageRun,
    watch: PolicyWatch,
    out: Path,
) -> dict[str, float]:
    """Run the loop; where a number is not finite, save the offending samples before stopping."""
    cfg = context.cfg
    models.ptx = pretraining_loss(context, models.policy, stage_run.recorder)
    with offending_kept(context, "ppo", out):
        return train(
            models,
            episodes.batches(context, prompts, cfg.ppo, start=state.iteration),
            context.sampling_params(temperature=cfg.ppo.temperature),
            cfg.ppo,
            stage_run.recorder,
            seed=cfg.seed,
            state=state,
            saver=stage_run.saver,
            watch=watch,
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


def preview(cfg: Config, inputs: dict[str, Path]) -> Preview:
    """Return what a dry run shows."""
    return episodes.preview(open_context(cfg), cfg.ppo)
