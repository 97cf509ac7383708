"""Step 3, PPO: raise the reward model's score of the policy's responses, close to the SFT model.

Reading order: here, then loop.py.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from rlhf_cli.artifacts.store import write_text
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import PPO, Config, Graphs, ValueInit
from rlhf_cli.core.batches import PromptBatch
from rlhf_cli.data.collate import prompt_batches
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.data.order import num_batches
from rlhf_cli.models.reward import check_head
from rlhf_cli.report.preview import Preview
from rlhf_cli.stages.judging import RewardModel, renew_head
from rlhf_cli.stages.ppo.guards import NotFinite
from rlhf_cli.stages.ppo.loop import Course, num_episodes, num_iterations, train
from rlhf_cli.stages.ppo.players import Ending, Players
from rlhf_cli.stages.ppo.pretraining import pretraining
from rlhf_cli.stages.saving import Saver, open_saver
from rlhf_cli.stages.setting import (
    Encoded,
    Setting,
    open_recorder,
    open_setting,
    parent_model,
)
from rlhf_cli.stages.showing import BeforeAfter, example
from rlhf_cli.telemetry.recorder import Recorder


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Train policy and value model; write model/ (the policy) and value_model/."""
    sft, rm = parent_model(inputs, "sft"), parent_model(inputs, "rm")
    setting = open_setting(cfg, sft)
    batch = cfg.ppo.batch
    setting.require_whole_shares(  # the last rollout and its last minibatch are what is left
        {
            "ppo.batch.rollout": batch.rollout,
            "ppo.batch.minibatch": batch.minibatch,
            "ppo.total_episodes": cfg.ppo.total_episodes,
        }
    )
    data = setting.encoded("prompts")
    players, notes = cast(setting, sft, rm, data.train)
    shown = BeforeAfter(setting=setting, prompts=data.held_out[: cfg.samples])
    saver = open_saver(setting, out, {"policy": players.policy, "value": players.value})
    resumed = saver.resumed
    with open_recorder(
        setting,
        out,
        stage="ppo",
        total_steps=num_iterations(cfg.ppo),
        resumed=resumed and resumed.recorder,
    ) as recorder:
        saver.recorder_state = recorder.state
        course = Course.start(cfg.ppo)
        if resumed:
            course.go_on(resumed.state["course"], resumed.tensors, setting.device.torch)
            shown.texts = resumed.state["shown"]
        else:
            introduce(recorder, data, notes)
            setting.tell(recorder, players.policy)
            shown.ask_before(players.policy)
        last = learn_or_save(setting, players, data.train, recorder, out, course, shown, saver)
        players.policy.use_average()
        shown.ask_after(players.policy)
        shown.tell(recorder)
        for engine, name in ((players.policy, "model"), (players.value, "value_model")):
            setting.export(engine, out / name)
    return last


def introduce(recorder: Recorder, data: Encoded, notes: list[str]) -> None:
    """What a person should know before the first iteration."""
    data.tell(recorder)
    for note in notes:
        recorder.note(note)


def cast(
    setting: Setting, sft: Path, rm: Path, prompts: list[EncodedPrompt]
) -> tuple[Players, list[str]]:
    """Policy and reference from the SFT model, value model from the reward model (or the SFT model)."""
    cfg = setting.cfg.ppo
    reward = RewardModel.load(setting, rm, prompts)
    from_rm = cfg.value_init is ValueInit.rm
    if from_rm and reward.renderer is not None:
        raise UserError(
            "ppo.value_init=rm needs a reward model with the policy's tokenizer and chat template; "
            "this one has others: use ppo.value_init=sft"
        )
    value = setting.scalar_model(rm if from_rm else sft, new_head=not from_rm)
    check_head(value)
    players = Players(
        policy=setting.engine(setting.causal_lm(sft), cfg.optim, ema_decay=cfg.ema_decay),
        value=setting.engine(value, cfg.value_optim),
        ref_policy=setting.network(setting.causal_lm(sft)),
        score=reward.score,
        rest=reward.network.rest,
        device=setting.device,
        clock=setting.clock,
    )
    if not from_rm:
        renew_head(players.value, seed=setting.cfg.seed)
    plan = players.policy.plan()
    return players, reward.notes() + ([f"the policy {plan}"] if plan else [])


def learn_or_save(
    setting: Setting,
    players: Players,
    prompts: list[EncodedPrompt],
    recorder: Recorder,
    out: Path,
    course: Course,
    shown: BeforeAfter,
    saver: Saver,
) -> dict[str, float]:
    """Run the loop; when a number is not finite, save the offending samples before stopping."""
    cfg, renderer = setting.cfg, setting.renderer
    ending = Ending(
        max_new_tokens=cfg.data.max_response_tokens,
        end_ids=renderer.end_ids,
        pad_id=renderer.pad_id,
        reference=cfg.runtime.reference_path,
        graphs=cfg.runtime.graphs is Graphs.auto,
    )

    def after_step() -> None:
        saver.after_step(
            players.policy.steps,
            lambda: {"course": course.state(), "shown": shown.state()},
            course.tensors,
        )

    try:
        return train(
            players,
            batches(setting, prompts, start=course.iteration),
            ending,
            cfg.ppo,
            recorder,
            seed=cfg.seed,
            course=course,
            pretrain=pretraining(setting, players.policy, recorder)
            if cfg.ppo.ptx.coef > 0
            else None,
            after_step=after_step,
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
    if setting.world.is_main:
        write_text(place, json.dumps({"reason": str(error), "samples": rows}, indent=2))
    return place


def batches(
    setting: Setting, prompts: list[EncodedPrompt], start: int = 0
) -> Iterator[PromptBatch]:
    """Rollout after rollout of prompts from iteration `start` on, every prompt once before any
    comes again."""
    return prompt_batches(
        prompts,
        size=setting.cfg.ppo.batch.rollout,
        total=setting.cfg.ppo.total_episodes,
        pad_id=setting.renderer.pad_id,
        seed=setting.cfg.seed,
        start=start,
    )


def preview(cfg: Config, inputs: dict[str, Path]) -> Preview:
    """What a dry run shows: counts, iterations, steps, and one prompt as the policy sees it."""
    setting = open_setting(cfg)
    data = setting.encoded("prompts")
    episodes = num_episodes(cfg.ppo)
    iterations, left = num_iterations(cfg.ppo), episodes % cfg.ppo.batch.rollout
    first = next(batches(setting, data.train))
    return Preview(
        facts={
            "prompts": f"{len(data.train)} to train on, {len(data.held_out)} held out",
            "iterations": f"{iterations} of {cfg.ppo.batch.rollout} episodes"
            + (f", the last of {left}" if left else ""),
            "optimizer steps": f"{most_steps(cfg.ppo)} at most",
            "passes over the prompts": f"{episodes / max(len(data.train), 1):.1f}",
            "first batch": " x ".join(str(n) for n in first.tokens.shape),
        },
        example=example(setting.renderer, data.train[0].ids, [False] * len(data.train[0].ids)),
        notes=data.report.plain().splitlines(),
    )


def most_steps(cfg: PPO) -> int:
    """Return the optimizer steps of all iterations; a rollout is a multiple of a minibatch."""
    return cfg.inner_epochs * num_batches(num_episodes(cfg), cfg.batch.minibatch)
