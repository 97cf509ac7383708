"""The reward model on trial beside another: which scores belong to which responses."""

from types import SimpleNamespace

import pytest
import torch

from rlhf_cli.artifacts.results import select
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.data.records import Comparison, Message, Origin
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.stages.evaluate.reward_trial import RewardTrial

CONTEXT = SimpleNamespace(renderer=SimpleNamespace(end_ids=[1]))


def model(score):
    """Return a reward model whose scores are a function of the tokens of an answer."""
    return SimpleNamespace(
        score_answers=lambda answers: torch.tensor([float(score(a.ids)) for a in answers])
    )


def comparison(prompt, responses, better):
    record = Comparison(
        (Message("user", "x"),), ("y",) * len(responses), better, (), Origin("a.jsonl", 0)
    )
    return EncodedComparison(
        prompt_ids=prompt, response_ids=responses, better=better, ties=(), record=record
    )


def answers(*rows):
    return [Answer(prompt_ids=[9], ids=list(ids), text="", finished=True) for ids in rows]


@pytest.fixture
def trial():
    """Return one of the sum of the tokens, beside one of the first token."""
    return RewardTrial(
        context=CONTEXT,
        models={"mine": model(sum), "first": model(lambda ids: ids[0])},
        comparisons=[
            comparison([9], [[2, 1], [5, 1], [3, 4]], ((0, 1), (2, 1), (2, 0))),
            comparison([8], [[7], [2, 6]], ((1, 0),)),
        ],
    )


def one(figures, **names):
    (found,) = select(figures, **names)
    return found


def test_people_are_scored_by_every_model(trial):
    figures = trial.of_people()
    top = {"policy": "people, top-ranked", "group": None, "measure": "score"}
    assert one(figures, judge="mine", **top).value == (7 + 8) / 2
    assert one(figures, judge="first", **top).value == (3 + 2) / 2
    others = {"policy": "people, others", "group": None, "measure": "score"}
    assert one(figures, judge="mine", **others).value == ((3 + 6) / 2 + 7) / 2
    # of the pairs 3 > 6, 7 > 6, 7 > 3 and 8 > 7 three are right; by the first token they are
    # 2 > 5, 3 > 5, 3 > 2 and 2 > 7
    accuracy = one(figures, measure="accuracy")
    assert (accuracy.value, accuracy.count) == (pytest.approx(0.75), 4)
    assert accuracy.judge == "people"
    assert one(figures, measure="agreement").value == 0.5


def test_a_policys_answers_are_scored_and_compared_with_the_baselines(trial):
    sft = trial.scored(answers([4, 4], [2, 2], [3]))
    ppo = trial.scored(answers([5, 1], [3, 2], [3]))
    figures = trial.of_answers("PPO", ppo, sft)
    assert one(figures, measure="score", judge="mine", group=None).value == (6 + 5 + 3) / 3
    assert one(figures, measure="score", judge="first", group="q50").value == 3
    agreed = one(figures, measure="agreement")
    assert (agreed.value, agreed.count, agreed.judge) == (0.5, 2, "first")
    assert not select(trial.of_answers("SFT", sft, None), measure="agreement")


def test_own_samples_are_ordered_by_each_judge(trial):
    """Three samples for each of two prompts; the sums are 5, 9, 6 and 7, 4, 7."""
    tries = [answers([4, 1], [2, 5]), answers([3, 6], [3, 1]), answers([5, 1], [6, 1])]
    figures = trial.of_samples("PPO", tries, {"gold": [[1.0, 0.0], [2.0, None], [2.0, 1.0]]})
    assert {(f.policy, f.measure) for f in figures} == {("PPO", "accuracy")}
    # first tokens 4, 3, 5: 4 > 3 wrong, 5 > 4 right, 5 > 3 wrong; 2, 3, 6: all but 3 > 2 .. 7 = 7
    first = one(figures, judge="first")
    assert (first.value, first.count) == (pytest.approx(2 / 6), 6)
    # 9 > 5 and 6 > 5; of the other prompt the first and the last are 7 and 7
    gold = one(figures, judge="gold")
    assert (gold.value, gold.count) == (pytest.approx(2 / 3), 3)


def test_without_other_models_only_known_values_judge_own_samples(trial):
    alone = RewardTrial(context=CONTEXT, models={"mine": model(sum)}, comparisons=[])
    tries = [answers([4, 1]), answers([3, 6])]
    assert alone.of_samples("PPO", tries, {}) == []
    assert one(alone.of_samples("PPO", tries, {"gold": [[1.0], [0.0]]})).value == 0.0
    assert alone.of_people() == []
