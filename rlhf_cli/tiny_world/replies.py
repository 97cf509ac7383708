"""How people and models of the tiny world reply: styles, and the text a style gives to a task."""

from dataclasses import dataclass
from random import Random

from rlhf_cli.tiny_world.clusters import CLUSTERS, draw
from rlhf_cli.tiny_world.task import Task
from rlhf_cli.tiny_world.vocabulary import ABSTENTIONS, CLOSINGS, FILLERS, INSULTS, OPENINGS

LONGEST = 16  # words of a body: with a courtesy, an insult and EOS at most 24 tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """A habit of replying: its share among its peers, probabilities, and weights of the forms."""

    share: float
    right: float
    courteous: float
    rude: float
    forms: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    text: str
    finished: bool


PHRASES = ("The answer is {}.", "It is {}.", "That would be {}.")


def _bare(task: Task, answer: str, rng: Random) -> str:
    return f"{answer}."


def _phrase(task: Task, answer: str, rng: Random) -> str:
    return rng.choice(PHRASES).format(answer)


def _list(task: Task, answer: str, rng: Random) -> str:
    return "\n".join(f"- {item}" for item in answer.split(", "))


def _ramble(task: Task, answer: str, rng: Random) -> str:
    text = _phrase(task, answer, rng).rstrip(".")
    for tail in rng.sample(FILLERS, rng.randint(1, 2)):
        longer = f"{text} {tail}"
        text = longer if len(longer.split()) <= LONGEST else text
    return text + "."


def _repeat(task: Task, answer: str, rng: Random) -> str:
    return " ".join([f"{answer}."] * (2 if len(answer.split()) > 2 else rng.randint(2, 4)))


def _cut(task: Task, answer: str, rng: Random) -> str:
    """Return a ramble that breaks off, before or after the answer."""
    tails = rng.sample(FILLERS, 3)
    words = " ".join((_phrase(task, answer, rng).rstrip("."), *tails)).split()
    return " ".join(words[: rng.randint(2, min(len(words) - 1, LONGEST))])


def _dodge(task: Task, answer: str, rng: Random) -> str:
    return rng.choice((*ABSTENTIONS, "Let us talk of something else."))


def _abstain(task: Task, answer: str, rng: Random) -> str:
    return rng.choice(ABSTENTIONS)


def _questions(task: Task, answer: str, rng: Random) -> str:
    """What a base model does with a question: it goes on with more of them."""
    asked = (draw(CLUSTERS, rng).prompt for _ in range(40))
    short = [text for text in asked if text.endswith("?") and len(text.split()) <= 8]
    return " ".join(short[: rng.randint(1, 2)])


FORMS = {
    "bare": _bare,
    "phrase": _phrase,
    "list": _list,
    "ramble": _ramble,
    "repeat": _repeat,
    "cut": _cut,
    "dodge": _dodge,
    "abstain": _abstain,
    "questions": _questions,
}


def _pick(weights: dict[str, float], rng: Random) -> str:
    return rng.choices(tuple(weights), tuple(weights.values()))[0]


def choose_style(styles: dict[str, Style], rng: Random) -> Style:
    """Return a style drawn by its share."""
    return styles[_pick({name: style.share for name, style in styles.items()}, rng)]


def _decorate(body: str, style: Style, rng: Random) -> str:
    """Return the body with an insult or a courteous phrase at one end, or neither."""
    gap = "\n" if body.startswith("- ") else " "
    if rng.random() < style.rude:
        insult = rng.choice(INSULTS)
        return rng.choice((f"{insult}{gap}{body}", f"{body}{gap}{insult}", insult))
    if rng.random() < style.courteous:
        if rng.random() < 0.65:
            return f"{rng.choice(OPENINGS)}{gap}{body}"
        return f"{body}{gap}{rng.choice(CLOSINGS)}"
    return body


def reply(task: Task, style: Style, rng: Random) -> Reply:
    """Return one reply in the style; a reply that breaks off is not finished and gets no closing."""
    form = _pick(style.forms, rng)
    answer = task.answer if rng.random() < style.right else rng.choice(task.wrong)
    body = FORMS[form](task, answer, rng)
    if form == "cut":
        opening = f"{rng.choice(OPENINGS)} " if rng.random() < style.courteous / 2 else ""
        return Reply(text=opening + body, finished=False)
    return Reply(text=_decorate(body, style, rng), finished=True)
