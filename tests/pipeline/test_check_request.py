"""The role of a file by its columns."""

import pytest

from rlhf_cli.data.records import DataError
from rlhf_cli.pipeline.check_request import role_of

PROMPT_MESSAGES = [{"role": "user", "content": "q"}]
DIALOGUE = [*PROMPT_MESSAGES, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("name", "row", "role", "expected_reason"),
    [
        ("a.jsonl", {"prompt": "q", "response": "a"}, "demonstrations", "columns prompt, response"),
        ("a.jsonl", {"prompt": "q", "chosen": "a", "rejected": "b"}, "comparisons", "form pair"),
        (
            "a.jsonl",
            {"prompt": "q", "responses": ["a", "b"], "rank": [0, 1]},
            "comparisons",
            "kwise",
        ),
        ("a.jsonl", {"prompt": "q"}, "prompts", "columns prompt"),
        ("a.jsonl", {"messages": DIALOGUE}, "demonstrations", "columns messages"),
        ("a.jsonl", {"messages": PROMPT_MESSAGES}, "prompts", "columns messages"),
        ("a.jsonl", {"turns": ["q"]}, "prompts", "form turns"),
        ("a.jsonl", {"prompt": "q", "chosen": "", "rejected": ""}, "comparisons", "form pair"),
        ("a.json", {"question": "q", "answer": "a"}, "demonstrations", "columns question, answer"),
    ],
)
def test_the_role_follows_from_the_columns(write, name, row, role, expected_reason):
    found, reason = role_of(str(write(name, [row] * 5)))
    assert found == role
    assert expected_reason in reason


def test_a_text_file_holds_demonstrations(write):
    assert role_of(str(write("a.txt", "one\ntwo\n")))[0] == "demonstrations"


def test_the_role_of_most_rows_decides(write):
    rows = [{"prompt": "q"}, *[{"prompt": "q", "response": "a"}] * 9]
    assert role_of(str(write("a.jsonl", rows)))[0] == "demonstrations"
    rows = "not json\n" + '{"prompt": "q", "chosen": "a", "rejected": "b"}\n' * 3
    assert role_of(str(write("b.jsonl", rows)))[0] == "comparisons"


def test_unknown_columns_unreadable_rows_and_missing_files_are_refused(write):
    with pytest.raises(DataError, match=r"fit no role \(found frage, antwort\); name role and col"):
        role_of(str(write("a.jsonl", [{"frage": "q", "antwort": "a"}])))
    with pytest.raises(DataError, match="no row could be read"):
        role_of(str(write("b.jsonl", "not json\n")))
    with pytest.raises(DataError, match="does not exist"):
        role_of("no/such/file.jsonl")
