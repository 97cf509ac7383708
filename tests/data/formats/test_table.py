"""Each published form, row by row: every form of a conversation gives the same records."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cli.config.schema import Source, Ties
from rlhf_cli.data.formats.table import FORMS, PARSER, check_format, convert, format_names
from rlhf_cli.data.load import paired
from rlhf_cli.data.records import BadRow, DataError, Message, Origin, RowError
from rlhf_cli.data.validate import notes_on, validate

ORIGIN = Origin("a.jsonl", 1, 1)
QUESTION, ANSWER = Message("user", "Why?"), Message("assistant", "Because.")
SYSTEM = Message("system", "Be kind.")
HH = "\n\nHuman: Why?\n\nAssistant: "


def records(row, role, **source):
    return convert(row, ORIGIN, Source(path="a.jsonl", **source), role)[0]


def one(row, role, **source):
    (record,) = records(row, role, **source)
    return record


def refused(row, role, **source) -> RowError:
    with pytest.raises(RowError) as error:
        records(row, role, **source)
    return error.value


DEMONSTRATIONS = {
    "messages": {
        "messages": [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": " Because. "},
        ]
    },
    "typed parts, text under value": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "value": "Why?"}], "loss_weight": 0.0},
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "Beca"}, {"type": "text", "text": "use."}],
                "loss_weight": 1.0,
            },
        ]
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
    },
    "roles in capitals": {
        "messages": [
            {"role": "Human", "content": "Why?"},
            {"role": "Assistant", "content": "Because."},
        ]
    },
    "alpaca": {"instruction": "Why?", "input": "", "output": "Because."},
    "alpaca without an input": {"instruction": "Why?", "input": "<no input>", "output": "Because."},
    "alpaca, null input": {"instruction": "Why?", "input": None, "output": "Because."},
    "prompt, completion": {"prompt": "Why?", "completion": " Because."},
    "prompt, response": {"prompt": "Why?", "response": "Because."},
    "question, answer": {"question": "Why?", "answer": "Because."},
    "inputs, targets": {"inputs": "Why?", "targets": "Because."},
    "input, target": {"input": "Why?", "target": "Because."},
    "transcript as prompt": {"prompt": "\n\nHuman: Why?", "completion": "Because."},
    "messages as prompt": {
        "prompt": [{"role": "user", "content": "Why?"}],
        "completion": "Because.",
    },
    "self-instruct": {
        "instruction": "Why?",
        "instances": [{"input": "", "output": "Because."}],
        "is_classification": False,
    },
    "hh, the chosen side": {"chosen": HH + "Because.", "rejected": HH + "Dunno."},
    "kto, judged good": {
        "messages": [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "Because."},
        ],
        "label": True,
    },
}


@pytest.mark.parametrize("row", DEMONSTRATIONS.values(), ids=DEMONSTRATIONS)
def test_every_form_of_a_demonstration_gives_the_same_conversation(row):
    assert one(row, "demonstrations").messages == (QUESTION, ANSWER)


def message(role, content):
    return {"role": role, "content": content}


PAIRS = {
    "transcripts": {"chosen": HH + "Because.", "rejected": HH + "Dunno."},
    "prompt and texts": {"prompt": "Why?", "chosen": "Because.", "rejected": "Dunno."},
    "prompt as transcript": {"prompt": HH, "chosen": " Because.", "rejected": " Dunno."},
    "prompt beside transcripts": {
        "prompt": HH,
        "chosen": HH + "Because.",
        "rejected": HH + "Dunno.",
    },
    "role lists": {
        "chosen": [message("user", "Why?"), message("assistant", "Because.")],
        "rejected": [message("user", "Why?"), message("assistant", "Dunno.")],
    },
    "prompt beside role lists": {
        "prompt": "Why?",
        "chosen": [message("user", "Why?"), message("assistant", "Because.")],
        "rejected": [message("user", "Why?"), message("assistant", "Dunno.")],
        "messages": [message("user", "Why?"), message("assistant", "Because.")],
    },
    "prompt list, answers alone": {
        "prompt": [message("user", "Why?")],
        "chosen": [message("assistant", "Because.")],
        "rejected": [message("assistant", "Dunno.")],
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": "Why?"}],
        "chosen": {"from": "gpt", "value": "Because."},
        "rejected": {"from": "gpt", "value": "Dunno."},
    },
    "alpaca": {"instruction": "Why?", "input": "", "chosen": "Because.", "rejected": "Dunno."},
    "orca": {"question": "Why?", "chosen": "Because.", "rejected": "Dunno."},
    "kwise by rank": {"prompt": "Why?", "responses": ["Because.", "Dunno."], "rank": [0, 1]},
    "kwise by pairs": {
        "prompt": "Why?",
        "responses": ["Because.", "Dunno."],
        "pairs": [[1, 0, 2]],
        "rank": None,
    },
    "kwise by scores": {"prompt": "Why?", "responses": ["Because.", "Dunno."], "scores": [2, "1"]},
    "kwise with messages": {
        "messages": [message("user", "Why?")],
        "responses": ["Because.", "Dunno."],
        "rank": [1, 2],
    },
    "qa feedback": {
        "question": "Why?",
        "prediction 1": "Because.",
        "prediction 2": "Dunno.",
        "preference": [1],
    },
    "webgpt": {
        "question": {"full_text": "Why?"},
        "answer_0": "Because.",
        "answer_1": "Dunno.",
        "score_0": 0.5,
        "score_1": -0.5,
    },
    "shp": {"history": "Why?", "human_ref_A": "Because.", "human_ref_B": "Dunno.", "labels": 1},
    "nectar": {
        "prompt": "\n\nHuman: Why?\n\nAssistant: ",
        "answers": [{"answer": "Because.", "rank": 1.0}, {"answer": "Dunno.", "rank": 2.0}],
    },
    "ultrafeedback": {
        "instruction": "Why?",
        "completions": [
            {"response": "Because.", "overall_score": 8.5},
            {"response": "Dunno.", "overall_score": 3},
        ],
    },
    "oasst": {
        "message_tree_id": "x",
        "prompt": {
            "role": "prompter",
            "text": "Why?",
            "replies": [
                {"role": "assistant", "text": "Because.", "rank": 0, "replies": []},
                {"role": "assistant", "text": "Dunno.", "rank": 1, "replies": []},
            ],
        },
    },
}


@pytest.mark.parametrize("row", PAIRS.values(), ids=PAIRS)
def test_every_form_of_a_comparison_gives_the_same_comparison(row):
    found = one(row, "comparisons")
    assert found.prompt == (QUESTION,)
    assert found.responses == ("Because.", "Dunno.")
    assert found.better == ((0, 1),)
    assert found.ties == ()


@pytest.mark.parametrize("row", PAIRS.values(), ids=PAIRS)
def test_every_form_of_a_comparison_gives_its_prompt(row):
    assert one(row, "prompts").messages == (QUESTION,)


PROMPTS = {
    "prompt": {"prompt": "Why? "},
    "prompt list": {"prompt": [message("user", "Why?")]},
    "messages with an answer": {"messages": [message("user", "Why?"), message("assistant", "No")]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Why?"}]},
    "text": {"text": "Why?"},
    "transcript": {"prompt": "\n\nHuman: Why?\n\nAssistant:"},
    "transcript as text": {"text": "\n\nHuman: Why?\n\nAssistant:"},
    "turns of texts": {"turns": ["Why?"]},
    "turns of objects": {"turns": [{"content": "Why?"}]},
    "alpaca": {"instruction": "Why?", "input": "", "output": "x"},
    "column Question": {"Question": "Why?"},
    "oasst root": PAIRS["oasst"],
    "self-instruct": DEMONSTRATIONS["self-instruct"],
}


@pytest.mark.parametrize("row", PROMPTS.values(), ids=PROMPTS)
def test_every_form_of_a_prompt_gives_the_same_prompt(row):
    assert one(row, "prompts").messages == (QUESTION,)


def test_multi_turn_transcripts_split_at_the_last_answer():
    both = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:"
    found = one({"chosen": both + " Yes.", "rejected": both + " No."}, "comparisons")
    assert [m.role for m in found.prompt] == ["user", "assistant", "user"]
    assert found.responses == ("Yes.", "No.")


def test_a_role_word_inside_a_turn_is_text():
    text = "\n\nHuman: A\n\nAssistant: B  Human: C?\n\nAssistant: D"
    found = one({"chosen": text, "rejected": text + "!"}, "comparisons")
    assert [m.content for m in found.prompt] == ["A", "B  Human: C?"]


def test_different_prompts_of_a_pair_are_refused_with_the_turn():
    error = refused(
        {"chosen": HH + "Yes.", "rejected": HH.replace("Why", "Who") + "No."}, "comparisons"
    )
    assert error.reason == "prompts differ"
    assert "turn 1: 'Why?' and 'Who?'" in error.detail
    longer = HH + "Yes.\n\nHuman: And?\n\nAssistant: So."
    error = refused({"chosen": longer, "rejected": HH + "No."}, "comparisons")
    assert error.detail == "chosen has 3 turns before the answer, rejected 1"


def test_tool_turns_of_sharegpt_are_converted():
    row = {
        "conversations": [
            {"from": "human", "value": "Weather?"},
            {"from": "function_call", "value": '{"name": "weather"}'},
            {"from": "observation", "value": '{"sun": true}'},
            {"from": "gpt", "value": "Sunny."},
        ],
        "tools": '[{"name": "weather"}]',
    }
    found = one(row, "demonstrations").messages
    assert [m.role for m in found] == ["system", "user", "assistant", "tool", "assistant"]
    assert found[0].content == 'Tools: [{"name": "weather"}]'
    row["tools"] = "[]"
    assert one(row, "demonstrations").messages[0].role == "user"


def test_openai_tool_calls_without_content_become_their_json():
    row = {
        "messages": [
            message("user", "Weather?"),
            {"role": "assistant", "content": None, "tool_calls": [{"name": "weather"}]},
            message("tool", "sun"),
            message("assistant", "Sunny."),
        ]
    }
    assert one(row, "demonstrations").messages[1].content == '[{"name": "weather"}]'


def test_turns_of_loss_weight_zero_are_not_supervised():
    row = {
        "messages": [
            message("user", "a"),
            {**message("assistant", "b"), "loss_weight": 0.0},
            message("user", "c"),
            {**message("assistant", "d"), "weight": 1},
        ]
    }
    found = one(row, "demonstrations").messages
    assert [m.supervised for m in found if m.role == "assistant"] == [False, True]
    row["messages"][1]["loss_weight"] = 0.3
    assert refused(row, "demonstrations").reason == "a loss weight that is neither 0 nor 1"


def test_an_input_follows_its_instruction_and_a_system_text_comes_first():
    row = {"instruction": "Fix.", "input": "He go.", "output": "He goes.", "system": "Be kind."}
    found = one(row, "demonstrations").messages
    assert found == (SYSTEM, Message("user", "Fix.\n\nHe go."), Message("assistant", "He goes."))


@pytest.mark.parametrize(
    "no_input", ["Noinput", "No input.", "<no input>", "No Input", "(none)", "N/A"]
)
def test_an_input_such_as_none_or_noinput_is_empty_and_counted(no_input):
    row = {"instruction": "Why?", "input": no_input, "output": "Because."}
    found, fields = convert(row, ORIGIN, Source(path="a.jsonl"), "demonstrations")
    assert found[0].messages == (QUESTION, ANSWER)
    assert fields.notes == ["an input that stands for none, taken as empty"]


def test_an_input_that_only_begins_with_no_input_is_kept():
    row = {"instruction": "Why?", "input": "No input devices work", "output": "Because."}
    assert "No input devices" in one(row, "demonstrations").messages[0].content


def test_several_instances_give_several_demonstrations():
    row = {
        "instruction": "Double.",
        "instances": [{"input": "1", "output": "2"}, {"input": "2", "output": "4"}],
    }
    found = records(row, "demonstrations")
    assert [r.messages[0].content for r in found] == ["Double.\n\n1", "Double.\n\n2"]


def test_labels_of_four_predictions_have_the_published_order():
    row = {"question": "Why?", "preference": [0, 1, 2, 0, 1, 2]}
    row |= {f"prediction {i}": str(i) for i in range(1, 5)}
    found = one(row, "comparisons")
    # 12 tie, 13 first, 14 second, 23 tie, 24 first, 34 second
    assert found.ties == ((0, 1), (1, 2))
    assert found.better == ((0, 2), (3, 0), (1, 3), (3, 2))


def test_ranks_scores_and_pairs_give_the_same_comparison():
    base = {"prompt": "Why?", "responses": ["a", "b", "c"]}
    pairs = [[0, 1, 2], [0, 2, 0], [1, 2, 1]]
    found = [
        one(base | more, "comparisons")
        for more in ({"rank": [2, 1, 2]}, {"scores": [1, 2, 1]}, {"pairs": pairs})
    ]
    for record in found:
        assert set(record.better) == {(1, 0), (1, 2)}
        assert record.ties == ((0, 2),)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"rank": None}, "null rank"),
        ({"rank": [0, None]}, "null rank"),
        ({"scores": [None, 1]}, "null score"),
        ({"rank": [0]}, "a label that cannot be read"),
        ({"rank": ["best", "worst"]}, "a label that cannot be read"),
        ({"pairs": [[0, 2, 1]]}, "a label that cannot be read"),
        ({"pairs": [[0, 0, 1]]}, "a label that cannot be read"),
        ({"pairs": [[0, 1, 3]]}, "a label that cannot be read"),
        ({"pairs": [[0, 1]]}, "a label that cannot be read"),
        ({"pairs": [[0, 1, 1], [1, 0, 1]]}, "a pair labelled twice"),
        ({"responses": ["a"], "rank": [0]}, "fewer than two responses"),
        ({"responses": ["a", None], "rank": [0, 1]}, "not a string"),
    ],
)
def test_unusable_labels_are_refused_with_the_reason(more, reason):
    row = {"prompt": "Why?", "responses": ["a", "b"], **more}
    assert refused(row, "comparisons").reason == reason


@pytest.mark.parametrize("labels", [None, 2, "A"])
def test_a_choice_that_is_neither_0_nor_1_is_refused(labels):
    row = {"history": "Why?", "human_ref_A": "a", "human_ref_B": "b", "labels": labels}
    assert refused(row, "comparisons").reason == "a label that cannot be read"


def test_equal_scores_of_webgpt_are_a_tie():
    row = dict(PAIRS["webgpt"], score_0=0.0, score_1=0.0)
    found = one(row, "comparisons")
    assert found.better == ()
    assert found.ties == ((0, 1),)


def test_summaries_are_compared_with_their_post_as_the_prompt():
    row = {
        "info": {"post": "Long story.", "title": "A title", "subreddit": "tifu"},
        "summaries": [{"text": "Bad."}, {"text": "Good."}],
        "choice": 1,
    }
    found = one(row, "comparisons")
    assert found.prompt[0].content == (
        "Subreddit: r/tifu\n\nTitle: A title\n\nPost: Long story.\n\nTL;DR:"
    )
    assert found.better == ((1, 0),)


def reply(text, rank, *replies):
    return {"role": "assistant", "text": text, "rank": rank, "replies": list(replies)}


def test_every_set_of_siblings_of_a_tree_gives_a_comparison():
    follow_up = {
        "role": "prompter",
        "text": "More?",
        "replies": [reply("c", 1), reply("d", 0), reply("e", None)],
    }
    tree = {
        "role": "prompter",
        "text": "Why?",
        "replies": [
            reply("a", 0, follow_up),
            reply("b", 1),
            {**reply("gone", 2), "deleted": True},
        ],
    }
    found, fields = convert(
        {"message_tree_id": "x", "prompt": tree}, ORIGIN, Source(path="a.jsonl"), "comparisons"
    )
    assert [r.responses for r in found] == [("a", "b"), ("c", "d")]
    assert [m.content for m in found[1].prompt] == ["Why?", "a", "More?"]
    assert found[1].better == ((1, 0),)
    assert fields.notes == ["a reply without a rank, left out"]


def test_siblings_without_ranks_are_bad_and_the_remaining_tree_is_kept():
    follow_up = {"role": "prompter", "text": "More?", "replies": [reply("c", 0), reply("d", 1)]}
    tree = {
        "role": "prompter",
        "text": "Why?",
        "replies": [reply("a", None, follow_up), reply("b", None)],
    }
    found = records({"message_tree_id": "x", "prompt": tree}, "comparisons")
    assert [type(r) for r in found] == [BadRow, type(found[1])]
    assert found[0].reason == "null rank"
    assert found[1].responses == ("c", "d")


def test_raw_text_keeps_every_space():
    (found,) = records({"text": "  Once\n"}, "pretraining")
    assert found.messages == (Message("text", "  Once\n"),)


@pytest.mark.parametrize(
    ("row", "role", "reason"),
    [
        ({"prompt": "Why?", "response": 7}, "demonstrations", "not a string"),
        ({"prompt": None, "response": "a"}, "demonstrations", "not a string"),
        ({"prompt": " ", "response": "a"}, "demonstrations", "empty prompt"),
        ({"text": 3}, "pretraining", "not a string"),
        ({"messages": "hello"}, "demonstrations", "not a list of messages"),
        ({"messages": []}, "demonstrations", "no messages"),
        ({"messages": [{"content": "Why?"}]}, "demonstrations", "a message without role"),
        ({"messages": [7]}, "demonstrations", "not a message"),
        ({"messages": [message("narrator", "x")]}, "demonstrations", "unknown role"),
        ({"messages": [message("user", {"a": 1})]}, "demonstrations", "not a string"),
        (
            {"messages": [message("user", [{"type": "image", "url": "x"}])]},
            "demonstrations",
            "a part that is not text",
        ),
        ({"chosen": HH + "a", "rejected": None}, "comparisons", "not a string"),
        ({"chosen": "a", "rejected": "b"}, "comparisons", "no prompt"),
        (
            {"chosen": "\n\nHuman: Why?", "rejected": "\n\nHuman: Why?"},
            "comparisons",
            "no assistant turn at the end",
        ),
        ({"info": "x", "summaries": [], "choice": 0}, "comparisons", "not an object"),
        ({"prompt": "Why?", "responses": "[1, 2]", "rank": [0, 1]}, "comparisons", "not a list"),
        ({"prompt": "Why?", "answers": ["a", "b"]}, "comparisons", "not an object"),
        ({"instruction": "Why?", "completions": []}, "comparisons", "an empty list"),
        ({"instruction": "Why?", "instances": []}, "demonstrations", "an empty list"),
        ({"instruction": "Why?", "instances": ["a"]}, "demonstrations", "not an object"),
        ({"instruction": "Why?", "instances": 7}, "prompts", "not a list"),
        ({"instruction": "Why?", "input": 0, "output": "a"}, "demonstrations", "not a string"),
        ({"turns": "Why?"}, "prompts", "no turns"),
        ({"turns": []}, "prompts", "no turns"),
        ({"turns": 7}, "prompts", "no turns"),
    ],
)
def test_invalid_rows_are_refused_with_the_reason(row, role, reason):
    error = refused(row, role)
    assert error.reason == reason
    assert "Error" not in error.detail


def test_empty_lists_and_nan_are_named_in_the_error():
    assert refused({"messages": []}, "demonstrations").detail == "messages is empty"
    assert refused({"turns": []}, "prompts").detail == "turns is empty"
    detail = refused({"prompt": "a", "response": float("nan")}, "demonstrations").detail
    assert detail == "response is NaN"


def test_a_prompt_column_that_the_conversation_contradicts_is_noted():
    def notes(prompt):
        row = {"prompt": prompt, "chosen": HH + "Because.", "rejected": HH + "Dunno."}
        found, fields = convert(row, ORIGIN, Source(path="a.jsonl"), "comparisons")
        assert found[0].prompt[-1] == QUESTION
        return fields.notes

    assert (
        notes("Why?") == notes([{"role": "system", "content": "x"}, message("user", "Why?")]) == []
    )
    assert notes("Who?") == [
        "a prompt column that differs from the conversation in chosen, not used"
    ]


def test_a_row_nested_too_deeply_is_a_bad_row():
    node = {"role": "assistant", "text": "a"}
    for _ in range(3000):
        node = {"role": "prompter", "text": "a", "replies": [node]}
    error = refused({"message_tree_id": "x", "prompt": node}, "comparisons")
    assert error.reason == "nested too deeply"


def test_columns_rename_nested_fields_and_override_other_names():
    row = {"q": {"text": "Why?"}, "best": "Because.", "messages": [], "answer": "no"}
    found = one(row, "demonstrations", columns={"prompt": "q.text", "response": "best"})
    assert found.messages == (QUESTION, ANSWER)


def test_columns_may_put_a_context_before_and_an_input_after_the_prompt():
    row = {"question": "Why?", "passage": "Facts.", "more": "Now.", "answer": "Because."}
    columns = {"prompt": "question", "context": "passage", "input": "more"}
    found = one(row, "demonstrations", columns=columns)
    assert found.messages[0].content == "Facts.\n\nWhy?\n\nNow."


def test_a_context_without_a_mapping_is_not_read():
    row = {"prompt": "Why?", "context": "Facts.", "response": "Because."}
    found, fields = convert(row, ORIGIN, Source(path="a.jsonl"), "demonstrations")
    assert found[0].messages == (QUESTION, ANSWER)
    assert [key for key in fields if key not in fields.read] == ["context"]


def test_numbered_columns_select_fields_of_a_table_without_a_header():
    row = {"0": "Why?", "1": "Because.", "2": "x"}
    assert one(row, "demonstrations", columns={"prompt": "0", "response": "1"}).messages == (
        QUESTION,
        ANSWER,
    )


def test_a_missing_column_is_refused_with_the_found_ones_and_the_remedy():
    error = refused({"frage": "Why?", "antwort": "Because."}, "demonstrations")
    assert error.reason == "missing column"
    assert error.detail == (
        "found frage, antwort, no form of demonstrations; name yours, as columns: "
        "{prompt: .., response: ..}"
    )
    error = refused({"frage": "Why?"}, "demonstrations", columns={"prompt": "question"})
    assert error.reason == "missing column"
    assert "'question'" in error.detail
    assert "frage" in error.detail


def test_a_named_format_is_used_alone():
    both = DEMONSTRATIONS["messages"] | {"prompt": "Who?", "response": "Me."}
    found = one(both, "demonstrations", format="prompt_response")
    assert found.messages[-1].content == "Me."
    assert one(PAIRS["transcripts"], "comparisons", format="hh").better == ((0, 1),)
    error = refused({"prompt": "Why?"}, "comparisons", format="kwise")
    assert "format kwise needs responses, rank|pairs|scores; found prompt" in error.detail


def test_an_unknown_or_unsuitable_format_is_refused_before_reading():
    with pytest.raises(
        DataError, match=r"format=alpacca of source a is unknown; did you mean alpaca\?"
    ):
        check_format(Source(path="a", format="alpacca"), "demonstrations")
    with pytest.raises(DataError, match="format=text of source a holds no comparisons"):
        check_format(Source(path="a", format="text"), "comparisons")
    with pytest.raises(DataError, match=r"unknown; the formats: auto, oasst, .*, kto,"):
        check_format(Source(path="a", format="zzz"), "comparisons")
    assert all(name == name.strip() for name in format_names())


leaf = st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text("ab\n<>", max_size=9)
names = st.sampled_from(["role", "from", "content", "value", "text", "replies", "rank", "post"])
anything = st.recursive(
    leaf | st.just(HH + "a") | st.sampled_from(["user", "assistant", "prompter"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_any_row_gives_valid_records_or_a_reason(data):
    form = data.draw(st.sampled_from(FORMS))
    keys = [data.draw(st.sampled_from(group)) for group in form.keys]
    row = {key: data.draw(anything) for key in [*keys, data.draw(names)]}
    for role in PARSER:
        try:
            found = records(row, role)
        except RowError as error:
            assert error.reason
            continue
        for record in paired(found):
            if isinstance(record, BadRow):
                continue
            try:
                validate(record, ties=Ties.soft)
            except RowError:
                continue
            list(notes_on(record))
