"""PPO-ptx: language-model gradients on pretraining text, mixed into the policy's (IG C.4)."""

from rlhf_cli.config.schema import Batch, Batching, LossOn
from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.data.collate import sft_batches
from rlhf_cli.models.unpadding.attention import reads_unpadded
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.stages import work
from rlhf_cli.stages.ppo.learn import Pretrain
from rlhf_cli.stages.setting import Setting
from rlhf_cli.stages.tokens import token_loss
from rlhf_cli.telemetry.recorder import Recorder


def pretraining(setting: Setting, policy: Engine, recorder: Recorder) -> Pretrain:
    """PPO-ptx: for a minibatch of n episodes, ratio * n pretraining texts; the gradient of coef times
    their mean loss per token goes into the same buffer (IG C.4)."""
    cfg = setting.cfg
    data = setting.encoded("pretraining")
    data.tell(recorder)
    steps = TextSteps(setting, data.train, padded=not reads_unpadded(policy.model))

    def pretrain() -> float:
        texts = steps.at(policy.steps)
        found = token_loss(policy, texts, scale=cfg.ppo.ptx.coef)
        setting.clock.count(**work.of_texts(policy, texts))
        return cfg.ppo.ptx.coef * found.loss

    return pretrain


class TextSteps:
    """ratio * minibatch texts for every optimizer step, going round the data as often as needed."""

    def __init__(self, setting: Setting, texts: list, *, padded: bool):
        self.setting, self.texts, self.padded = setting, texts, padded
        ppo = setting.cfg.ppo
        self.size = min(ppo.ptx.ratio * ppo.batch.minibatch, len(texts))
        self.epoch, self.steps = -1, []

    def at(self, step: int) -> list[SFTBatch]:
        """The microbatches of optimizer step `step`, from 0."""
        epoch, place = divmod(step, -(-len(self.texts) // self.size))
        if epoch != self.epoch:
            self.epoch, self.steps = epoch, self._epoch(epoch)
        return self.steps[place]

    def _epoch(self, epoch: int) -> list[list[SFTBatch]]:
        cfg = self.setting.cfg
        limits = cfg.ppo.batch
        return sft_batches(
            self.texts,
            batch=Batch(size=self.size, microbatch=limits.microbatch, max_tokens=limits.max_tokens),
            batching=Batching.grouped,
            loss_on=LossOn.all,
            seed=cfg.seed,
            epoch=epoch,
            max_tokens=cfg.data.max_prompt_tokens + cfg.data.max_response_tokens,
            pad_id=self.setting.renderer.pad_id,
            share=self.setting.world.share,
            padded=self.padded,
        )
