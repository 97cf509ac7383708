"""Tables answered from memory: facts, opposites, arithmetic, translation, towns."""

from functools import cache
from random import Random

from rlhf_cli.tiny_world import vocabulary as words
from rlhf_cli.tiny_world.knowledge import FACT_STATEMENTS, translated
from rlhf_cli.tiny_world.rows import Row, choices, yes_no

PLACES = ("capital", "river")


def attribute(animal: str, kind: str) -> str:
    return words.ANIMALS[animal][words.ATTRIBUTES.index(kind)]


def attributes(kind: str) -> tuple[str, ...]:
    return tuple(attribute(animal, kind) for animal in words.ANIMALS)


def animal_facts(rng: Random) -> Row:
    animal, kind = rng.choice(tuple(words.ANIMALS)), rng.choice(words.ATTRIBUTES)
    answer = attribute(animal, kind)
    columns = {"animal": animal, "kind": kind}
    return Row(columns=columns, answer=answer, options=choices(answer, attributes(kind), rng))


def fact_check(rng: Random) -> Row:
    animal, kind = rng.choice(tuple(words.ANIMALS)), rng.choice(words.ATTRIBUTES)
    answer, right = attribute(animal, kind), rng.random() < 0.5
    claim = answer if right else rng.choice([w for w in attributes(kind) if w != answer])
    return yes_no({"claim": FACT_STATEMENTS[kind].format(animal, claim)}, right=right)


def _opposite(word: str) -> str:
    return {a: b for pair in words.OPPOSITES for a, b in (pair, pair[::-1])}[word]


def _words_with_opposites() -> tuple[str, ...]:
    return tuple(word for pair in words.OPPOSITES for word in pair)


def opposite(rng: Random) -> Row:
    word = rng.choice(_words_with_opposites())
    answer = _opposite(word)
    others = tuple(w for w in _words_with_opposites() if w != word)
    return Row(columns={"word": word}, answer=answer, options=choices(answer, others, rng))


def opposite_check(rng: Random) -> Row:
    word, right = rng.choice(_words_with_opposites()), rng.random() < 0.5
    answer = _opposite(word)
    others = [w for w in _words_with_opposites() if w not in (word, answer)]
    return yes_no({"word": word, "other": answer if right else rng.choice(others)}, right=right)


def sums(rng: Random) -> Row:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    plus = rng.random() < 0.5
    columns = {"sum": f"{a} plus {b}" if plus else f"{a + b} minus {a}"}
    number = a + b if plus else b
    near = tuple(str(n) for n in range(max(number - 3, 1), number + 4))
    return Row(columns=columns, answer=str(number), options=choices(str(number), near, rng))


def larger(rng: Random) -> Row:
    a, b = rng.sample(range(1, 21), 2)
    columns, options = {"first": str(a), "second": str(b)}, (str(a), str(b))
    return Row(columns=columns, answer=str(max(a, b)), options=options)


@cache
def _phrases() -> tuple[tuple[str, str], ...]:
    adjectives = ("", *words.TOY_ADJECTIVES)
    return tuple(translated(noun, adj) for noun in words.TOY_NOUNS for adj in adjectives)


def to_zibi(rng: Random) -> Row:
    english, zibi = rng.choice(_phrases())
    pool = tuple(z for _, z in _phrases() if len(z.split()) == len(zibi.split()))
    return Row(columns={"english": english}, answer=zibi, options=choices(zibi, pool, rng))


def from_zibi(rng: Random) -> Row:
    english, zibi = rng.choice(_phrases())
    pool = tuple(e for e, _ in _phrases() if len(e.split()) == len(english.split()))
    return Row(columns={"zibi": zibi}, answer=english, options=choices(english, pool, rng))


def town_facts(rng: Random) -> Row:
    country, kind = rng.choice(tuple(words.TOWNS)), rng.choice(PLACES)
    pool = tuple(pair[PLACES.index(kind)] for pair in words.TOWNS.values())
    answer = words.TOWNS[country][PLACES.index(kind)]
    columns = {"country": country, "kind": kind}
    return Row(columns=columns, answer=answer, options=choices(answer, pool, rng))


def town_check(rng: Random) -> Row:
    country, kind = rng.choice(tuple(words.TOWNS)), rng.choice(PLACES)
    answer, right = words.TOWNS[country][PLACES.index(kind)], rng.random() < 0.5
    others = [pair[PLACES.index(kind)] for pair in words.TOWNS.values()]
    name = answer if right else rng.choice([w for w in others if w != answer])
    return yes_no({"claim": f"The {kind} of {country} is {name}."}, right=right)


TABLES = (
    ("facts", "animal_facts", animal_facts, ("What is the {kind} of the {animal}?",)),
    ("facts", "fact_check", fact_check, ("{claim} Is that right?", "Right or wrong? {claim}")),
    ("opposites", "opposite", opposite, ("What is the opposite of {word}?",)),
    ("opposites", "opposite_check", opposite_check, ("Is {word} the opposite of {other}?",)),
    ("arithmetic", "sums", sums, ("How much is {sum}?",)),
    ("arithmetic", "larger", larger, ("Which is more, {first} or {second}?",)),
    ("translation", "to_zibi", to_zibi, ("What is {english} in Zibi?",)),
    ("translation", "from_zibi", from_zibi, ("What does {zibi} mean?",)),
    ("towns", "town_facts", town_facts, ("What is the {kind} of {country}?",)),
    ("towns", "town_check", town_check, ("{claim} Is that right?", "Right or wrong? {claim}")),
)
