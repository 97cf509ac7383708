"""Exemplars from the prompt file of a benchmark."""

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.evaluation.task_questions import exemplars_of

FILE = """NOT FOR TRAINING. canary
-----
Count objects.

Q: I have a plum and two figs. How many fruits?
A: Let's think step by step.
- plum (1)
- figs (2)

1 + 2 = 3. So the answer is 3.

Q: I have a flute. How many fruits?
A: Let's think step by step.
None. So the answer is 0.
"""


def test_exemplars_are_questions_with_their_chains(tmp_path):
    path = tmp_path / "count.txt"
    path.write_text(FILE)
    first, second = exemplars_of(path, "count")
    first_input = "Q: I have a plum and two figs. How many fruits?\nA: Let's think step by step."
    assert first.input == f"Count objects.\n\n{first_input}"
    assert first.target == "- plum (1)\n- figs (2)\n\n1 + 2 = 3. So the answer is 3."
    assert second.input == "Q: I have a flute. How many fruits?\nA: Let's think step by step."
    assert second.target == "None. So the answer is 0."
    joined = "\n\n".join(f"{one.input}\n{one.target}" for one in (first, second))
    assert joined == FILE.split("-----\n")[1].strip()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just a text", r"cot_prompt of task count: .*count\.txt holds no exemplar"),
        ("Q: one\n\nQ: two\nA: 2", r"exemplar 1 of .*count\.txt has no line A:"),
        (None, r"cot_prompt of task count: .* cannot be read"),
    ],
)
def test_a_file_without_exemplars_is_refused(tmp_path, text, message):
    path = tmp_path / "count.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        exemplars_of(path, "count")
