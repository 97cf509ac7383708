"""The work of the stages of this project, on the material of the benchmark."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rlhf_cli.config.command_line import compose_each
from rlhf_cli.core.randomness import uniforms
from rlhf_cli.data.collate import prompt_batch
from rlhf_cli.data.encode import EncodedComparison, EncodedDemonstration, EncodedPrompt
from rlhf_cli.data.records import Comparison, Demonstration, Message, Origin, Prompt
from rlhf_cli.models.generation.sampling import SamplingParams
from rlhf_cli.stages import rm, sft
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.ppo.models import build_models
from rlhf_cli.stages.reward_scorer import RewardModel
from rlhf_cli.stages.rollout.collect import sample_responses

HERE, DIALOGUE = Origin("benchmark", 0), (Message("user", "x"), Message("assistant", "y"))
LEARNING_RATES = tuple(f"model.lr.{name}=1e-8" for name in ("sft", "rm", "policy", "value"))


@dataclass(frozen=True, kw_only=True)
class Material:
    """Folders of the policy and the reward model, and rows of token ids."""

    model: Path
    reward: Path
    rows: list[dict]
    new_tokens: int

    @property
    def longest(self) -> tuple[int, int]:
        """Return the tokens of the longest prompt, and of the longest response read or sampled."""
        read = max(len(row[name]) for row in self.rows for name in ("chosen", "rejected"))
        return max(len(row["prompt"]) for row in self.rows), max(read, self.new_tokens)


def setting_of(material: Material, *words: str):
    """Return a stage context as of `rlhf run model=<folder> ...`; half the rows are a batch."""
    batch, found = max(1, len(material.rows) // 2), []
    prompt, response = material.longest
    given = [
        f"model.path={material.model}",
        "data.template=plain",
        f"data.max_prompt_tokens={prompt}",
        f"data.max_response_tokens={response}",
        f"sft.batch.size={batch}",
        f"rm.batch.size={batch}",
        f"ppo.batch.rollout={2 * batch}",
        f"ppo.batch.minibatch={batch}",
        f"ppo.batch.microbatch={batch}",
        "ppo.total_episodes=1000000000",
        "ppo.inner_epochs=2",
        *LEARNING_RATES,
        *words,
    ]
    compose_each(given, found.append)
    return open_context(found[0])


def demonstrations(rows: list[dict]) -> list[EncodedDemonstration]:
    return [
        EncodedDemonstration(
            ids=row["prompt"] + row["chosen"],
            loss_mask=[False] * len(row["prompt"]) + [True] * len(row["chosen"]),
            record=Demonstration(DIALOGUE, HERE),
        )
        for row in rows
    ]


def comparisons(rows: list[dict]) -> list[EncodedComparison]:
    return [
        EncodedComparison(
            prompt_ids=row["prompt"],
            response_ids=[row["chosen"], row["rejected"]],
            better=((0, 1),),
            ties=(),
            record=Comparison(DIALOGUE[:1], ("y", "z"), ((0, 1),), (), HERE),
        )
        for row in rows
    ]


def prompts(rows: list[dict]) -> list[EncodedPrompt]:
    return [
        EncodedPrompt(ids=row["prompt"], messages=DIALOGUE[:1], record=Prompt(DIALOGUE[:1], HERE))
        for row in rows
    ]


def sft_epochs(setting, material: Material):
    """Return (a function that trains on epoch number n, the tokens it reads)."""
    examples, cfg = demonstrations(material.rows), setting.cfg.sft
    engine = setting.engine(setting.causal_lm(), cfg.optim)

    def epoch(number: int) -> None:
        for step in sft.steps_of(setting, examples, number):
            sft.learn(engine, step, factor=1.0)

    return epoch, sum(len(e.ids) for e in examples)


def rm_epochs(setting, material: Material):
    """Return (a function that trains on epoch number n, the tokens it reads)."""
    examples, cfg = comparisons(material.rows), setting.cfg.rm
    engine = setting.engine(setting.scalar_model(material.reward), cfg.optim)

    def epoch(number: int) -> None:
        for step in rm.steps_of(setting, examples, number):
            rm.learn(engine, step, cfg, 1.0)

    return epoch, sum(len(ids) for e in examples for ids in e.sequences())


def models_of(setting, material: Material):
    reward = RewardModel.load(setting, [material.reward], prompts(material.rows))
    return build_models(setting, material.model, [material.reward], reward)[0]


def sampling_params(setting, material: Material) -> SamplingParams:
    """Return those of the PPO stage, with the material's number of tokens."""
    params = setting.sampling_params(temperature=setting.cfg.ppo.temperature)
    return replace(params, max_new_tokens=material.new_tokens)


def rollouts(setting, models, material: Material):
    """Return a function that samples rollout number n as the PPO stage does, without scores."""
    params = sampling_params(setting, material)
    size, place = setting.cfg.ppo.batch.rollout, setting.device.torch
    index = [number % len(material.rows) for number in range(size)]
    batch = prompt_batch(prompts(material.rows), index, params.pad_id).to(place)

    def rollout(number: int):
        drawn = uniforms(size, params.max_new_tokens, number)
        with torch.no_grad():
            return sample_responses(models, batch, drawn, params)[0]

    return rollout
