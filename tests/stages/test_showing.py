"""What a person reads of a model at work."""

from types import SimpleNamespace

from rlhf_cli.data.records import Demonstration, Message, Origin
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.stages import showing
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.samples import MAX_SHOWN_CHARS, BeforeAfter, prompts_of, said, told
from tests.stages.little import little

WHERE = Origin("made in a test", 0)


def answer(text: str, *, finished: bool = True) -> Answer:
    return Answer(prompt_ids=[5], ids=[6], text=text, finished=finished)


def test_an_answer_that_was_cut_is_marked():
    assert told(answer("woof")) == "woof"
    assert told(answer("woo", finished=False)) == "woo [cut]"


def test_the_end_of_a_long_conversation_is_shown():
    """The answer is to what was said last."""
    assert said((Message("user", "short"),)) == "short"
    text = "a" * MAX_SHOWN_CHARS + "b" * MAX_SHOWN_CHARS
    assert said((Message("user", text),)) == "... " + "b" * MAX_SHOWN_CHARS
    turns = (Message("user", "x"), Message("assistant", "y"), Message("user", "z"))
    assert said(turns) == "user: x\nassistant: y\nuser: z"


def test_the_prompt_of_a_demonstration_is_what_came_before_its_answer():
    setting = open_context(little())
    turns = ["What is 2 plus 3?", "5", "And the dog?", "woof"]
    roles = ["user", "assistant"] * 2
    messages = tuple(Message(role, text) for role, text in zip(roles, turns, strict=True))
    raw = Demonstration((Message("text", "once"),), WHERE)
    (prompt,) = prompts_of(
        setting, [SimpleNamespace(record=one) for one in (Demonstration(messages, WHERE), raw)]
    )
    assert prompt.record.messages == messages[:3]
    text = setting.renderer.tokenizer.decode(prompt.ids)
    assert "And the dog?" in text and "woof" not in text


def test_before_comes_before_after(monkeypatch):
    answers = iter(["first", "second"])
    monkeypatch.setattr(showing, "ask", lambda *asked: [answer(next(answers))])
    setting = SimpleNamespace(cfg=SimpleNamespace(seed=1))
    prompt = SimpleNamespace(record=SimpleNamespace(messages=(Message("user", "hi"),)))
    shown, rows = BeforeAfter(setting=setting, prompts=[prompt]), []
    shown.ask_before(None)
    assert shown.state() == {"before": ["first"]}
    shown.ask_after(None)
    shown.tell(SimpleNamespace(samples=lambda title, told: rows.extend(told)))
    assert rows == [{"prompt": "hi", "before": "first", "after": "second"}]
