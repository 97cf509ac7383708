"""All figures of an evaluation, from what every model answered and what judges think of it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.results import REFERENCE, Figure, Results
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.data.fit import fit_response
from rlhf_cli.evaluation.abstention import abstention_figures, readings
from rlhf_cli.evaluation.gains import generalisation_figures, win_rate_figures
from rlhf_cli.evaluation.metrics import EvalResult, measure_answers
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.evaluation.reward_trial import ScoredAnswers
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.evaluate.evaluator import (
    Evaluator,
    candidates,
)
from rlhf_cli.stages.evaluate.prompt_sets import PromptSets
from rlhf_cli.stages.evaluate.trust import SFT, verdicts
from rlhf_cli.stages.reward_scorer import RewardModel

REWARD_MODEL = "reward model"  # that policies are trained against, among those on trial


def results_of(
    evaluator: Evaluator,
    sets: PromptSets,
    results: Mapping[str, EvalResult],
    reference: EvalResult | None,
    inputs: Mapping[str, Path],
) -> Results:
    """Return all figures and the verdicts. reference: the data's own responses, where there are some."""
    seed, with_one = evaluator.context.cfg.seed, prompts_with_reference(evaluator)
    figures = [
        *evaluator.figures,
        *trial_figures(evaluator, results),
        *win_rates(sets, results, baseline_name(evaluator.context.cfg), seed=seed),
        *reference_win_rates(sets, results, reference, with_one, seed=seed),
    ]
    if sets.ood:
        whole = reference if len(with_one) == len(sets.prompts) else None
        figures += generalisation_figures(
            results, sets.familiar, sets.ood, seed=seed, reference=whole
        )
    held_out = {name: found.of(sets.held_out) for name, found in results.items()}
    figures += abstentions(evaluator, held_out)
    trained = {stage: STAGES[stage].label for stage in candidates(inputs)}
    judged = [*figures, *against_sft(held_out, figures, seed=seed)]
    return Results(
        figures=figures,
        verdicts=verdicts(held_out, trained, inputs, judged, seed=seed),
        curves={"best_of_n": evaluator.curve} if evaluator.curve else {},
        missing=notes_of(evaluator, sets),
    )


def baseline_name(cfg: Config) -> str:
    """Return the column whose answers the win rates are against."""
    against = cfg.evaluation.against
    return against if against == "base" else STAGES[against].label


def notes_of(evaluator: Evaluator, sets: PromptSets) -> list[str]:
    """Return what was left out or cannot be measured, a line each."""
    suites = evaluator.suites.notes if evaluator.suites else []
    probes = evaluator.probes.missing if evaluator.reward else []
    return [*sets.notes, *suites, *probes, *evaluator.missing]


def trial_figures(evaluator: Evaluator, results: Mapping[str, EvalResult]) -> list[Figure]:
    """Return how the reward model does on probes, on people's responses and on every model's answers."""
    trial = evaluator.trial
    if not trial.models:
        return []
    figures = [*evaluator.probes.figures(trial.models), *trial.of_people()]
    scored = {name: scored_answers(result, trial.models) for name, result in results.items()}
    for name, found in scored.items():
        baseline = scored.get(SFT) if name != SFT else None
        figures += trial.of_answers(name, found, baseline)
    samples = evaluator.diversity.samples if evaluator.diversity else {}
    for name, tries in samples.items():
        figures += trial.of_samples(name, tries, true_values(evaluator, tries))
    return figures


def scored_answers(result: EvalResult, models: Mapping[str, RewardModel]) -> ScoredAnswers:
    """Return the answers with the scores that the models gave them; the first is the proxy."""
    known = {REWARD_MODEL: result.scores} | result.judged
    return ScoredAnswers(answers=result.answers, scores={name: known[name] for name in models})


def true_values(evaluator: Evaluator, tries: list[list[Answer]]) -> dict[str, Any]:
    """Return the true utility of each answer, by its name; nothing where it is not known."""
    task, records = evaluator.task, [one.record for one in evaluator.prompts[: len(tries[0])]]
    if task is None:
        return {}
    values = [measure_answers(task, records, some)[task.UTILITY] for some in tries]
    return {task.UTILITY: values}


def abstentions(evaluator: Evaluator, held_out: Mapping[str, EvalResult]) -> list[Figure]:
    """Return the share of answers that abstain of every model, and how often its others are right."""
    task, figures = evaluator.task, []
    for name, result in held_out.items():
        metas = [prompt.meta for prompt in result.prompts]
        texts = [answer.text for answer in result.answers]
        abstained, right = readings(task, metas, texts)
        figures += abstention_figures(name, abstained, right, sft_rates(evaluator, metas))
    return figures


def sft_rates(evaluator: Evaluator, metas: list[dict[str, Any]]) -> list[float] | None:
    """Return how often the samples of best-of-n are right on each prompt; None where that is not known."""
    task, tries = evaluator.task, evaluator.sft_tries
    if task is None or not tries:
        return None
    return [
        sum(task.content_of(meta, some[i].text).right is not None for some in tries) / len(tries)
        for i, meta in enumerate(metas)
    ]


def win_rates(
    sets: PromptSets, results: Mapping[str, EvalResult], against: str, *, seed: int
) -> list[Figure]:
    """Return the win rates over one of the models on the held-out prompts and on every other set."""
    if against not in results:
        return []
    found = []
    for prompts, index in {None: sets.held_out, **sets.ood}.items():
        some = {name: result.of(index) for name, result in results.items()}
        found += win_rate_figures(some, some[against], against=against, seed=seed, prompts=prompts)
    return found


def against_sft(
    held_out: Mapping[str, EvalResult], figures: list[Figure], *, seed: int
) -> list[Figure]:
    """Return the win rates over the SFT model, which verdicts need, where they are not figures yet."""
    if SFT not in held_out or any(one.group == SFT for one in figures):
        return []
    return win_rate_figures(held_out, held_out[SFT], against=SFT, seed=seed)


def references(evaluator: Evaluator) -> EvalResult | None:
    """Return what is measured of the data's own responses; None where no prompt has one."""
    if not prompts_with_reference(evaluator):
        return None
    answers = [reference_answer(evaluator.context, prompt) for prompt in evaluator.prompts]
    return replace(evaluator.result_of(answers, None), name=REFERENCE)


def prompts_with_reference(evaluator: Evaluator) -> list[int]:
    """Return the indices of the prompts to which the data have a response."""
    return [i for i, one in enumerate(evaluator.prompts) if one.record.reference is not None]


def reference_answer(context: StageContext, prompt: EncodedPrompt) -> Answer:
    """Return the data's response to a prompt as an answer; an empty one where there is none."""
    text = prompt.record.reference or ""
    ids, _ = fit_response(context.renderer, text, context.cfg.data)
    finished = ids[-1] in context.renderer.end_ids
    return Answer(prompt_ids=prompt.ids, ids=ids, text=text, finished=finished)


def reference_win_rates(
    sets: PromptSets,
    results: Mapping[str, EvalResult],
    reference: EvalResult | None,
    with_one: list[int],
    *,
    seed: int,
) -> list[Figure]:
    """Return the win rates over the data's own responses, of each set where it has two or more."""
    found, known = [], set(with_one)
    for prompts, every in {None: sets.held_out, **sets.ood}.items():
        index = [i for i in every if i in known]
        if reference is None or len(index) < 2:
            continue
        some = {name: result.of(index) for name, result in results.items()}
        found += win_rate_figures(
            some, reference.of(index), against=REFERENCE, seed=seed, prompts=prompts
        )
    return found
