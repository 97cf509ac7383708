"""This project, through the code its stages run: SFT and reward-model steps, PPO iterations, sampling."""

from functools import partial
from pathlib import Path

from gate import Gate

gate = Gate()

import torch  # noqa: E402
from material import NEW_TOKENS  # noqa: E402

from rlhf_cli.config.command_line import compose_each  # noqa: E402
from rlhf_cli.core.randomness import uniforms  # noqa: E402
from rlhf_cli.data.collate import prompt_batches  # noqa: E402
from rlhf_cli.data.encode import (  # noqa: E402
    EncodedComparison,
    EncodedDemonstration,
    EncodedPrompt,
)
from rlhf_cli.data.records import Comparison, Demonstration, Message, Origin, Prompt  # noqa: E402
from rlhf_cli.stages import rm, sft  # noqa: E402
from rlhf_cli.stages.ppo.loop import train  # noqa: E402
from rlhf_cli.stages.ppo.players import Ending  # noqa: E402
from rlhf_cli.stages.ppo.stage import batches, cast  # noqa: E402
from rlhf_cli.stages.setting import open_setting  # noqa: E402

HERE, SAID = Origin("benchmark", 0), (Message("user", "x"), Message("assistant", "y"))


def setting_of(job: dict):
    """As `rlhf run model=<folder> ...` would open it."""
    given, found = job["batch"], []
    words = [
        f"model.path={job['model']}",
        "data.template=plain",
        "data.max_prompt_tokens=128",
        f"data.max_response_tokens={max(NEW_TOKENS, 192)}",
        f"sft.batch.size={given}",
        f"rm.batch.size={given}",
        f"ppo.batch.rollout={2 * given}",
        f"ppo.batch.minibatch={given}",
        f"ppo.batch.microbatch={given}",
        "ppo.total_episodes=1000000000",
        "ppo.inner_epochs=2",
        *(f"model.lr.{name}=1e-8" for name in ("sft", "rm", "policy", "value")),
        "runtime.device=cpu",
        "runtime.num_threads=1",
        *job["options"],
    ]
    compose_each(words, found.append)
    return open_setting(found[0])


def run_sft(setting) -> None:
    examples = [
        EncodedDemonstration(
            ids=row["prompt"] + row["chosen"],
            loss_mask=[False] * len(row["prompt"]) + [True] * len(row["chosen"]),
            record=Demonstration(SAID, HERE),
        )
        for row in gate.rows()
    ]
    engine = setting.engine(setting.causal_lm(), setting.cfg.sft.optim)
    tokens = sum(len(e.ids) for e in examples)
    epochs(partial(sft.steps_of, setting, examples), partial(sft.learn, engine, factor=1.0), tokens)


def run_rm(setting) -> None:
    examples = [
        EncodedComparison(
            prompt_ids=row["prompt"],
            response_ids=[row["chosen"], row["rejected"]],
            better=((0, 1),),
            ties=(),
            record=Comparison(SAID[:1], ("y", "z"), ((0, 1),), (), HERE),
        )
        for row in gate.rows()
    ]
    cfg = setting.cfg.rm
    engine = setting.engine(setting.scalar_model(Path(gate.job["reward"])), cfg.optim)
    tokens = sum(len(ids) for e in examples for ids in e.sequences())
    steps = partial(rm.steps_of, setting, examples)
    epochs(steps, lambda step: rm.learn(engine, step, cfg, 1.0), tokens)


def epochs(steps_of, learn, tokens: int) -> None:
    """A round is an epoch, its batches made within it."""
    epoch = 0
    while True:
        gate.wait()
        for step in steps_of(epoch):
            learn(step)
        gate.done(tokens)
        epoch += 1


def prompts() -> list[EncodedPrompt]:
    return [EncodedPrompt(ids=row["prompt"], record=Prompt(SAID[:1], HERE)) for row in gate.rows()]


class Recorder:
    """Where PPO logs an iteration, the round ends and the next one waits."""

    def __init__(self, rows: int):
        self.rows = rows

    def log(self, metrics: dict, step: int) -> None:
        gate.done(round(metrics["objective/response_length"] * self.rows))
        gate.wait()

    def warn(self, text: str) -> None:
        pass


def run_ppo(setting) -> None:
    cfg = setting.cfg.ppo
    players, _ = cast(setting, Path(gate.job["model"]), Path(gate.job["reward"]), prompts())
    given = batches(setting, prompts())
    gate.wait()
    train(players, given, ending(setting), cfg, Recorder(cfg.batch.rollout), seed=0)


def ending(setting) -> Ending:
    renderer = setting.renderer
    return Ending(max_new_tokens=NEW_TOKENS, end_ids=renderer.end_ids, pad_id=renderer.pad_id)


def run_rollout(setting) -> None:
    """The PPO stage's own sampling, nothing judged."""
    from rlhf_cli.stages.ppo.collect import generate

    cfg, end = setting.cfg.ppo, ending(setting)
    players, _ = cast(setting, Path(gate.job["model"]), Path(gate.job["reward"]), prompts())
    pad_id = setting.renderer.pad_id
    size = cfg.batch.rollout
    given = prompt_batches(prompts(), size=size, num_batches=10**6, seed=0, pad_id=pad_id)
    for number, batch in enumerate(given):
        gate.wait()
        drawn = uniforms(size, NEW_TOKENS, number)
        with torch.no_grad():
            rollout = generate(players, batch, drawn, end, cfg)
        gate.done(int(rollout.response_mask.sum()))


if __name__ == "__main__":
    run = {"sft": run_sft, "rm": run_rm, "ppo": run_ppo, "rollout": run_rollout}
    run[gate.job["task"]](setting_of(gate.job))
