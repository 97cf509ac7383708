"""Evaluate the base model, every policy and best-of-n: their answers to the same held-out prompts."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import perf_counter

import torch

from rlhf_cli.artifacts.layout import MANIFEST
from rlhf_cli.artifacts.manifest import read_manifest
from rlhf_cli.artifacts.store import write_text
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_spec import Makes
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.data.embedded import EmbeddedTask, common_task
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.evaluation.metrics import EvalResult, Row, best_of, measure, measure_answers
from rlhf_cli.evaluation.respond import Answer, kl_to_reference
from rlhf_cli.evaluation.task_figures import Outcome
from rlhf_cli.evaluation.task_suite import TaskSuite, task_metrics
from rlhf_cli.report.table import COSTS, write_table
from rlhf_cli.report.task_table import write_tasks
from rlhf_cli.runtime.engine import Network
from rlhf_cli.stages.context import StageContext, num_parameters, open_context, parent_model
from rlhf_cli.stages.dry_run import Preview
from rlhf_cli.stages.reward_scorer import RewardModel, reward_folders
from rlhf_cli.stages.samples import (
    conversation_text,
    example,
    last_turn,
    num_tokens,
    response_text,
    sample_answers,
    sample_each,
)
from rlhf_cli.stages.stage_run import open_recorder
from rlhf_cli.stages.task_evaluation import TASK_ANSWERS, open_suite, write_task_answers
from rlhf_cli.telemetry.recorder import Recorder

BASELINE = STAGES["sft"].label  # that the others are preferred to, or not
INTERVALS = "mean [95 % interval over prompts]; one response per prompt, sampled at temperature 1"
KL_NOTE = "KL: nats per response to the SFT model; for best-of-n the bound log n - (n-1)/n"
COST_NOTE = (
    "responses sampled to seconds: what the stage took, without loading; best-of-n: these answers"
)


@dataclass(slots=True, kw_only=True)
class Evaluator:
    """The same prompts, tasks, reward model and reference for every candidate.

    outcomes, parameters: of the tasks, and how many the model has, by candidate, filled as each is
    evaluated.
    """

    context: StageContext
    prompts: list[EncodedPrompt]
    task: EmbeddedTask | None
    suite: TaskSuite | None
    reward: RewardModel | None
    reference: Network | None
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)

    def evaluate(self, name: str, network: Network) -> EvalResult:
        """Ask a candidate the tasks; sample and evaluate one answer per prompt."""
        if self.suite is not None:
            self.outcomes[name] = self.suite.outcomes(network)
            self.parameters[name] = num_parameters(network.model)
        return self.result_of(
            sample_answers(self.context, network, self.prompts, self.context.cfg.seed), network
        )

    def result_of(self, answers: list[Answer], network: Network | None) -> EvalResult:
        """Return what is measured of these answers; log-ratios need the model they came from."""
        records = [prompt.record for prompt in self.prompts]
        log_ratios = None
        if self.reference is not None and network is not None:
            with self.context.clock.phase("score"):
                log_ratios = kl_to_reference(
                    network,
                    self.reference,
                    answers,
                    pad_id=self.context.renderer.pad_id,
                    batch=self.context.cfg.evaluation.batch,
                    world=self.context.world,
                )
        return EvalResult(
            prompts=records,
            answers=answers,
            scores=None if self.reward is None else self.reward.score_answers(answers),
            log_ratios=log_ratios,
            measures=measure_answers(self.task, records, answers),
        )

    def best_of_n(self, network: Network, n: int) -> EvalResult:
        """Return the best of n answers by the reward model: its optimisation without training."""
        seeds = [self.context.cfg.seed + 1000 + i for i in range(n)]
        began = perf_counter()
        tries = sample_each(self.context, network, self.prompts, seeds)
        scores = torch.stack([self.reward.score_answers(answers) for answers in tries])
        seconds = perf_counter() - began
        chosen, best, bound = best_of(tries, scores)
        found = self.result_of(chosen, None)
        found.scores, found.kl_bound = best, bound
        found.costs = {
            "sampled_responses": scores.numel(),
            "sampled_tokens": num_tokens(tries),
            "scored_responses": scores.numel() * len(self.reward.networks),
            "seconds": seconds,
        }
        return found


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Write table.json and answers.jsonl; the numbers of the table are the metrics."""
    known = {name: parent_model(inputs, name) for name in inputs}
    context = open_context(cfg, known[next(iter((*candidates(known), *known)))])
    prompts = eval_prompts(context)
    if not prompts:
        known.pop("rm", None)  # it has nothing to score
    task = common_task(prompt.record.origin.source for prompt in prompts)
    with open_recorder(
        context, out, stage="evaluate", total_steps=num_candidates(cfg, known)
    ) as recorder:
        evaluator = Evaluator(
            context=context,
            prompts=prompts,
            task=task,
            suite=open_suite(context),
            reward=RewardModel.load(context, reward_folders(inputs), prompts)
            if "rm" in known
            else None,
            reference=frozen(context, known["sft"]) if "sft" in known else None,
        )
        results = evaluate_all(evaluator, known, recorder)
    for stage, name in candidates(known).items():
        results[name].costs = costs_of(inputs[stage])
    baseline = results.get(BASELINE)
    rows = {name: measure(found, baseline) for name, found in results.items() if prompts}
    if context.world.is_main and prompts:
        title = f"Evaluation on {len(prompts)} held-out prompts"
        write_table(out, rows, title=title, notes=notes_on(task))
        write_answers(out / "answers.jsonl", results, task)
    return flat(rows) | suite_metrics(evaluator, out)


def costs_of(folder: Path) -> dict[str, float]:
    """Return what a stage took, by its manifest; nothing of a model folder."""
    if not (folder / MANIFEST).is_file():
        return {}
    metrics = read_manifest(folder).metrics
    costs = {name: metrics.get(f"cost/{name}") for name in COSTS}
    return {name: value for name, value in costs.items() if value is not None}


def suite_metrics(evaluator: Evaluator, out: Path) -> dict[str, float]:
    """Write the figures of the tasks, where there are tasks, and return their means."""
    if evaluator.suite is None:
        return {}
    figures = evaluator.suite.figures(evaluator.outcomes)
    figures["parameters"] = evaluator.parameters
    if evaluator.context.world.is_main:
        write_tasks(out, figures)
        write_task_answers(out / TASK_ANSWERS, evaluator.suite, evaluator.outcomes)
    return task_metrics(figures)


def notes_on(task: EmbeddedTask | None) -> list[str]:
    """Return the notes on how to read the table."""
    own = [] if task is None else [task.NOTE]
    return [INTERVALS, KL_NOTE, COST_NOTE, *own]


def eval_prompts(context: StageContext) -> list[EncodedPrompt]:
    """Return evaluation.prompts of the held-out prompts, drawn by the seed; none if only tasks are."""
    if "prompts" not in STAGES["evaluate"].data(context.cfg):
        return []
    held_out = context.encoded("prompts").held_out
    count = min(context.cfg.evaluation.prompts, len(held_out))
    return Random(context.cfg.seed).sample(held_out, count)


def num_candidates(cfg: Config, known: dict[str, Path]) -> int:
    """Return how many columns the table has: the base model, the candidates, best-of-n."""
    return 1 + len(candidates(known)) + wants_best_of_n(cfg, known)


def candidates(known: Collection[str]) -> dict[str, str]:
    """Return {stage: its name in the table} of the known stages that train a policy, in order."""
    return {
        name: spec.label
        for name, spec in STAGES.items()
        if name in known and spec.makes is Makes.policy
    }


def wants_best_of_n(cfg: Config, known: dict[str, Path]) -> bool:
    return cfg.evaluation.best_of_n > 1 and "sft" in known and "rm" in known


def evaluate_all(
    evaluator: Evaluator, known: dict[str, Path], recorder: Recorder
) -> dict[str, EvalResult]:
    """Return {name: result} of all candidates that there are."""
    found = {}
    for name, result in evaluate_each(evaluator, known):
        found[name] = result
        recorder.log({"eval/candidates": float(len(found))}, len(found))
    shown = sample_rows(evaluator.context, evaluator.prompts, found)
    recorder.samples("the same prompts, answered by each", shown)
    return found


def evaluate_each(evaluator: Evaluator, known: dict[str, Path]) -> Iterator[tuple[str, EvalResult]]:
    """Yield the name and the result of the base model and of every candidate, in the table's order."""
    context = evaluator.context
    yield "base", evaluator.evaluate("base", frozen(context, None))
    for stage, name in candidates(known).items():
        network = evaluator.reference if stage == "sft" else frozen(context, known[stage])
        yield name, evaluator.evaluate(name, network)
        if stage == "sft" and wants_best_of_n(context.cfg, known):
            n = context.cfg.evaluation.best_of_n
            yield f"{name}, best of {n}", evaluator.best_of_n(network, n)


def frozen(context: StageContext, path: Path | None) -> Network:
    return context.network(context.causal_lm(path))


def sample_rows(
    context: StageContext, prompts: list[EncodedPrompt], found: dict[str, EvalResult]
) -> list[dict[str, str]]:
    """Return a few prompts with every candidate's answer."""
    return [
        {"prompt": last_turn(prompts[i].record.messages)}
        | {name: response_text(result.answers[i]) for name, result in found.items()}
        for i in range(min(context.cfg.samples, len(prompts)))
    ]


def write_answers(place: Path, found: dict[str, EvalResult], task: EmbeddedTask | None) -> None:
    """Write every answer of every candidate, for a person or another judge to read."""
    lines = []
    for name, result in found.items():
        for i, (prompt, answer) in enumerate(zip(result.prompts, result.answers, strict=True)):
            entry = {
                "model": name,
                "prompt": conversation_text(prompt.messages),
                "response": answer.text,
                "finished": answer.finished,
                "score": None if result.scores is None else float(result.scores[i]),
            }
            if task is not None:
                entry[task.UTILITY] = result.measures[task.UTILITY][i]
            lines.append(json.dumps(entry, ensure_ascii=False))
    write_text(place, "\n".join(lines) + "\n")


def flat(rows: dict[str, Row]) -> dict[str, float]:
    """Return {"SFT": {"score": (m, l, h)}} as {"eval/SFT/score": m}."""
    return {
        f"eval/{name}/{metric}": interval[0]
        for name, row in rows.items()
        for metric, interval in row.items()
        if interval is not None
    }


def preview(cfg: Config, inputs: dict[str, Path]) -> Preview:
    """Return what a dry run shows: how many prompts, and one of them."""
    context = open_context(cfg)
    prompts, suite = eval_prompts(context), open_suite(context)
    facts = {
        "held-out prompts": str(len(prompts)),
        "answers": f"{len(prompts)} a candidate, best of {cfg.evaluation.best_of_n}",
    }
    ids = prompts[0].ids if prompts else []
    if suite is not None:
        facts["tasks"] = suite.description
        ids = ids or suite.tasks[0].direct[0].prompt_ids
    return Preview(facts=facts, example=example(context.renderer, ids, [False] * len(ids)))
