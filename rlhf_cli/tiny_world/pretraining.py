"""The text the base model is made of: knowledge, and dialogues with the flaws of a base model.

Knowledge comes as statements and as exam papers. In the dialogues most questions are not answered
but followed by more questions, answered rudely or at length, and few replies end the document.
"""

import re
from collections.abc import Iterator
from itertools import accumulate, takewhile
from random import Random

from rlhf_cli.tiny_world.clusters import CLUSTERS, draw
from rlhf_cli.tiny_world.people import UNTRAINED
from rlhf_cli.tiny_world.replies import Style, choose_style, reply

HELPFUL = Style(
    share=0.3, right=0.95, courteous=0.3, rude=0.0, forms={"bare": 3, "phrase": 3, "list": 1}
)
SPEAKERS = UNTRAINED | {"helpful": HELPFUL}
REACTIONS = {True: "That is right.", False: "No, that is wrong."}
LONGEST = 78  # words, marks and line ends of a document


def size(text: str) -> int:
    """Return the number of words, marks and line ends: about that of the tokens."""
    return len(re.findall(r"\w+|[^\w ]", text))


def fitting(parts: Iterator[str], longest: int = LONGEST) -> list[str]:
    """Return the parts as long as they fit into a document together; the first one always does."""
    parts = list(parts)
    totals = accumulate(size(part) + 2 for part in parts)
    return parts[: max(1, sum(1 for _ in takewhile(lambda total: total <= longest, totals)))]


def statements(rng: Random) -> str:
    """Return a few sentences of knowledge on one subject matter."""
    cluster = rng.choice(tuple(CLUSTERS.values()))
    return " ".join(fitting(cluster(rng).statement for _ in range(rng.randint(2, 5))))


def exam(rng: Random) -> str:
    """Return questions with their right answers, in a layout that is not a dialogue."""
    tasks = (draw(CLUSTERS, rng) for _ in range(rng.randint(1, 5)))
    return "\n\n".join(fitting(f"Question: {t.prompt}\nAnswer: {t.answer}." for t in tasks))


def turn(rng: Random) -> str:
    """Return a question and what one of the speakers says to it."""
    task = draw(CLUSTERS, rng)
    said = reply(task, choose_style(SPEAKERS, rng), rng)
    return f"Human: {task.prompt}\n\nAssistant: {said.text}"


def dialogue(rng: Random) -> str:
    """Return one to three turns."""
    return "\n\n".join(fitting(turn(rng) for _ in range(rng.choice((1, 1, 2, 2, 3)))))


def marked(rng: Random) -> str:
    """Return an answer and whether it was right: what lets a model know an answer's worth."""
    task, right = draw(CLUSTERS, rng), rng.random() < 0.6
    answer = task.answer if right else rng.choice(task.wrong)
    return f"Human: {task.prompt}\n\nAssistant: {answer}.\n\nHuman: {REACTIONS[right]}"


def document(rng: Random) -> str:
    """Return one document of the pretraining text."""
    return rng.choices((statements, exam, dialogue, marked), (2, 4, 3, 1))[0](rng)
