"""Step 3, PPO: raise the reward model's score of the policy's responses, on a leash to the SFT model.

Reading order: here, then loop.py.
"""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from rlhf_cli.artifacts.store import write_text
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import PPO, Batch, Batching, Config, LossOn, ValueInit
from rlhf_cli.core.batches import PromptBatch, SFTBatch
from rlhf_cli.data.collate import prompt_batches, sft_batches
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.models.loading import freeze
from rlhf_cli.models.reward import check_head, init_head
from rlhf_cli.report.preview import Preview
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.stages.judging import RewardModel
from rlhf_cli.stages.ppo.guards import NotFinite
from rlhf_cli.stages.ppo.learn import Pretrain
from rlhf_cli.stages.ppo.loop import Trained, num_iterations, train
from rlhf_cli.stages.ppo.players import Ending, Players
from rlhf_cli.stages.setting import Setting, open_recorder, open_setting, parent_model
from rlhf_cli.stages.showing import before_and_after, example
from rlhf_cli.stages.tokens import token_loss
from rlhf_cli.telemetry.recorder import Recorder


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Train policy and value model; write model/ (the policy) and value_model/."""
    sft, rm = parent_model(inputs, "sft"), parent_model(inputs, "rm")
    setting = open_setting(cfg, sft)
    data = setting.encoded("prompts")
    players, notes = cast(setting, sft, rm, data.train)
    with open_recorder(cfg, out, stage="ppo", total_steps=num_iterations(cfg.ppo)) as recorder:
        data.tell(recorder)
        for note in notes:
            recorder.note(note)
        shown = data.held_out[: cfg.samples]
        with before_and_after(setting, players.policy.model, shown, recorder):
            trained = learn_or_save(setting, players, data.train, recorder, out)
            if trained.average is not None:
                players.policy.model.load_state_dict(trained.average)
    for engine, name in ((players.policy, "model"), (players.value, "value_model")):
        setting.export(engine.model, out / name)
    return trained.last


def cast(
    setting: Setting, sft: Path, rm: Path, prompts: list[EncodedPrompt]
) -> tuple[Players, list[str]]:
    """Policy and reference from the SFT model, value model from the reward model (or the SFT model)."""
    cfg, device = setting.cfg.ppo, setting.device
    reward = RewardModel.load(setting, rm, prompts)
    from_rm = cfg.value_init is ValueInit.rm
    if from_rm and reward.renderer is not None:
        raise UserError(
            "ppo.value_init=rm needs a reward model with the policy's tokenizer and chat template; "
            "this one has others: use ppo.value_init=sft"
        )
    value = setting.scalar_model(rm if from_rm else sft)
    check_head(value)
    if not from_rm:
        init_head(value, seed=setting.cfg.seed)
    players = Players(
        policy=Engine(setting.causal_lm(sft), optim=cfg.optim, device=device),
        value=Engine(value, optim=cfg.value_optim, device=device),
        ref_policy=freeze(setting.causal_lm(sft, frozen=True)).to(device.torch),
        score=reward.score,
        device=device,
    )
    return players, reward.notes()


def learn_or_save(
    setting: Setting, players: Players, prompts: list[EncodedPrompt], recorder: Recorder, out: Path
) -> Trained:
    """Run the loop; when a number is not finite, save the offending samples before stopping."""
    cfg, renderer = setting.cfg, setting.renderer
    ending = Ending(
        max_new_tokens=cfg.data.max_response_tokens,
        end_ids=renderer.end_ids,
        pad_id=renderer.pad_id,
    )
    try:
        return train(
            players,
            batches(setting, prompts),
            ending,
            cfg.ppo,
            recorder,
            seed=cfg.seed,
            pretrain=pretraining(setting, players.policy, recorder)
            if cfg.ppo.ptx.coef > 0
            else None,
        )
    except NotFinite as error:
        place = save_offending(error, setting, out)
        raise UserError(f"{error}; the samples are in {place}. {NOT_FINITE_REMEDY}") from error


NOT_FINITE_REMEDY = "Lower ppo.optim.lr, raise ppo.kl.coef, or use runtime.dtype=float32"


def save_offending(error: NotFinite, setting: Setting, out: Path) -> Path:
    """Write the samples behind a number that is not finite: texts, token ids, score."""
    rollout, place = error.rollout, out / "offending.json"
    rows = [
        {
            "prompt": setting.renderer.tokenizer.decode(rollout.prompts[i][rollout.prompt_mask[i]]),
            "response_ids": rollout.responses[i][rollout.response_mask[i]].tolist(),
            "response": setting.renderer.tokenizer.decode(
                rollout.responses[i][rollout.response_mask[i]]
            ),
            "score": str(float(rollout.scores[i])),
        }
        for i in error.rows
    ]
    write_text(place, json.dumps({"reason": str(error), "samples": rows}, indent=2))
    return place


def batches(setting: Setting, prompts: list[EncodedPrompt]) -> Iterator[PromptBatch]:
    """Rollout after rollout of prompts, every prompt once before any comes again."""
    return prompt_batches(
        prompts,
        size=setting.cfg.ppo.batch.rollout,
        num_batches=num_iterations(setting.cfg.ppo),
        pad_id=setting.renderer.pad_id,
        seed=setting.cfg.seed,
    )


def pretraining(setting: Setting, policy: Engine, recorder: Recorder) -> Pretrain:
    """PPO-ptx: for a minibatch of n episodes, ratio * n pretraining texts; the gradient of coef times
    their mean loss per token goes into the same buffer (IG C.4)."""
    cfg = setting.cfg
    data = setting.encoded("pretraining")
    data.tell(recorder)
    stream = texts_by_step(setting, data.train)

    def pretrain() -> float:
        loss = token_loss(policy, next(stream), scale=cfg.ppo.ptx.coef)
        return cfg.ppo.ptx.coef * loss

    return pretrain


def texts_by_step(setting: Setting, texts: list) -> Iterator[list[SFTBatch]]:
    """ratio * minibatch texts for every optimizer step, going round the data as often as needed."""
    cfg = setting.cfg
    size = min(cfg.ppo.ptx.ratio * cfg.ppo.batch.minibatch, len(texts))
    for epoch in count():
        yield from sft_batches(
            texts,
            batch=Batch(size=size, microbatch=cfg.ppo.batch.microbatch),
            batching=Batching.grouped,
            loss_on=LossOn.all,
            seed=cfg.seed,
            epoch=epoch,
            max_tokens=cfg.data.max_prompt_tokens + cfg.data.max_response_tokens,
            pad_id=setting.renderer.pad_id,
        )


def preview(cfg: Config, inputs: dict[str, Path]) -> Preview:
    """What a dry run shows: counts, iterations, steps, and one prompt as the policy sees it."""
    setting = open_setting(cfg)
    data = setting.encoded("prompts")
    iterations = num_iterations(cfg.ppo)
    first = next(batches(setting, data.train))
    return Preview(
        facts={
            "prompts": f"{len(data.train)} to train on, {len(data.held_out)} held out",
            "iterations": f"{iterations} of {cfg.ppo.batch.rollout} episodes",
            "optimizer steps": f"{iterations * steps_an_iteration(cfg.ppo)} at most",
            "passes over the prompts": f"{cfg.ppo.total_episodes / max(len(data.train), 1):.1f}",
            "first batch": " x ".join(str(n) for n in first.tokens.shape),
        },
        example=example(setting.renderer, data.train[0].ids, [False] * len(data.train[0].ids)),
        notes=data.report.plain().splitlines(),
    )


def steps_an_iteration(cfg: PPO) -> int:
    return cfg.inner_epochs * (cfg.batch.rollout // cfg.batch.minibatch)
