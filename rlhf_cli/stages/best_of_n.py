"""Best-of-n: the responses that the reward model prefers, as demonstrations, and what n gains.

Nothing is trained. For training prompts the best of n responses is kept; for held-out prompts more are
sampled, from which the gain of every n up to their number is estimated.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from rlhf_cli.artifacts.layout import DEMONSTRATIONS, DRAWN
from rlhf_cli.artifacts.store import write_text
from rlhf_cli.config.schema.run import Config
from rlhf_cli.core.estimates import best_of_n_estimate, bon_kl, mean_interval
from rlhf_cli.core.randomness import stream_seed
from rlhf_cli.data.embedded import EmbeddedTask, common_task
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.evaluation.metrics import measure_answers
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.runtime.engine import Network
from rlhf_cli.stages.context import StageContext, open_context, parent_model
from rlhf_cli.stages.drawn_files import append_drawn, keep_drawn, read_drawn, write_rows
from rlhf_cli.stages.dry_run import Preview
from rlhf_cli.stages.reward_scorer import RewardModel, reward_folders
from rlhf_cli.stages.samples import example, sample_to_use
from rlhf_cli.stages.stage_run import open_run
from rlhf_cli.telemetry.recorder import Recorder

PROMPTS = 32  # per step; what is drawn is saved after each, and does not depend on the other steps
CURVE = "curve.json"
HELD_OUT = "held_out"  # in a row of what is drawn: of the curve, not of the demonstrations


@dataclass(slots=True, frozen=True, kw_only=True)
class Step:
    """Prompts of one side, and how many responses each gets."""

    prompts: list[EncodedPrompt]
    samples: int
    held_out: bool


@dataclass(slots=True, kw_only=True)
class Sampler:
    """What responses are sampled and scored with. task: of the tiny world, where it is known."""

    context: StageContext
    network: Network
    reward: RewardModel
    task: EmbeddedTask | None

    def rows_of(self, step: Step, number: int) -> list[dict[str, Any]]:
        """Sample and score the responses of a step; return a row per prompt."""
        context, settings = self.context, self.context.cfg.best_of_n
        seed = context.cfg.seed
        tries = sample_to_use(
            context,
            self.network,
            [prompt.ids for prompt in step.prompts],
            temperature=settings.temperature,
            batch=settings.batch,
            seeds=[stream_seed(seed, "best_of_n", number, i) for i in range(step.samples)],
        )
        scores = torch.stack([self.reward.score_answers(some) for some in tries], dim=1)
        utility = self._utility(step.prompts, tries)
        return [
            {
                HELD_OUT: step.held_out,
                "messages": [
                    {"role": message.role, "content": message.content}
                    for message in prompt.record.messages
                ],
                "responses": [some[i].text for some in tries],
                "finished": [some[i].finished for some in tries],
                "scores": scores[i].tolist(),
                "utility": None if utility is None else [some[i] for some in utility],
            }
            for i, prompt in enumerate(step.prompts)
        ]

    def _utility(
        self, prompts: Sequence[EncodedPrompt], tries: Sequence[list[Answer]]
    ) -> list[list[float]] | None:
        if self.task is None:
            return None
        records = [prompt.record for prompt in prompts]
        return [measure_answers(self.task, records, some)[self.task.UTILITY] for some in tries]


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Sample step by step; write data/demonstrations.jsonl and curve.json."""
    folder = None if cfg.best_of_n.of == "base" else parent_model(inputs, cfg.best_of_n.of)
    context = open_context(cfg, folder)
    steps = steps_of(context)
    prompts = [prompt for step in steps for prompt in step.prompts]
    sampler = Sampler(
        context=context,
        network=context.network(context.causal_lm(folder)),
        reward=RewardModel.load(context, reward_folders(inputs), prompts),
        task=common_task(prompt.record.origin.source for prompt in prompts),
    )
    with open_run(context, out, stage="best_of_n", engines={}, total_steps=len(steps)) as stage_run:
        recorder = stage_run.recorder
        done = stage_run.resumed.step if stage_run.resumed else 0
        if not done:
            context.print_notes(recorder, sampler.network)
        if context.world.is_main:
            keep_drawn(out / DRAWN, done)
        for number, step in enumerate(steps[done:], done + 1):
            rows = sampler.rows_of(step, number)
            if context.world.is_main:
                append_drawn(out / DRAWN, number, rows)
            recorder.log(step_metrics(rows), number)
            stage_run.saver.after_step(number, always=True)
        if not context.world.is_main:
            return {}
        rows = read_drawn(out / DRAWN)
        kept, metrics = demonstrations([row for row in rows if not row[HELD_OUT]], cfg.best_of_n.n)
        points = curve([row for row in rows if row[HELD_OUT]], cfg.best_of_n.samples, sampler.task)
        show(recorder, kept[: cfg.samples], points)
    write_rows(out / DEMONSTRATIONS, kept)
    write_text(out / CURVE, json.dumps(points, indent=2))
    return metrics


def steps_of(context: StageContext) -> list[Step]:
    """Return the steps, which are the same for any number of processes: demonstrations, then the curve."""
    settings, data = context.cfg.best_of_n, context.encoded("prompts")
    found = []
    for held_out, prompts in ((False, data.train), (True, data.held_out)):
        chosen = Random(context.cfg.seed).sample(
            range(len(prompts)), min(settings.prompts, len(prompts))
        )
        some = [prompts[i] for i in chosen]
        samples = settings.samples if held_out else settings.n
        found += [
            Step(prompts=some[i : i + PROMPTS], samples=samples, held_out=held_out)
            for i in range(0, len(some), PROMPTS)
        ]
    return found


def step_metrics(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the mean score of a step's responses, and of the best of each prompt."""
    scores = torch.tensor([row["scores"] for row in rows])
    return {
        "best_of_n/scores": float(scores.mean()),
        "best_of_n/best_scores": float(scores.amax(1).mean()),
    }


def demonstrations(
    rows: Sequence[dict[str, Any]], n: int
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return the best of each prompt's first n responses that ended, and the counts of the manifest.

    A response without an end teaches none; a prompt without another is left out and counted.
    """
    kept, chosen, mean = [], [], []
    for row in rows:
        ended = [i for i in range(n) if row["finished"][i]]
        mean += row["scores"][:n]
        if not ended:
            continue
        best = max(ended, key=lambda i: row["scores"][i])
        answer = {"role": "assistant", "content": row["responses"][best]}
        kept.append({"messages": [*row["messages"], answer], "score": row["scores"][best]})
        chosen.append(row["scores"][best])
    metrics = {
        "best_of_n/prompts": float(len(rows)),
        "best_of_n/kept": float(len(kept)),
        "best_of_n/score": sum(mean) / max(len(mean), 1),
        "best_of_n/kept_score": sum(chosen) / max(len(chosen), 1),
    }
    return kept, metrics


def curve(
    rows: Sequence[dict[str, Any]], samples: int, task: EmbeddedTask | None
) -> list[dict[str, Any]]:
    """Return for n = 1, 2, 4 .. the score, and the true utility where a task knows it, with intervals.

    kl: log n - (n - 1) / n, a bound where responses repeat.
    """
    if not rows:
        return []
    scores = torch.tensor([row["scores"] for row in rows], dtype=torch.float64)
    known = {"score": scores}
    if task is not None:
        known[task.UTILITY] = torch.tensor([row["utility"] for row in rows], dtype=torch.float64)
    return [
        {"n": n, "kl": bon_kl(n)}
        | {
            name: mean_interval(best_of_n_estimate(scores, values, n))
            for name, values in known.items()
        }
        for n in powers_of_two(samples)
    ]


def powers_of_two(most: int) -> list[int]:
    """Return 1, 2, 4 .. up to `most`, and `most` itself."""
    found = [2**i for i in range(most.bit_length()) if 2**i <= most]
    return found if found[-1] == most else [*found, most]


def show(
    recorder: Recorder, kept: Sequence[dict[str, Any]], points: Sequence[dict[str, Any]]
) -> None:
    """Show a few of the kept responses, and the curve as lines."""
    rows = [
        {
            "prompt": one["messages"][-2]["content"],
            "best response": one["messages"][-1]["content"],
            "score": f"{one['score']:.2f}",
        }
        for one in kept
    ]
    recorder.samples("best responses", rows)
    for point in points:
        found = ", ".join(
            f"{name} {point[name][0]:.2f} [{point[name][1]:.2f}, {point[name][2]:.2f}]"
            for name in point
            if name not in ("n", "kl")
        )
        recorder.note(f"best of {point['n']}: KL at most {point['kl']:.2f}, {found}")


def preview(cfg: Config, inputs: dict[str, Path]) -> Preview:
    """Return what a dry run shows: how many prompts and responses, and one prompt."""
    of = cfg.best_of_n.of
    context = open_context(cfg, parent_model(inputs, of) if of in inputs else None)
    steps = steps_of(context)
    sides = {side: [s for s in steps if s.held_out is side] for side in (False, True)}
    counts = [sum(len(step.prompts) for step in some) for some in sides.values()]
    ids = steps[0].prompts[0].ids
    return Preview(
        facts={
            "demonstrations": f"the best of {cfg.best_of_n.n} responses to {counts[0]} prompts",
            "curve": f"{cfg.best_of_n.samples} responses to each of {counts[1]} held-out prompts",
            "steps": f"{len(steps)}, saved after each",
        },
        example=example(context.renderer, ids, [False] * len(ids)),
    )
