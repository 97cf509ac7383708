"""Answers before and after training, and rendered examples, as shown to the user."""

from types import SimpleNamespace

from rlhf_cli.data.records import Demonstration, Message, Origin
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.stages import samples
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.samples import (
    MAX_SHOWN_CHARS,
    SUPERVISED,
    BeforeAfter,
    last_turn,
    plain,
    prompts_of,
    rendered,
    response_text,
)
from tests.support.small_stages import little

ORIGIN = Origin("made in a test", 0)
DIALOGUE = (Message("user", "Why [bold]?"), Message("assistant", "Because."))


def answer(text: str, *, finished: bool = True) -> Answer:
    return Answer(prompt_ids=[5], ids=[6], text=text, finished=finished)


def test_a_truncated_answer_is_marked():
    assert response_text(answer("woof")) == "woof"
    assert response_text(answer("woo", finished=False)) == "woo [cut]"


def test_a_long_conversation_is_shown_from_its_end():
    """The end of a conversation is what an answer replies to."""
    assert last_turn((Message("user", "short"),)) == "short"
    text = "a" * MAX_SHOWN_CHARS + "b" * MAX_SHOWN_CHARS
    assert last_turn((Message("user", text),)) == "... " + "b" * MAX_SHOWN_CHARS
    turns = (Message("user", "x"), Message("assistant", "y"), Message("user", "z"))
    assert last_turn(turns) == "user: x\nassistant: y\nuser: z"


def test_the_prompt_of_a_demonstration_is_all_before_its_last_answer():
    context = open_context(little())
    turns = ["What is 2 plus 3?", "5", "And the dog?", "woof"]
    roles = ["user", "assistant"] * 2
    messages = tuple(Message(role, text) for role, text in zip(roles, turns, strict=True))
    raw = Demonstration((Message("text", "once"),), ORIGIN)
    (prompt,) = prompts_of(
        context, [SimpleNamespace(record=one) for one in (Demonstration(messages, ORIGIN), raw)]
    )
    assert prompt.record.messages == messages[:3]
    text = context.renderer.tokenizer.decode(prompt.ids)
    assert "And the dog?" in text and "woof" not in text


def test_samples_show_the_answers_before_and_after_training(monkeypatch):
    answers = iter(["first", "second"])
    monkeypatch.setattr(samples, "sample_answers", lambda *arguments: [answer(next(answers))])
    context = SimpleNamespace(cfg=SimpleNamespace(seed=1))
    prompt = SimpleNamespace(record=SimpleNamespace(messages=(Message("user", "hi"),)))
    shown, rows = BeforeAfter(context=context, prompts=[prompt]), []
    shown.sample("before", None)
    assert shown.texts == {"before": ["first"]}
    shown.sample("after", None)
    shown.show(SimpleNamespace(samples=lambda title, found: rows.extend(found)))
    assert rows == [{"prompt": "hi", "before": "first", "after": "second"}]


def test_rendered_examples_highlight_supervised_tokens_and_show_special_ones(plain_renderer):
    ids, mask = plain_renderer.conversation(DIALOGUE)
    text = rendered(plain_renderer, ids, mask)
    assert text.plain == "Human: Why [bold]?\n\nAssistant: Because.</s>"
    shown = [text.plain[s.start : s.end] for s in text.spans if s.style == SUPERVISED]
    assert shown == [" Because.</s>"]


def test_plain_examples_mark_supervised_tokens_with_brackets(plain_renderer):
    ids, mask = plain_renderer.conversation(DIALOGUE)
    assert plain(plain_renderer, ids, mask) == ("Human: Why [bold]?\n\nAssistant:[[ Because.</s>]]")
