"""A judge at a server: what is sent, what is read of its answers, and a server that fails."""

import math
import threading

import pytest

from rlhf_cli.evaluation import judge_server
from rlhf_cli.evaluation.judge_server import JudgeServer, JudgeUnreachable
from tests.support.judge_server import by_logprobs, by_text, serving


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(judge_server, "FIRST_PAUSE", 0.0)


def shares(answer, questions=("q",), **settings):
    with serving(answer) as url:
        server = JudgeServer(url=url, model="m", **({"parallel": 2} | settings))
        return list(server.shares(questions))


@pytest.mark.parametrize(
    ("completion", "share"),
    [
        (by_logprobs({"A": math.log(0.6), "B": math.log(0.2)}), 0.75),
        (
            by_logprobs({"A": math.log(0.1), " A": math.log(0.3), "B": math.log(0.4), "C": -0.1}),
            0.5,
        ),
        (by_logprobs({"B": math.log(0.5)}), 0.0),
        (by_logprobs({"The": -0.1}, "The answer is B."), 0.0),
        (by_text("A"), 1.0),
        (by_text("Answer: B"), 0.0),
        (by_text("Both are Bad."), None),
        (by_text(None), None),
    ],
)
def test_the_share_is_that_of_the_first_token_or_of_the_text(completion, share):
    (found,) = shares(lambda body, headers: (200, completion))
    assert math.isnan(found) if share is None else found == pytest.approx(share)


def test_each_question_is_sent_once_and_answered_in_order():
    seen = []

    def answer(body, headers):
        seen.append((body, headers))
        return 200, by_text(body["messages"][0]["content"])

    assert shares(answer, ["A", "B", "B", "A"], key="secret") == [1.0, 0.0, 0.0, 1.0]
    assert sorted(body["messages"][0]["content"] for body, _ in seen) == ["A", "A", "B", "B"]
    body, headers = seen[0]
    assert (body["model"], body["temperature"], body["logprobs"]) == ("m", 0, True)
    assert headers["Authorization"] == "Bearer secret"


def test_without_a_key_none_is_sent():
    seen = []

    def answer(body, headers):
        seen.append(headers)
        return 200, by_text("A")

    shares(answer)
    assert "Authorization" not in seen[0]


def test_as_many_requests_run_at_once_as_asked_for():
    """The first three are answered when all of them are there."""
    together = threading.Barrier(3, timeout=20)

    def answer(body, headers):
        together.wait()
        return 200, by_text("A")

    assert shares(answer, ["1", "2", "3"], parallel=3) == [1.0] * 3


def test_a_busy_server_is_asked_again():
    statuses = [503, 429, 200]
    answer = lambda body, headers: (statuses.pop(0), by_text("B"))  # noqa: E731
    assert shares(answer) == [0.0] and not statuses


@pytest.mark.parametrize(
    ("status", "content", "reason", "asked"),
    [
        (401, {}, "HTTP 401", 1),
        (500, {}, "HTTP 500", 3),
        (200, {"error": "no"}, "no chat completion", 1),
        (200, b"<html>", "no chat completion", 1),
        (200, by_logprobs({"A": "high"}), "no chat completion", 1),
    ],
)
def test_a_server_that_fails_is_named_by_its_reason(status, content, reason, asked):
    seen = []

    def answer(body, headers):
        seen.append(body)
        return status, content

    with pytest.raises(JudgeUnreachable, match=reason):
        shares(answer)
    assert len(seen) == asked


def test_without_a_server_the_reason_is_the_connection():
    with serving(lambda body, headers: (200, by_text("A"))) as url:
        pass
    with pytest.raises(JudgeUnreachable, match="refused"):
        list(JudgeServer(url=url, model="m", parallel=1).shares(["q"]))
