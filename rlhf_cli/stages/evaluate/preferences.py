"""What the language model of the section `judge` makes of answers: which it prefers, which abstain."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.config.schema.judge import Judge
from rlhf_cli.config.schema.run import Config
from rlhf_cli.core.bootstrap import mean_bootstrap
from rlhf_cli.evaluation.abstention import PART as ABSTENTION
from rlhf_cli.evaluation.judge_server import JudgeUnreachable
from rlhf_cli.evaluation.metrics import LANGUAGE_MODEL, EvalResult, same_answers
from rlhf_cli.evaluation.pairwise import (
    abstention_questions,
    preference,
    question,
    request_text,
    same_in_both_orders,
)
from rlhf_cli.stages.evaluate.evaluator import Evaluator
from rlhf_cli.stages.evaluate.figures import baseline_name, prompts_with_reference
from rlhf_cli.stages.evaluate.trust import SFT
from rlhf_cli.stages.language_judge import LanguageJudge, open_language_judge

Pair = tuple[EvalResult, EvalResult, int]  # ours, theirs, index of the prompt
Opponent = tuple[EvalResult, Sequence[int]]  # theirs, indices of the prompts that they answer


def ask_language_model(
    evaluator: Evaluator, results: Mapping[str, EvalResult], reference: EvalResult | None
) -> None:
    """Fill `preferred` of the results, over the baseline, the SFT model and the data's references.

    The rates of abstaining are added to the figures. Where a server does not answer a line is added to
    evaluator.missing.
    """
    context = evaluator.context
    judge = open_language_judge(context) if evaluator.prompts else None
    if judge is None:
        return
    try:
        with context.clock.phase("score"):
            if context.cfg.judge.chat:
                evaluator.figures += abstentions_by(judge, evaluator, results)
            compare(judge, evaluator, results, reference)
    except JudgeUnreachable as error:
        evaluator.missing.append(unreachable(context.cfg.judge, error))


def abstentions_by(
    judge: LanguageJudge, evaluator: Evaluator, results: Mapping[str, EvalResult]
) -> list[Figure]:
    """Return how many answers to the held-out prompts abstain in the judge's opinion, of every model."""
    num = evaluator.num_held_out
    asked = [
        abstention_questions(request_text(one.prompts[i].messages), one.answers[i].text)
        for one in results.values()
        for i in range(num)
    ]
    forward, backward = judge.shares(
        [text for order in zip(*asked, strict=True) for text in order]
    ).view(2, -1)
    found = []
    for name, shares in zip(results, preference(forward, backward).split(num), strict=True):
        known = shares[~shares.isnan()]
        if len(known) > 1:
            rate = mean_bootstrap(known, seed=evaluator.context.cfg.seed)
            names = {"part": ABSTENTION, "measure": "rate", "policy": name, "judge": LANGUAGE_MODEL}
            found.append(Figure.of(rate, count=len(known), **names))
    return found


def compare(
    judge: LanguageJudge,
    evaluator: Evaluator,
    results: Mapping[str, EvalResult],
    reference: EvalResult | None,
) -> None:
    """Fill `preferred` of the results."""
    context, every = evaluator.context, range(len(evaluator.prompts))
    names = dict.fromkeys((baseline_name(context.cfg), SFT))
    opponents = [(results[name], every) for name in names if name in results]
    if reference is not None:
        opponents.append((reference, prompts_with_reference(evaluator)))
    pairs = list(pairs_of(results.values(), opponents))
    if not pairs:
        return
    orders = [pairs, [(theirs, ours, i) for ours, theirs, i in pairs]]
    questions = [question_of(context.cfg, *pair) for order in orders for pair in order]
    forward, backward = judge.shares(questions).view(2, -1)
    fill(results.values(), opponents)
    for (ours, theirs, i), value in zip(pairs, preference(forward, backward).tolist(), strict=True):
        ours.preferred[theirs.name][i] = value
    add_consistency(evaluator, forward, backward)


def pairs_of(results: Iterable[EvalResult], opponents: list[Opponent]) -> Iterator[Pair]:
    """Yield every pair of different answers that the judge is asked about."""
    for ours, (theirs, index) in product(results, opponents):
        if ours is not theirs:
            same = same_answers(ours, theirs)
            yield from ((ours, theirs, i) for i in index if not same[i])


def fill(results: Iterable[EvalResult], opponents: list[Opponent]) -> None:
    """Begin `preferred`: 1/2 for equal answers, NaN for all others, over every opponent."""
    for ours, (theirs, index) in product(results, opponents):
        same = set(index) & {i for i, one in enumerate(same_answers(ours, theirs)) if one}
        found = [0.5 if i in same else math.nan for i in range(len(ours.answers))]
        ours.preferred[theirs.name] = torch.tensor(found, dtype=torch.float64)


def question_of(cfg: Config, first: EvalResult, second: EvalResult, i: int) -> str:
    """Return the question which of two answers to prompt i is better."""
    return question(
        cfg.judge.question,
        prompt=request_text(first.prompts[i].messages),
        a=first.answers[i].text,
        b=second.answers[i].text,
    )


def add_consistency(evaluator: Evaluator, forward: Tensor, backward: Tensor) -> None:
    """Add the share of pairs whose preferred answer is the same in both orders; count what is left out."""
    settings, known = evaluator.context.cfg.judge, ~(forward + backward).isnan()
    if left_out := int((~known).sum()):
        evaluator.missing.append(
            f"judge.model={settings.model}: {left_out} of {len(known)} pairs left out, which are too "
            "long for it or which it answers by neither A nor B"
        )
    if known.any():
        same = same_in_both_orders(forward[known], backward[known])
        evaluator.figures.append(
            Figure.of(
                mean_bootstrap(same, seed=evaluator.context.cfg.seed),
                part="judge",
                measure="same_in_both_orders",
                judge=LANGUAGE_MODEL,
                count=len(same),
            )
        )


def unreachable(settings: Judge, error: JudgeUnreachable) -> str:
    """Return the line that names what is missing without the server's answers."""
    return f"judge.url={settings.url} did not answer ({error}): figures by {settings.model} are missing"
