"""Log-probs of people's responses under policies, compared with a forward pass per response."""

import pytest
import torch

from rlhf_cli.artifacts.results import select
from rlhf_cli.evaluation.likelihood import Continuation
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.evaluate.imitation import Imitation
from tests.support.options import by_itself
from tests.support.small_stages import changed, little

FEW = {"evaluation.batch": 3, "tiny_world.completions": [3, 4]}


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return open_context(
        changed(little(), {**FEW, "runs_dir": str(tmp_path_factory.mktemp("runs"))})
    )


def models(context):
    """Return the base model, and one with other weights in place of SFT and of PPO."""
    base, other = context.causal_lm(), context.causal_lm()
    with torch.no_grad():
        other.model.embed_tokens.weight.mul_(1.3)
    return {"base": base, "SFT": other, "PPO": other}


def expected(model, comparisons, side):
    """Return the mean log-prob of a side of each prompt, a forward pass per response."""
    found = []
    for one in comparisons:
        winners, losers = {i for i, _ in one.better}, {j for _, j in one.better}
        places = winners - losers if side == "chosen" else losers - winners
        rows = [Continuation(prompt_ids=one.prompt_ids, ids=one.response_ids[i]) for i in places]
        found.append(sum(by_itself(model, row) for row in rows) / len(rows))
    return found


def test_log_probs_and_their_gain_over_the_base_model_are_those_of_each_response_alone(context):
    comparisons = list(context.encoded("comparisons").held_out)[:4]
    part, made = Imitation(context=context, comparisons=comparisons), models(context)
    figures = [
        figure
        for name, model in made.items()
        for figure in part.figures(name, context.network(model))
    ]
    assert not [one for one in figures if one.policy == "base" and "minus" in one.measure]
    for side in ("chosen", "rejected"):
        values = {name: expected(model, comparisons, side) for name, model in made.items()}
        for name, sums in values.items():
            (found,) = select(figures, policy=name, group=side, measure="logprob")
            assert found.value == pytest.approx(sum(sums) / 4, abs=1e-3)
            assert found.count == 4 and found.part == "imitation"
        gained, again = select(figures, group=side, measure="logprob_minus_base")
        assert (gained.policy, again.policy, again.value) == ("SFT", "PPO", gained.value)
        gaps = [ours - base for ours, base in zip(values["SFT"], values["base"], strict=True)]
        assert gained.value == pytest.approx(sum(gaps) / 4, abs=1e-3)
        spread = (sum((gap - sum(gaps) / 4) ** 2 for gap in gaps) / 3 / 4) ** 0.5
        assert gained.high - gained.value == pytest.approx(3.1824 * spread, rel=1e-2)  # Student, 3


def test_without_pairs_nothing_is_asked(context):
    part = Imitation(context=context, comparisons=[])
    assert part.figures("base", None) == []
