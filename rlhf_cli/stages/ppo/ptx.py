"""PPO-ptx: the gradient of a language-model loss on pretraining text, added to the policy's (IG C.4)."""

from rlhf_cli.config.schema import Batch, Batching, LossOn
from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.data.collate import BatchOptions, sft_batches
from rlhf_cli.models.forward import reads_unpadded
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.training import token_loss, work_on_texts


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
