"""The gain of a rationale, compared with exact log-probs of a model that is a table."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rlhf_cli.data.records import Message
from rlhf_cli.evaluation.rationale_gain import Scorer
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.context import open_context
from tests.support.rationales import GOOD
from tests.support.small_stages import changed, little
from tests.support.tabular import network

QUESTION = "bird 3 sings and bird 4 sings"
RATIONALE = "The bird 3 sings. It is loud so 7. A cat is not."


class Tables(nn.Module):
    """Logits are a table's row of the last token, plus a smaller one of every token before it."""

    def __init__(self, num_tokens: int):
        super().__init__()
        torch.manual_seed(3)
        self.last = nn.Parameter(torch.randn(num_tokens, num_tokens))
        self.before = nn.Parameter(0.3 * torch.randn(num_tokens, num_tokens))
        self.config = SimpleNamespace(_attn_implementation="sdpa")

    def forward(self, input_ids, attention_mask, use_cache=False):
        seen = (self.before[input_ids] * attention_mask[..., None]).cumsum(1)
        return SimpleNamespace(logits=self.last[input_ids] + seen)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    cfg = changed(little(), {"data.max_prompt_tokens": 64, "data.max_response_tokens": 64})
    context = open_context(cfg)
    return Scorer(
        network=network(Tables(context.renderer.num_tokens)),
        renderer=context.renderer,
        data=cfg.data,
        room=None,
        batch=2,
        world=World(),
    )


@torch.no_grad()
def exact(scorer: Scorer, rationale: str, answer: str) -> float:
    """Return log P(answer | question, rationale), summed token by token from the tables."""
    tables, renderer = scorer.network.model, scorer.renderer
    question_ids = renderer.prompt_ids((Message("user", f"{QUESTION}\nLet's think step by step."),))
    start = f"{rationale}\n" if rationale else ""
    ids = renderer.response_ids(f"{start}The answer is {answer}.")
    num = len(ids) - len(renderer.response_ids(f"{start}The answer is")) + 1
    assert num >= 2  # the answer, and the end token
    tokens, total = question_ids + ids, 0.0
    for place in range(len(tokens) - num, len(tokens)):
        logits = tables.last[tokens[place - 1]] + tables.before[tokens[:place]].sum(0)
        total += float(logits.log_softmax(-1)[tokens[place]])
    return total


def rationale(text: str, **changes):
    plain = {"question": QUESTION, "rationale": text, "gain": None, "gain_stated": None}
    return replace(GOOD, **(plain | changes))


@pytest.mark.parametrize("answer", ["7", "loud"])
def test_the_gain_is_the_difference_of_exact_log_probs(scorer, answer):
    (found,) = scorer.scored([rationale(RATIONALE, answer=answer)])
    alone = exact(scorer, "", answer)
    unstated = exact(scorer, "The bird 3 sings. A cat is not.", answer)
    stated = exact(scorer, RATIONALE, answer)
    assert len({round(x, 3) for x in (alone, unstated, stated)}) == 3
    assert found.gain == pytest.approx(unstated - alone, abs=1e-4)
    assert found.gain_stated == pytest.approx(stated - alone, abs=1e-4)


@pytest.mark.parametrize("text", ["7", "The answer is 7.", "It is 7! So 7."])
def test_a_rationale_that_is_only_the_answer_gains_nothing_after_removal(scorer, text):
    (found,) = scorer.scored([rationale(text)])
    assert found.gain == 0.0
    assert math.isfinite(found.gain_stated) and found.gain_stated != 0.0


def test_the_gain_does_not_depend_on_the_batch(scorer):
    listed = [
        rationale(RATIONALE),
        rationale("7", answer="loud"),
        rationale("It is not."),
        rationale(RATIONALE, question="cat"),
    ]
    together = scorer.scored(listed)
    for one, found in zip(listed, together, strict=True):
        (alone,) = scorer.scored([one])
        assert found.gain == pytest.approx(alone.gain, abs=1e-4)
        assert found.gain_stated == pytest.approx(alone.gain_stated, abs=1e-4)
    assert len({round(one.gain, 4) for one in together}) == 4
    assert scorer.scored([]) == []


def test_an_incomplete_or_too_long_rationale_has_no_gain(scorer):
    found = scorer.scored([rationale(RATIONALE, is_complete=False), rationale("It is not.")])
    assert found[0].gain is None and found[0].gain_stated is None
    assert found[1].gain is not None
    (found,) = replace(scorer, room=20).scored([rationale(RATIONALE)])
    assert found.gain is None
