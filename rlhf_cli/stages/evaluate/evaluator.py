"""The same prompts, tasks and judges for every candidate: base model, every policy, best-of-n."""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from rlhf_cli.artifacts.layout import BEST, WATCH
from rlhf_cli.artifacts.results import Figure
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_spec import Makes
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.core.estimates import best_of_n_estimate, bon_kl
from rlhf_cli.data.embedded import EmbeddedTask
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.evaluation.metrics import EvalResult, best_of, measure_answers
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.evaluation.task_figures import Outcome
from rlhf_cli.evaluation.task_suite import TaskSuite
from rlhf_cli.report.run_state import metric_lines
from rlhf_cli.runtime.engine import Network
from rlhf_cli.stages.context import StageContext, num_parameters
from rlhf_cli.stages.evaluate.diversity import Diversity
from rlhf_cli.stages.evaluate.part import Part
from rlhf_cli.stages.evaluate.probes import Probes
from rlhf_cli.stages.evaluate.reward_trial import RewardTrial
from rlhf_cli.stages.evaluate.suites import SuitePart
from rlhf_cli.stages.reward_scorer import RewardModel
from rlhf_cli.stages.samples import log_ratios, num_tokens, sample_answers, sample_each


@dataclass(slots=True, kw_only=True)
class Evaluator:
    """task: of the first num_held_out prompts, None without one or where its true utility is not to be
    known.

    outcomes, parameters: of the tasks, and how many the model has, by candidate; figures: of the
    parts; sft_tries: of best-of-n, n lists of one answer per prompt; curve: of its score by n; all filled
    as each candidate is evaluated. missing: what could not be measured in the end, a line each.
    """

    context: StageContext
    prompts: list[EncodedPrompt]
    num_held_out: int
    task: EmbeddedTask | None
    suite: TaskSuite | None
    reward: RewardModel | None
    judges: dict[str, RewardModel]
    reference: Network | None
    parts: list[Part]
    suites: SuitePart | None
    diversity: Diversity | None
    probes: Probes
    trial: RewardTrial
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    sft_tries: list[list[Answer]] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def evaluate(self, name: str, network: Network) -> EvalResult:
        """Ask a candidate the tasks; sample and evaluate one answer per prompt; measure every part."""
        if self.suite is not None:
            self.outcomes[name] = self.suite.outcomes(network)
            self.parameters[name] = num_parameters(network.model)
        answers = sample_answers(self.context, network, self.prompts, self.context.cfg.seed)
        for part in self.parts:
            self.figures += part.figures(name, network)
        return self.result_of(answers, network)

    def result_of(self, answers: list[Answer], network: Network | None) -> EvalResult:
        """Return what is measured of these answers; log-ratios need the model they came from."""
        records = [prompt.record for prompt in self.prompts]
        ratios = None
        if self.reference is not None and network is not None:
            with self.context.clock.phase("score"):
                ratios = log_ratios(self.context, network, self.reference, answers)
        measures = measure_answers(self.task, records[: self.num_held_out], answers)
        judged = {name: judge.score_answers(answers) for name, judge in self.judges.items()}
        if self.task is not None:
            name = self.task.UTILITY
            values = [math.nan if one is None else one for one in measures[name]]
            judged = {name: torch.tensor(values, dtype=torch.float64)} | judged
        return EvalResult(
            prompts=records,
            answers=answers,
            scores=None if self.reward is None else self.reward.score_answers(answers),
            log_ratios=ratios,
            measures=measures,
            judged=judged,
        )

    def _utility(self, tries: list[list[Answer]]) -> dict[str, Tensor]:
        """Return the true utility (n, prompts) of answers to the held-out prompts, where it is known."""
        if self.task is None:
            return {}
        records = [prompt.record for prompt in self.prompts[: self.num_held_out]]
        found = [
            measure_answers(self.task, records, some[: self.num_held_out])[self.task.UTILITY]
            for some in tries
        ]
        return {self.task.UTILITY: torch.tensor(found, dtype=torch.float64)}

    def best_of_n(self, network: Network, n: int) -> EvalResult:
        """Return the best of n answers by the reward model: its optimisation without training."""
        seeds = [self.context.cfg.seed + 1000 + i for i in range(n)]
        began = perf_counter()
        self.sft_tries = tries = sample_each(self.context, network, self.prompts, seeds)
        scores = torch.stack([self.reward.score_answers(answers) for answers in tries])
        seconds = perf_counter() - began
        self.curve = best_of_n_curve(scores[:, : self.num_held_out], self._utility(tries))
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


def best_of_n_curve(scores: Tensor, utility: dict[str, Tensor]) -> list[dict[str, float]]:
    """Return what the best of 1, 2, 4 .. answers is worth on average: score, true utility, KL bound.

    scores (n, prompts); utility: name -> (n, prompts), where it is known.
    """
    sizes = [2**k for k in range(len(scores).bit_length())]
    return [
        {"n": n, "kl": bon_kl(n), "score": float(best_of_n_estimate(scores.T, scores.T, n).mean())}
        | {
            name: float(best_of_n_estimate(scores.T, values.T, n).mean())
            for name, values in utility.items()
        }
        for n in sizes
        if n <= len(scores)
    ]


def num_candidates(cfg: Config, known: dict[str, Path]) -> int:
    """Return how many columns the table has: the base model, the candidates, best-of-n, best/."""
    num_best = sum(best_weights(known[stage]) is not None for stage in candidates(known))
    return 1 + len(candidates(known)) + num_best + wants_best_of_n(cfg, known)


def candidates(known: Collection[str]) -> dict[str, str]:
    """Return {stage: its name in the table} of the known stages that train a policy, in order."""
    return {
        name: spec.label
        for name, spec in STAGES.items()
        if name in known and spec.makes is Makes.policy
    }


def best_weights(model: Path) -> Path | None:
    """Return the folder of a policy's best weights where its last ones showed two symptoms or more.

    With fewer the verdict on the last weights has no doubt that the best ones could answer.
    """
    rows = list(metric_lines(model.parent / WATCH))
    best = model.parent / BEST
    return best if rows and len(rows[-1]["symptoms"]) > 1 and best.is_dir() else None


def wants_best_of_n(cfg: Config, known: dict[str, Path]) -> bool:
    return cfg.evaluation.best_of_n > 1 and "sft" in known and "rm" in known


def evaluate_each(evaluator: Evaluator, known: dict[str, Path]) -> Iterator[tuple[str, EvalResult]]:
    """Yield the name and the result of the base model and of every candidate, in the table's order."""
    context = evaluator.context
    yield "base", evaluator.evaluate("base", frozen(context, None))
    for stage, name in candidates(known).items():
        network = evaluator.reference if stage == "sft" else frozen(context, known[stage])
        yield name, evaluator.evaluate(name, network)
        if best := best_weights(known[stage]):
            yield f"{name}, {BEST}", evaluator.evaluate(f"{name}, {BEST}", frozen(context, best))
        if stage == "sft" and wants_best_of_n(context.cfg, known):
            n = context.cfg.evaluation.best_of_n
            yield f"{name}, best of {n}", evaluator.best_of_n(network, n)


def frozen(context: StageContext, path: Path | None) -> Network:
    return context.network(context.causal_lm(path))
