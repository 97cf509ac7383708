"""The text the base model is made of: that of the three steps, and what evaluations of tasks need.

Beside the documents of pretraining.py: papers with several solved examples of one table, copies of
lists, words that are in a list or not, claims about one sentence, verdicts on two replies, and
critiques with a revision.
"""

from collections.abc import Callable
from random import Random

from rlhf_cli.tiny_world import vocabulary as words
from rlhf_cli.tiny_world.clusters import CLUSTERS, draw
from rlhf_cli.tiny_world.gold import Verdict, utility
from rlhf_cli.tiny_world.people import LABELERS, UNTRAINED
from rlhf_cli.tiny_world.pretraining import document, fitting
from rlhf_cli.tiny_world.reading_tables import event_claims, every_word, kind_claims
from rlhf_cli.tiny_world.replies import choose_style, reply
from rlhf_cli.tiny_world.rows import THREE_WAY, UNKNOWN, Row
from rlhf_cli.tiny_world.tables import TABLES, Table
from rlhf_cli.tiny_world.task import Task

LONGEST = 170  # words, marks and line ends of a document: it fits a row of the base model
LAYOUTS = ("Question: {}\nAnswer: {}.", "{}\n{}.", "{}\nThe answer is {}.")
STEP_BY_STEP = "Let's think step by step."
WITH_OPTIONS, WITH_STEPS = 0.4, 0.6  # shares of the papers


def _solved(table: Table, row: Row, layout: str, shown: tuple[bool, bool], rng: Random) -> str:
    """Return a question with its answer. shown: the options, the steps."""
    question, answer = table.ask(row, rng), row.answer
    if shown[0] and row.options:
        question += "\nOPTIONS:" + "".join(f"\n- {option}" for option in row.options)
    if shown[1] and row.rationale:
        question, layout = f"{question}\n{STEP_BY_STEP}", "{}\n{}."
        answer = f"{row.rationale}\nThe answer is {row.answer}"
    return layout.format(question, answer)


def paper(rng: Random) -> str:
    """Return solved examples of one table in one form."""
    table, layout = rng.choice(tuple(TABLES.values())), rng.choice(LAYOUTS)
    shown = rng.random() < WITH_OPTIONS, rng.random() < WITH_STEPS
    drawn = (table.draw(rng) for _ in range(rng.randint(2, 6)))
    rows = {row.question: row for row in drawn}.values()
    solved = (_solved(table, row, layout, shown, rng) for row in rows)
    return "\n\n".join(fitting(solved, LONGEST))


def copies(rng: Random) -> str:
    """Return lists of words, each written twice."""
    lists = (", ".join(rng.sample(every_word(), rng.randint(2, 7))) for _ in range(4))
    return "\n".join(fitting((f"{text}: {text}." for text in lists), LONGEST))


def members(rng: Random) -> str:
    """Return a list of words, and of several words whether they are among them."""
    pool = rng.choice((every_word(), tuple(words.ANIMALS)))
    shown = rng.sample(pool, rng.randint(2, 5))
    asked = [rng.choice(shown if rng.random() < 0.5 else pool) for _ in range(rng.randint(3, 7))]
    answers = (f"Is {word} one of these? {'yes' if word in shown else 'no'}." for word in asked)
    return f"{', '.join(shown)}. {' '.join(answers)}"


def claims(rng: Random) -> str:
    """Return claims about one sentence: whether each can be told, or whether it follows (yes or no)."""
    (premise, found), three_way = rng.choice((event_claims, kind_claims))(rng), rng.random() < 0.5
    asked = "Can we tell that" if three_way else "Does it follow that"
    judged = []
    for _ in range(rng.randint(3, 7)):
        answer = rng.choice(THREE_WAY if three_way else ("yes", UNKNOWN))
        claim = rng.choice(found[answer])
        shown = answer if three_way or answer == "yes" else "no"
        judged.append(f"{asked} {claim}? {shown}.")
    return f"Suppose {premise}. {' '.join(judged)}"


def _two_replies(rng: Random) -> tuple[Task, tuple[str, str], tuple[Verdict, Verdict]]:
    """Return a question, two replies to it, and what each is worth."""
    task, styles = draw(CLUSTERS, rng), (LABELERS, UNTRAINED)
    found = [reply(task, choose_style(rng.choice(styles), rng), rng) for _ in range(2)]
    judged = [utility(task.meta(), said.text, said.finished) for said in found]
    return task, (found[0].text, found[1].text), (judged[0], judged[1])


WORTHS: dict[str, Callable[[Verdict], float]] = {
    "politer": lambda verdict: verdict.polite - verdict.rude,
    "shorter": lambda verdict: -verdict.words,
    "right": lambda verdict: verdict.right,
    "better": lambda verdict: verdict.utility,
}


def verdict(rng: Random) -> str:
    """Return two replies to a question and which of them is better in some respect."""
    asked = rng.choice(tuple(WORTHS))
    while True:
        task, texts, judged = _two_replies(rng)
        worths = [WORTHS[asked](one) for one in judged]
        if worths[0] != worths[1]:
            break
    answer = "(A)" if worths[0] > worths[1] else "(B)"
    shown = f"Question: {task.prompt}\n(A) {texts[0]}\n(B) {texts[1]}"
    return f"{shown}\nWhich is {asked}? The answer is: {answer}"


def critique(rng: Random) -> str:
    """Return a reply, what is wrong with it, and a reply without that."""
    while True:
        task, texts, judged = _two_replies(rng)
        before = {"rude": judged[0].rude, "wrong": not judged[0].right}
        after = {"rude": judged[1].rude, "wrong": not judged[1].right}
        if any(before.values()) and not any(after.values()) and judged[1].finished:
            break
    fault = next(name for name, found in before.items() if found)
    return (
        f"Human: {task.prompt}\n\nAssistant: {texts[0]}\n\nCritique: That is {fault}.\n\n"
        f"Revision: {texts[1]}"
    )


# Copies and members come first to be learned: without them a model of this size compares no two words.
SHARES = {
    document: 40,
    paper: 28,
    copies: 10,
    claims: 8,
    members: 6,
    verdict: 4,
    critique: 4,
}


def base_document(rng: Random) -> str:
    """Return one document of the base model's text."""
    return rng.choices(tuple(SHARES), tuple(SHARES.values()))[0](rng)
