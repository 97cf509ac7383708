"""Exemplars before an example: in one turn or as turns, and those that do not fit."""

from rlhf_cli.config.schema import LongText, ShotsAs
from rlhf_cli.data.encode import GONE, encode_demonstration, encode_prompt
from rlhf_cli.data.records import Demonstration, Message, Origin, Prompt
from rlhf_cli.data.tasks.prompts import prompt_of, without_first
from rlhf_cli.data.tasks.task import TaskExample

ORIGIN = Origin("x", 1)


def one(text: str, target: str) -> TaskExample:
    return TaskExample(
        task="t",
        template="a",
        input=text,
        target=target,
        options=(),
        answer=target,
        rationale=None,
        origin=ORIGIN,
    )


SHOTS = [one("two?", "2"), one("three?", "3")]


def test_exemplars_in_one_turn_are_separated_by_blank_lines():
    messages, starts = prompt_of(one("four?", "4"), SHOTS, ShotsAs.text)
    assert messages == (Message("user", "two?\n2\n\nthree?\n3\n\nfour?"),)
    kept = [without_first(messages, start) for start in starts]
    assert [m.content for (m,) in kept] == ["three?\n3\n\nfour?", "four?"]


def test_exemplars_as_turns_are_not_supervised():
    messages, starts = prompt_of(one("four?", "4"), SHOTS, ShotsAs.turns)
    assert [(m.role, m.content, m.supervised) for m in messages] == [
        ("user", "two?", True), ("assistant", "2", False), ("user", "three?", True),
        ("assistant", "3", False), ("user", "four?", True),
    ]  # fmt: skip
    assert without_first(messages, starts[0]) == messages[2:]
    assert without_first(messages, starts[1]) == messages[4:]


def encoded(renderer, config, shots_as: ShotsAs, limit: int, long_prompts=LongText.drop):
    messages, starts = prompt_of(one("four?", "4"), SHOTS, shots_as)
    data = config(max_prompt_tokens=limit, long_prompts=long_prompts).data
    meta = {"exemplars": starts}
    record = Demonstration((*messages, Message("assistant", "4")), ORIGIN, meta)
    prompt = encode_prompt(renderer, Prompt(messages, ORIGIN, meta), data)
    found = encode_demonstration(renderer, record, data)
    decode = renderer.tokenizer.decode
    learned = [t for t, m in zip(found.ids, found.loss_mask, strict=True) if m]
    assert found.ids[: len(prompt.ids)] == prompt.ids and prompt.notes == found.notes
    assert decode(learned) == " 4</s>"
    return decode(prompt.ids), found.notes


def test_the_first_exemplars_are_dropped_when_they_do_not_fit_and_are_counted(
    plain_renderer, config
):
    whole = "Human: two?\n2\n\nthree?\n3\n\nfour?\n\nAssistant:"
    text = ShotsAs.text
    assert encoded(plain_renderer, config, text, len(whole)) == (whole, ())
    shorter = whole.replace("two?\n2\n\n", "")
    assert encoded(plain_renderer, config, text, len(whole) - 1) == (shorter, (GONE,))
    alone = "Human: four?\n\nAssistant:"
    assert encoded(plain_renderer, config, text, len(alone)) == (alone, (GONE, GONE))
    assert encoded(plain_renderer, config, ShotsAs.turns, 54) == (
        "Human: three?\n\nAssistant: 3</s>\n\nHuman: four?\n\nAssistant:", (GONE,),
    )  # fmt: skip
