"""Policy gradients without a value model: REINFORCE, RLOO and GRPO, which differ in their sections alone.

Reading order: `run` here, then `train` in loop.py.
"""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rlhf_cli.artifacts.layout import MODEL
from rlhf_cli.config.schema import PolicyGradient, Scale
from rlhf_cli.config.schema.run import Config
from rlhf_cli.stages.context import StageContext, open_context, parent_model
from rlhf_cli.stages.dry_run import Preview
from rlhf_cli.stages.policy_gradient.loop import start, train
from rlhf_cli.stages.reward_scorer import RewardModel, reward_folders
from rlhf_cli.stages.rollout import episodes
from rlhf_cli.stages.rollout.models import RolloutModels
from rlhf_cli.stages.rollout.offending import offending_kept
from rlhf_cli.stages.rollout.watch import open_watch, watched_prompts
from rlhf_cli.stages.samples import BeforeAfter
from rlhf_cli.stages.stage_run import open_run


@dataclass(frozen=True, slots=True)
class PolicyGradientStage:
    """The stage of one section."""

    name: str

    def section(self, cfg: Config) -> PolicyGradient:
        return getattr(cfg, self.name)

    def run(self, cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
        """Train the policy; write model/."""
        own = self.section(cfg)
        sft, rm = parent_model(inputs, "sft"), reward_folders(inputs)
        context = open_context(cfg, sft)
        episodes.require_whole_shares(context, self.name, own, own.group)
        data = context.encoded("prompts")
        watched = watched_prompts(context, own.watch, data.held_out)
        reward = RewardModel.load(context, rm, chain(data.train, watched))
        models, notes = build_models(context, own, sft, reward)
        samples = BeforeAfter(context=context, prompts=data.held_out[: cfg.samples])
        with open_run(
            context,
            out,
            stage=self.name,
            engines={"policy": models.policy},
            total_steps=episodes.num_iterations(own),
            samples=samples,
        ) as stage_run:
            recorder, resumed = stage_run.recorder, stage_run.resumed
            state = start(self.name, own)
            watch = open_watch(
                context,
                own.watch,
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
            with offending_kept(context, self.name, out):
                metrics = train(
                    models,
                    episodes.batches(
                        context,
                        data.train,
                        own,
                        start=state.drawn,
                        group=own.group,
                        extra=own.max_extra if own.skip_uniform else 0,
                    ),
                    context.sampling_params(temperature=own.temperature),
                    own,
                    recorder,
                    stage=self.name,
                    seed=cfg.seed,
                    state=state,
                    saver=stage_run.saver,
                    watch=watch,
                )
            models.policy.use_average()
            samples.sample("after", models.policy)
            samples.show(recorder)
            context.export(models.policy, out / MODEL)
            metrics |= watch.finish()
        return metrics

    def preview(self, cfg: Config, inputs: dict[str, Path]) -> Preview:
        """Return what a dry run shows."""
        own = self.section(cfg)
        return episodes.preview(open_context(cfg), own, group=own.group)


def build_models(
    context: StageContext,
    cfg: PolicyGradient,
    sft: Path,
    reward: RewardModel,
) -> tuple[RolloutModels, list[str]]:
    """Return the models and notes on them. Policy and reference are the SFT model."""
    models = RolloutModels(
        policy=context.engine(context.causal_lm(sft), cfg.optim, ema_decay=cfg.ema_decay),
        ref_policy=context.network(context.causal_lm(sft)) if cfg.has_reference else None,
        scores=reward.scores,
        combine=reward.combine,
        reward_models=reward.networks,
        device=context.device,
        clock=context.clock,
    )
    plan = models.policy.generation_note()
    return models, [*reward.notes(), *([f"the policy {plan}"] if plan else []), *beta_note(cfg)]


def beta_note(cfg: PolicyGradient) -> list[str]:
    """Return what the KL weighs where that is not its coefficient."""
    if cfg.effective_beta == cfg.kl.coef:
        return []
    scaled = (
        "" if cfg.scale is Scale.none else ", times the deviation that advantages are divided by"
    )
    return [
        f"effective beta {cfg.effective_beta:.3g}{scaled}, not kl.coef={cfg.kl.coef:g}: the mean of a "
        f"group of {cfg.group} shrinks the gradient of the rewards to {cfg.group - 1}/{cfg.group}, not "
        "that of a KL in the loss"
    ]


reinforce = PolicyGradientStage("reinforce")
rloo = PolicyGradientStage("rloo")
grpo = PolicyGradientStage("grpo")
