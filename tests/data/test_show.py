"""A shown example loses no token and marks exactly the supervised ones."""

from rlhf_cli.data.records import Message
from rlhf_cli.data.show import SUPERVISED, plain, rendered

TALK = (Message("user", "Why [bold]?"), Message("assistant", "Because."))


def test_supervised_tokens_stand_out_and_special_tokens_are_seen(plain_renderer):
    ids, mask = plain_renderer.conversation(TALK)
    text = rendered(plain_renderer, ids, mask)
    assert text.plain == "Human: Why [bold]?\n\nAssistant: Because.</s>"
    shown = [text.plain[s.start : s.end] for s in text.spans if s.style == SUPERVISED]
    assert shown == [" Because.</s>"]


def test_the_plain_form_marks_them_with_brackets(plain_renderer):
    ids, mask = plain_renderer.conversation(TALK)
    assert plain(plain_renderer, ids, mask) == ("Human: Why [bold]?\n\nAssistant:[[ Because.</s>]]")
