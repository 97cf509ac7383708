"""The reward model on trial: scored beside other reward models, on people's responses and on policies'."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.evaluation.comparisons import scored_rankings
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.evaluation.reward_trial import (
    ScoredAnswers,
    answer_agreement,
    comparison_figures,
    people_figures,
    sample_accuracy,
    score_figures,
)
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.evaluate.comparisons import compared_answers
from rlhf_cli.stages.reward_scorer import RewardModel

Values = Sequence[Sequence[float | None]]  # n lists of one value per prompt


@dataclass(slots=True, kw_only=True)
class RewardTrial:
    """models: name -> reward model; the first is on trial, the others are compared with it.

    comparisons: held out, in the policy's tokens; the models were loaded for their prompts too.
    """

    context: StageContext
    models: Mapping[str, RewardModel]
    comparisons: list[EncodedComparison]

    def scored(self, answers: list[Answer]) -> ScoredAnswers:
        """Score one answer per prompt by every model."""
        scores = {name: model.score_answers(answers) for name, model in self.models.items()}
        return ScoredAnswers(answers=answers, scores=scores)

    def of_people(self) -> list[Figure]:
        """Return the scores of people's responses, accuracy and agreement on the pairs they ordered."""
        found = self.scored(compared_answers(self.comparisons, self.context.renderer))
        rankings = {
            name: scored_rankings(self.comparisons, scores) for name, scores in found.scores.items()
        }
        return people_figures(rankings) + comparison_figures(rankings)

    def of_answers(
        self, policy: str, found: ScoredAnswers, baseline: ScoredAnswers | None
    ) -> list[Figure]:
        """Return the scores of a policy's answers, and the agreement on them against the baseline's."""
        figures = [
            figure
            for judge, scores in found.scores.items()
            for figure in score_figures(scores.split(1), policy, judge)
        ]
        return figures + (answer_agreement(policy, found, baseline) if baseline else [])

    def of_samples(
        self, policy: str, tries: list[list[Answer]], known: Mapping[str, Values]
    ) -> list[Figure]:
        """Return the accuracy on pairs of a policy's own samples, by each other model and each judge.

        tries: n lists of one answer per prompt. known: judge -> its values of them, None where it has none.
        """
        every = [answer for answers in tries for answer in answers]
        scored = self.scored(every).scores
        tables = {name: scores.view(len(tries), -1) for name, scores in scored.items()}
        (_, first), *others = tables.items()
        judges = {name: scores.tolist() for name, scores in others} | dict(known)
        return [
            figure
            for judge, values in judges.items()
            for figure in sample_accuracy(policy, judge, tries, first, values)
        ]
