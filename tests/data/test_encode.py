"""Limits of length are exact, truncation follows its rules, and every truncation is counted.

The tokenizer's tokens are single bytes, so every length can be counted by hand:
"Human: " + prompt + "\\n\\nAssistant:" is 19 tokens more than the prompt; " " + text + end two more.
"""

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_cli.config.schema import LongText
from rlhf_cli.data.encode import encode
from rlhf_cli.data.fit import GENEROUS, _end_that_fits, fit_prompt
from rlhf_cli.data.records import (
    Comparison,
    DataError,
    Demonstration,
    Filtered,
    Message,
    Origin,
    Prompt,
    RowError,
)
from rlhf_cli.data.report import DataReport
from rlhf_cli.data.templates import build
from tests.support.data_sources import encoded, load, of

ORIGIN = Origin("a", 1)
AROUND_PROMPT = len("Human: ") + len("\n\nAssistant:")
AROUND_RESPONSE = 2


def user(text):
    return Message("user", text)


def bot(text):
    return Message("assistant", text)


def shown(*messages):
    return Demonstration(messages, ORIGIN)


def ranked(*responses, better=((0, 1),), ties=(), prompt="Why?"):
    return Comparison((user(prompt),), responses, better, ties, ORIGIN)


@pytest.fixture
def limits(config):
    """Return limits(prompt tokens, response tokens, prompts=drop|truncate, responses=...)."""

    def make(prompt=60, response=20, prompts="truncate", responses="truncate"):
        return config(
            max_prompt_tokens=prompt,
            max_response_tokens=response,
            long_prompts=LongText[prompts],
            long_responses=LongText[responses],
        ).data

    return make


def text_of(renderer, ids):
    return renderer.tokenizer.decode(ids, skip_special_tokens=False)


def test_a_conversation_that_fits_is_not_changed(plain_renderer, limits):
    record = shown(user("Why?"), bot("Because."))
    example = encode(plain_renderer, record, limits())
    assert (example.ids, example.loss_mask) == plain_renderer.conversation(record.messages)
    assert example.notes == ()
    assert example.record is record


def test_the_limits_are_exact(plain_renderer, limits):
    prompt, response = "p" * 10, "r" * 10
    fits = limits(10 + AROUND_PROMPT, 10 + AROUND_RESPONSE, "drop", "drop")
    example = encode(plain_renderer, shown(user(prompt), bot(response)), fits)
    assert len(example.ids) == 20 + AROUND_PROMPT + AROUND_RESPONSE
    with pytest.raises(Filtered, match=r"prompt too long: 30 tokens, data\.max_prompt_tokens=29"):
        encode(plain_renderer, shown(user(prompt + "p"), bot(response)), fits)
    with pytest.raises(
        Filtered, match=r"response too long: 13 tokens, data\.max_response_tokens=12"
    ):
        encode(plain_renderer, shown(user(prompt), bot(response + "r")), fits)


def test_a_truncated_response_has_no_supervised_end_token(plain_renderer, limits):
    example = encode(plain_renderer, shown(user("Why?"), bot("r" * 50)), limits(response=20))
    assert sum(example.loss_mask) == 20
    assert plain_renderer.end_id not in example.ids
    assert text_of(plain_renderer, example.ids).endswith("Assistant: " + "r" * 19)
    assert example.notes == ("response cut at the end, without its end token",)


def test_the_oldest_turns_are_dropped_first_and_the_system_text_is_kept(plain_renderer, limits):
    messages = (
        Message("system", "S"),
        user("first " * 5),
        bot("a"),
        user("second"),
        bot("b"),
        user("third"),
    )
    fitted, _, note = fit_prompt(plain_renderer, messages, limits(prompt=70))
    assert [m.content for m in fitted] == ["S", "second", "b", "third"]
    assert note == "prompt cut at a message"
    fitted, _, _ = fit_prompt(plain_renderer, messages, limits(prompt=50))
    assert [m.content for m in fitted] == ["S", "third"]


def test_a_long_last_turn_is_truncated_from_its_first_lines(plain_renderer, limits):
    lines = "\n".join(f"line number {i}" for i in range(20))
    fitted, _, note = fit_prompt(plain_renderer, (user(lines),), limits(prompt=AROUND_PROMPT + 30))
    assert fitted == (user("line number 18\nline number 19"),)
    assert note == "prompt cut at a line"


def test_a_long_line_is_truncated_from_its_first_words_or_letters(plain_renderer, limits):
    data = limits(prompt=AROUND_PROMPT + 12)
    fitted, _, note = fit_prompt(plain_renderer, (user("one two three four five"),), data)
    assert fitted == (user("four five"),)
    assert note == "prompt cut within a line"
    fitted, _, _ = fit_prompt(plain_renderer, (user("你" * 20),), data)
    assert fitted == (user("你" * 4),)  # three bytes each


def test_a_prompt_whose_template_text_alone_is_too_long_is_left_out(plain_renderer, limits):
    with pytest.raises(Filtered, match="not even its end fits"):
        fit_prompt(plain_renderer, (user("Why?"),), limits(prompt=AROUND_PROMPT))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    turns=st.lists(st.text(alphabet="ab \n你", min_size=1, max_size=60), min_size=1, max_size=5),
    limit=st.integers(25, 120),
)
def test_a_fitted_prompt_is_the_end_of_the_prompt_and_fits(plain_renderer, limits, turns, limit):
    messages = tuple((user, bot)[i % 2](text.strip() or "x") for i, text in enumerate(turns))
    messages = messages if messages[-1].role == "user" else messages[:-1]
    fitted, ids, note = fit_prompt(plain_renderer, messages, limits(prompt=limit))
    assert len(ids) <= limit
    assert ids == plain_renderer.prompt_ids(fitted)
    assert messages[-1].content.endswith(fitted[-1].content)
    assert fitted[-1].content
    assert fitted[:-1] == messages[len(messages) - len(fitted) : -1]
    assert (note is None) == (fitted == messages)


def test_all_responses_of_a_comparison_are_truncated_to_the_same_limit(plain_renderer, limits):
    record = ranked("a" * 50, "b" * 50, "c", better=((0, 1), (1, 2)), ties=((0, 2),))
    example = encode(plain_renderer, record, limits(response=20))
    assert [len(ids) for ids in example.response_ids] == [20, 20, 3]
    assert example.prompt_ids == plain_renderer.prompt_ids(record.prompt)
    assert (example.better, example.ties) == (record.better, record.ties)
    assert example.notes == ("response cut at the end, without its end token",) * 2
    assert example.sequences()[2] == example.prompt_ids + example.response_ids[2]


def test_one_long_response_leaves_out_the_comparison_when_long_ones_are_dropped(
    plain_renderer, limits
):
    with pytest.raises(Filtered, match="response too long"):
        encode(plain_renderer, ranked("a" * 50, "b"), limits(responses="drop"))


def test_pairs_that_are_equal_after_truncation_are_dropped(plain_renderer, limits):
    alike, other = "a" * 50, "b"
    record = ranked(alike + "x", alike + "y", other, better=((0, 1), (0, 2), (1, 2)))
    example = encode(plain_renderer, record, limits())
    assert example.better == ((0, 2), (1, 2))
    assert "pair alike after truncation, dropped" in example.notes
    with pytest.raises(RowError, match="responses alike after truncation"):
        encode(plain_renderer, ranked(alike + "x", alike + "y"), limits())


def test_an_encoded_prompt_ends_with_the_generation_prompt(plain_renderer, limits):
    record = Prompt((user("Why?"), bot("a"), user("And?")), ORIGIN)
    example = encode(plain_renderer, record, limits())
    assert example.ids == plain_renderer.prompt_ids(record.messages)
    assert text_of(plain_renderer, example.ids).endswith("Human: And?\n\nAssistant:")


def test_raw_text_may_use_the_sum_of_both_limits_and_is_truncated_at_its_end(
    plain_renderer, limits
):
    record = Demonstration((Message("text", "t" * 79),), ORIGIN)
    example = encode(plain_renderer, record, limits(60, 20))
    assert len(example.ids) == 80
    assert all(example.loss_mask)
    longer = Demonstration((Message("text", "t" * 80),), ORIGIN)
    example = encode(plain_renderer, longer, limits(60, 20))
    assert example.ids == plain_renderer._encode("t" * 80)
    assert example.notes == ("text cut at the end",)
    with pytest.raises(Filtered, match="text too long: 81 tokens, at most 80"):
        encode(plain_renderer, longer, limits(60, 20, responses="drop"))


def test_a_control_token_in_the_text_is_a_bad_row_unless_the_text_is_raw(plain_renderer, limits):
    for record in (
        shown(user("Why </s>?"), bot("a")),
        shown(user("Why?"), bot("a </s> b")),
        ranked("a", "b </s> c"),
        Prompt((user("</s>"),), ORIGIN),
    ):
        with pytest.raises(RowError, match="a control token of the tokenizer in the text: '</s>'"):
            encode(plain_renderer, record, limits())
    raw = Demonstration((Message("text", "one</s>two"),), ORIGIN)
    assert encode(plain_renderer, raw, limits()).ids.count(plain_renderer.end_id) == 2


def test_a_row_without_supervised_tokens_is_refused(plain_renderer, limits):
    unsupervised = replace(bot("b"), supervised=False)
    early = shown(user("long " * 20), bot("a"), user("And?"), unsupervised)
    with pytest.raises(RowError, match="nothing left to supervise: after truncation"):
        encode(plain_renderer, early, limits())


def test_turns_after_the_last_answer_are_removed(plain_renderer, limits):
    example = encode(plain_renderer, shown(user("Why?"), bot("a"), user("And?")), limits())
    assert text_of(plain_renderer, example.ids).endswith("Assistant: a</s>")


THOUGHTFUL = "<think>\nadd\n</think>\n\n4"


def test_rows_that_the_template_changes_are_counted_with_an_example(make_tokenizer, limits):
    tokenizer = make_tokenizer(eos_token="</s>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ':' }}{{ m.content.split('</think>')[-1] + eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    renderer = build(tokenizer, template="auto", system=None)
    records = [shown(user("2 + 2?"), bot("4")), shown(user("2 + 2?"), bot(THOUGHTFUL))]
    report = DataReport(role="demonstrations", num_kept=2)
    examples, _, _ = encoded(renderer, of(records, report), limits())
    what = "the chat template does not show all of a response"
    assert report.notes == {what: 1}
    assert "'<think>\\nadd\\n</think>\\n\\n4' became '\\n\\n4'" in report.plain()
    assert report.first() == ""
    assert text_of(renderer, examples[1].ids) == "user:2 + 2?</s>assistant:\n\n4</s>"
    report = DataReport(role="comparisons", num_kept=1)
    pair = ranked(THOUGHTFUL, "4", THOUGHTFUL + "!", prompt="2 + 2?")
    encoded(renderer, of([pair], report), limits())
    assert report.notes == {what: 1}


def test_a_thought_that_the_template_cannot_show_is_a_bad_row(make_tokenizer, limits):
    """The prompt has an empty thought, which another one must not follow."""
    tokenizer = make_tokenizer(eos_token="</s>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ':' }}"
        "{{ '<think></think>' if m.role == 'assistant' and '</think>' not in m.content }}"
        "{{ m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:<think></think>' }}{% endif %}"
    )
    renderer = build(tokenizer, template="auto", system=None)
    report = DataReport(role="demonstrations", num_kept=2)
    records = [shown(user("2 + 2?"), bot("4")), shown(user("2 + 2?"), bot(THOUGHTFUL))]
    (example,), _, _ = encoded(renderer, of(records, report), limits())
    assert text_of(renderer, example.ids) == "user:2 + 2?</s>assistant:<think></think>4</s>"
    assert report.bad == {
        "the chat template does not show the response after its generation prompt": 1
    }


def test_an_encoded_prompt_holds_the_messages_after_truncation(plain_renderer, limits):
    record = Prompt((user("first " * 9), bot("a"), user("And?")), ORIGIN)
    example = encode(plain_renderer, record, limits(prompt=AROUND_PROMPT + 10))
    assert example.messages == (user("And?"),)
    assert example.ids == plain_renderer.prompt_ids(example.messages)
    assert example.record is record


def test_the_report_counts_kept_bad_and_truncated_records(plain_renderer, limits):
    records = [shown(user("Why?"), bot("a")), shown(user("</s>"), bot("a"))]
    records += [shown(user("p" * 90), bot("r" * 90))]
    report = DataReport(role="demonstrations", num_kept=3)
    examples, _, _ = encoded(plain_renderer, of(records, report), limits())
    assert [e.record.messages for e in examples] == [records[i].messages for i in (0, 2)]
    assert report.num_kept == 2
    assert report.bad == {"a control token of the tokenizer in the text": 1}
    assert report.notes == {
        "prompt cut within a line": 1,
        "response cut at the end, without its end token": 1,
    }


def test_a_split_without_rows_after_tokenising_is_refused(config, write, plain_renderer):
    rows = [{"prompt": f"question {i}", "response": "a"} for i in range(60)]
    cfg = config(demonstrations=[write("d.jsonl", rows)])
    train, select, held = encoded(plain_renderer, load(cfg, "demonstrations"), cfg.data)
    assert len(train + select + held) == 60
    short = replace(cfg.data, max_prompt_tokens=5)
    loaded = load(cfg, "demonstrations")
    assert encoded(plain_renderer, loaded, short) == ([], [], [])
    with pytest.raises(DataError, match="none to train on is left after tokenising"):
        loaded.report.enforce()


def test_limitations_of_the_template_are_noted_once(make_tokenizer, limits):
    text = "{% for m in messages %}{% if m.role in ('user', 'assistant') %}{{ m.role + ':' + m.content + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"  # noqa: E501
    tokenizer = make_tokenizer(eos_token="</s>")
    tokenizer.chat_template = text
    renderer = build(tokenizer, template="auto", system=None)
    report = DataReport(role="prompts", num_kept=2)
    tooled = (user("Why?"), bot("f()"), Message("tool", "42"))
    encoded(renderer, of([Prompt(tooled, ORIGIN)] * 2, report), limits())
    assert report.notes == dict.fromkeys(renderer.notes, 1)
    assert len(renderer.notes) == 2


def test_earlier_answers_that_the_template_changes_are_noted(make_tokenizer, limits):
    tokenizer = make_tokenizer(eos_token="</s>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ':' }}"
        "{{ (m.content if loop.last else m.content.replace('!', '.')) + eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    renderer = build(tokenizer, template="auto", system=None)
    turns = (user("Why?"), bot("Because!"), user("And?"), bot("So."))
    example = encode(renderer, shown(*turns), limits())
    assert example.notes == ("earlier answers not supervised: the template rewrites them",)
    assert encode(renderer, shown(turns[0], bot("Because."), *turns[2:]), limits()).notes == ()


@pytest.mark.parametrize("seed", range(40))
def test_end_that_fits_finds_the_longest_end_in_few_tries(seed):
    rng = random.Random(seed)
    sizes = [rng.choice((1, 1, 2, 3, 40)) for _ in range(rng.randint(1, 400))]
    pieces = [chr(97 + i % 26) * n for i, n in enumerate(sizes)]
    overhead, limit, tried = rng.randint(0, 9), rng.randint(1, 500), []

    def size(text: str) -> int:
        tried.append(text)
        return overhead + len(text)

    found = _end_that_fits(pieces, "", size, limit)
    ends = ["".join(pieces[start:]) for start in range(1, len(pieces))]
    assert found == next((end for end in ends if overhead + len(end) <= limit), "")
    assert len(tried) <= 3 * len(pieces).bit_length()


def test_a_very_long_text_is_truncated_before_tokenising(config, plain_renderer, monkeypatch):
    """The result is the same, and the tokenizer never reads more than a multiple of the limit."""
    data = config(max_prompt_tokens=50, max_response_tokens=30).data
    record, seen = shown(user("lorem ipsum " * 4_999 + "lorem ipsum"), bot("dolor " * 9_000)), []
    tokenise = plain_renderer._encode
    monkeypatch.setattr(plain_renderer, "_encode", lambda t: seen.append(len(t)) or tokenise(t))
    found = encode(plain_renderer, record, data)
    room = GENEROUS * 50 * plain_renderer.longest
    assert max(seen) <= room < 50_000
    monkeypatch.setattr("rlhf_cli.data.fit.GENEROUS", 10_000)
    assert encode(plain_renderer, record, data).ids == found.ids
    assert max(seen) > 50_000
    drop = replace(data, long_prompts=LongText.drop)
    monkeypatch.undo()
    with pytest.raises(Filtered, match=r"59999 characters, data\.max_prompt_tokens=50"):
        encode(plain_renderer, record, drop)
