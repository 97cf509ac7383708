"""The language model that judges: its shares against forward passes of transformers alone."""

import math

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_cli.config.environment import JUDGE_KEY
from rlhf_cli.core.microbatches import Share
from rlhf_cli.data.records import Message
from rlhf_cli.evaluation.judge_server import JudgeUnreachable
from rlhf_cli.evaluation.likelihood import Continuation
from rlhf_cli.models.load import ASSETS
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.language_judge import AskedJudge, open_language_judge, server_of
from tests.support.options import by_itself
from tests.support.small_stages import changed, little

MODEL = str(ASSETS / "tiny_xs")
QUESTIONS = ["Which is longer? (A) a dog (B) a cat and a dog", "A or B?"]


def opened(**values):
    values = {f"judge.{name}": value for name, value in ({"model": MODEL} | values).items()}
    return open_language_judge(open_context(changed(little(), values)))


@pytest.mark.parametrize("chat", [True, False])
def test_shares_are_those_of_the_two_letters(chat):
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(MODEL),
        AutoTokenizer.from_pretrained(MODEL),
    )
    expected = []
    for text in QUESTIONS:
        if chat:
            asked = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        prompt_ids = tokenizer.encode(text, add_special_tokens=False)
        a, b = (
            tokenizer.encode(text + letter, add_special_tokens=False)[len(prompt_ids) :]
            for letter in ((" A", " B") if chat else ("A", "B"))
        )
        a, b = (by_itself(model, Continuation(prompt_ids=prompt_ids, ids=ids)) for ids in (a, b))
        expected.append(a - b)
    found = opened(chat=chat).shares(QUESTIONS).logit().tolist()
    assert found == pytest.approx(expected, abs=1e-3)
    assert expected[0] != pytest.approx(expected[1], abs=0.1)


def test_a_question_longer_than_the_context_has_no_share():
    judge = opened()
    lengths = [len(judge.renderer.prompt_ids((Message("user", text),))) for text in QUESTIONS]
    judge.room = lengths[0] + 1  # of the answer's two tokens, a space and the letter
    first, second = judge.shares(QUESTIONS).tolist()
    assert math.isnan(first) and 0 < second < 1
    judge.room += 1
    assert not judge.shares(QUESTIONS).isnan().any()


def test_without_a_model_there_is_no_judge():
    assert opened(model=None) is None


class Servers:
    """Stands for a JudgeServer; fails: at which question."""

    def __init__(self, fails=None):
        self.fails = fails

    def shares(self, questions):
        for text in questions:
            if text == self.fails:
                raise JudgeUnreachable("refused")
            yield float(text)


def test_processes_share_the_questions_and_add_up():
    texts = ["0.1", "0.2", "0.3"]
    parts = [
        AskedJudge(server=Servers(), world=World(Share(rank, 2))).shares(texts) for rank in (0, 1)
    ]
    assert parts[0].tolist() == [0.1, 0, 0.3] and parts[1].tolist() == [0, 0.2, 0]


def test_where_one_process_got_no_answer_none_has_shares():
    with pytest.raises(JudgeUnreachable, match="refused"):
        AskedJudge(server=Servers("0.2"), world=World()).shares(["0.1", "0.2"])

    class Others(World):
        def any(self, flag):
            return True

    with pytest.raises(JudgeUnreachable, match="another process"):
        AskedJudge(server=Servers(), world=Others()).shares(["0.1"])


def test_the_server_is_asked_with_the_key_of_the_environment(monkeypatch):
    monkeypatch.setenv(JUDGE_KEY, "secret")
    values = {"model": "m", "url": "http://here/v1", "parallel": 3}
    cfg = changed(little(), {f"judge.{name}": value for name, value in values.items()})
    server = server_of(cfg)
    assert (server.url, server.model, server.parallel, server.key) == (
        "http://here/v1",
        "m",
        3,
        "secret",
    )
    assert "secret" not in repr(server)
