"""The four models of PPO: the policy and value model that are trained, the reference and reward model.

With PPO-ptx the gradient of a language-model loss on pretraining text is added to the policy's (IG C.4).
"""

from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Batch, Batching, LossOn, ValueInit
from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.data.collate import BatchOptions, sft_batches
from rlhf_cli.models.forward import reads_unpadded
from rlhf_cli.models.reward_head import check_head
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.reward_scorer import RewardModel, reset_head
from rlhf_cli.stages.rollout.models import RolloutModels
from rlhf_cli.stages.training import token_loss, work_on_texts


@dataclass(slots=True, kw_only=True)
class PPOModels(RolloutModels):
    """ptx: the loss on pretraining texts that PPO-ptx adds, where ppo.ptx.coef is not 0."""

    ptx: "PretrainingLoss | None" = None


def build_models(
    context: StageContext, sft: Path, rm: list[Path], reward: RewardModel
) -> tuple[PPOModels, list[str]]:
    """Return the models and notes on them. reward: of the folders rm.

    Policy and reference are the SFT model; the value model is the (first) reward model, or the SFT
    model with a new head (ppo.value_init).
    """
    cfg = context.cfg.ppo
    from_rm = cfg.value_init is ValueInit.rm
    if from_rm and reward.renderer is not None:
        raise UserError(
            "ppo.value_init=rm needs a reward model with the policy's tokenizer and chat template; "
            "this one has others: use ppo.value_init=sft"
        )
    value_model = context.scalar_model(rm[0] if from_rm else sft, new_head=not from_rm)
    check_head(value_model)
    models = PPOModels(
        policy=context.engine(context.causal_lm(sft), cfg.optim, ema_decay=cfg.ema_decay),
        value_model=context.engine(value_model, cfg.value_optim),
        ref_policy=context.network(context.causal_lm(sft)),
        scores=reward.scores,
        combine=reward.combine,
        reward_models=reward.networks,
        device=context.device,
        clock=context.clock,
    )
    if not from_rm:
        reset_head(models.value_model, seed=context.cfg.seed)
    plan = models.policy.generation_note()
    return models, reward.notes() + ([f"the policy {plan}"] if plan else [])


class PretrainingLoss:
    """ratio * minibatch pretraining texts per optimizer step, repeating the data as often as needed."""

    def __init__(self, context: StageContext, texts: list, *, policy: Engine):
        self.context, self.texts = context, texts
        self.padded = not reads_unpadded(policy.model)
        ppo = context.cfg.ppo
        self.size = min(ppo.ptx.ratio * ppo.batch.minibatch, len(texts))
        self.epoch, self.steps = -1, []

    def add_gradient(self, policy: Engine) -> float:
        """Add the gradient of coef times the texts' mean loss per token; return that product."""
        coef, texts = self.context.cfg.ppo.ptx.coef, self.texts_of(policy.steps)
        found = token_loss(policy, texts, scale=coef)
        self.context.clock.count(**work_on_texts(policy, texts))
        return coef * found.loss

    def texts_of(self, step: int) -> list[SFTBatch]:
        """Return the microbatches of optimizer step `step`, from 0."""
        epoch, place = divmod(step, -(-len(self.texts) // self.size))
        if epoch != self.epoch:
            self.epoch, self.steps = epoch, self._steps_of(epoch)
        return self.steps[place]

    def _steps_of(self, epoch: int) -> list[list[SFTBatch]]:
        cfg = self.context.cfg
        limits = cfg.ppo.batch
        options = BatchOptions(
            batch=Batch(size=self.size, microbatch=limits.microbatch, max_tokens=limits.max_tokens),
            seed=cfg.seed,
            epoch=epoch,
            pad_id=self.context.renderer.pad_id,
            share=self.context.world.share,
            padded=self.padded,
        )
        return sft_batches(
            self.texts,
            options,
            batching=Batching.grouped,
            loss_on=LossOn.all,
            max_tokens=cfg.data.max_prompt_tokens + cfg.data.max_response_tokens,
        )
