"""Tables answered in two or three steps, with the rationale that states them."""

from dataclasses import replace
from random import Random

from rlhf_cli.tiny_world import vocabulary as words
from rlhf_cli.tiny_world.knowledge import FACT_STATEMENTS
from rlhf_cli.tiny_world.knowledge_tables import attribute
from rlhf_cli.tiny_world.rows import Row, choices, yes_no

BEGINNINGS = (3, 9)  # what the person has at first
CHANGE = (1, 6)
NAMING = ("sound", "home", "Zibi word")  # no two animals have the same
ASKED = ("sound", "colour", "home", "food", "Zibi word")
SHARED = ("colour", "food")  # some animals have the same


def step_sums(rng: Random) -> Row:
    """A person has some fruits, and gets or loses some, two or three times."""
    person, fruits = rng.choice((*words.MEN, *words.WOMEN)), rng.choice(words.COUNTED)
    word = "he" if person in words.MEN else "she"
    number = rng.randint(*BEGINNINGS)
    story, steps = [f"The {person} has {number} {fruits}"], []
    for _ in range(rng.choice((2, 3))):
        change = rng.randint(*CHANGE)
        plus = change >= number or rng.random() < 0.5
        after = number + change if plus else number - change
        story.append(
            f"{word.capitalize()} {rng.choice(words.GAINS if plus else words.LOSSES)} {change}"
        )
        steps.append(f"{number} {'plus' if plus else 'minus'} {change} is {after}.")
        number = after
    return Row(
        columns={"story": ". ".join(story) + ".", "person": person, "fruits": fruits},
        answer=str(number),
        options=(),
        rationale=" ".join(steps),
    )


def _fact(animal: str, kind: str) -> str:
    if kind == "Zibi word":
        return f"In Zibi, {animal} is {words.TOY_NOUNS[animal]}."
    return FACT_STATEMENTS[kind].format(animal, attribute(animal, kind))


def _value(animal: str, kind: str) -> str:
    return words.TOY_NOUNS[animal] if kind == "Zibi word" else attribute(animal, kind)


def _kinds(animal: str, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Return the kinds that this animal has: not every one has a Zibi word."""
    return tuple(kind for kind in kinds if kind != "Zibi word" or animal in words.TOY_NOUNS)


def step_facts(rng: Random) -> Row:
    """Two steps: an animal is named by one of its attributes, and another one is asked for."""
    animal = rng.choice(tuple(words.ANIMALS))
    given = rng.choice(_kinds(animal, NAMING))
    kind = rng.choice([k for k in _kinds(animal, ASKED) if k != given])
    pool = tuple(_value(a, kind) for a in words.ANIMALS if kind in _kinds(a, ASKED))
    answer = _value(animal, kind)
    return Row(
        columns={"given": given, "value": _value(animal, given), "kind": kind},
        answer=answer,
        options=choices(answer, pool, rng),
        rationale=f"{_fact(animal, given)} {_fact(animal, kind)}",
    )


def step_same(rng: Random) -> Row:
    """Three steps: whether an animal, named by an attribute, shares another one with a second animal."""
    animal, kind = rng.choice(tuple(words.ANIMALS)), rng.choice(SHARED)
    given = rng.choice(_kinds(animal, NAMING))
    right, value = rng.random() < 0.5, _value(animal, kind)
    others = [a for a in words.ANIMALS if a != animal]
    pool = [a for a in others if (_value(a, kind) == value) == right] or others
    other = rng.choice(pool)
    steps = (_fact(animal, given), _fact(animal, kind), _fact(other, kind))
    columns = {"given": given, "value": _value(animal, given), "kind": kind, "other": other}
    row = yes_no(columns, right=_value(other, kind) == value)
    return replace(row, rationale=" ".join(steps))


TABLES = (
    ("reasoning", "step_sums", step_sums, ("{story} How many {fruits} has the {person}?",)),
    (
        "reasoning",
        "step_facts",
        step_facts,
        (
            "The {given} of an animal is {value}. What is the {kind}?",
            "An animal with the {given} {value} has which {kind}?",
        ),
    ),
    (
        "reasoning",
        "step_same",
        step_same,
        ("The {given} of an animal is {value}. Has it the {kind} of the {other}?",),
    ),
)
