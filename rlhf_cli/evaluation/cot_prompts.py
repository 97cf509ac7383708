"""Chain-of-thought prompts that a benchmark brings: exemplars in a text file, as BIG-Bench-Hard has them.

a warning that is not part of the prompt
-----
What the task is.

Q: the question
A: Let's think step by step.
the chain of thought. So the answer is 5.
"""

import re
from dataclasses import replace
from pathlib import Path

from rlhf_cli.config.errors import UserError
from rlhf_cli.data.records import Origin
from rlhf_cli.data.tasks.render import STEP_BY_STEP
from rlhf_cli.data.tasks.task import TaskExample

BELOW = re.compile(r"\A.*?^-{3,}\s*$", re.DOTALL | re.MULTILINE)
BEFORE = re.compile(r"\n\s*\n(?=Q:)")  # what is between two exemplars


def in_its_form(one: TaskExample) -> TaskExample:
    """Return an example that asks for a chain of thought as the exemplars of such a file do."""
    return replace(one, input=_asked(one.input), chain=True)


def exemplars_of(path: Path, task: str) -> list[TaskExample]:
    """Return the exemplars of a file in their order, the first with what stands before it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cot_prompt of task {task}: {path} cannot be read: {error}") from error
    blocks = BEFORE.split(BELOW.sub("", text).strip())
    before = "" if blocks[0].startswith("Q:") else f"{blocks.pop(0)}\n\n"
    found = [_exemplar(path, task, number, block) for number, block in enumerate(blocks, start=1)]
    if not found:
        raise UserError(f"cot_prompt of task {task}: {path} holds no exemplar, Q: and A: in lines")
    return [replace(found[0], input=before + found[0].input), *found[1:]]


def _exemplar(path: Path, task: str, number: int, block: str) -> TaskExample:
    question, found, answer = block.partition("\nA:")
    if not found:
        raise UserError(f"cot_prompt of task {task}: exemplar {number} of {path} has no line A:")
    chain = answer.strip().removeprefix(STEP_BY_STEP).strip()
    return TaskExample(
        task=task,
        template="cot_prompt",
        input=_asked(question.removeprefix("Q:").strip()),
        target=chain,
        options=(),
        answer="",
        rationale=chain,
        origin=Origin(str(path), number),
        chain=True,
    )


def _asked(question: str) -> str:
    return f"Q: {question}\nA: {STEP_BY_STEP}"
