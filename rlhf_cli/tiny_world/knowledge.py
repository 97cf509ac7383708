"""Clusters answered from memory: facts, opposites, arithmetic, translation, towns."""

from random import Random

from rlhf_cli.tiny_world import vocabulary as words
from rlhf_cli.tiny_world.task import Task, others

NUMBERS = tuple(str(n) for n in range(100))

FACT_TEMPLATES = {
    "sound": (
        "What sound does the {} make?",
        "What does the {} say?",
        "Tell me the sound of the {}.",
        "Name the sound that the {} makes.",
        "How does the {} sound?",
    ),
    "colour": (
        "What colour is the {}?",
        "Which colour does the {} have?",
        "Tell me the colour of the {}.",
        "Name the colour of the {}.",
        "What is the colour of the {}?",
    ),
    "home": (
        "Where does the {} live?",
        "Which place is home to the {}?",
        "Tell me where the {} lives.",
        "Name the home of the {}.",
        "What is the home of the {}?",
    ),
    "food": (
        "What does the {} eat?",
        "Which food does the {} like?",
        "Tell me what the {} eats.",
        "Name the food of the {}.",
        "What is the food of the {}?",
    ),
}
FACT_STATEMENTS = {
    "sound": "The {} says {}.",
    "colour": "The {} is {}.",
    "home": "The {} lives in the {}.",
    "food": "The {} eats {}.",
}


def facts(rng: Random) -> Task:
    animal, kind = rng.choice(tuple(words.ANIMALS)), rng.choice(words.ATTRIBUTES)
    column = words.ATTRIBUTES.index(kind)
    answer = words.ANIMALS[animal][column]
    pool = tuple(values[column] for values in words.ANIMALS.values())
    return Task(
        cluster="facts",
        task=f"{animal}/{kind}",
        prompt=rng.choice(FACT_TEMPLATES[kind]).format(animal),
        answer=answer,
        wrong=others(pool, answer),
        rivals=tuple(dict.fromkeys(pool)),
        statement=FACT_STATEMENTS[kind].format(animal, answer),
    )


OPPOSITE_TEMPLATES = (
    "What is the opposite of {}?",
    "Tell me the opposite of {}.",
    "Which word is the opposite of {}?",
    "Name the opposite of {}.",
    "Turn {} into its opposite.",
    "Give a word that means the opposite of {}.",
)


def opposites(rng: Random) -> Task:
    word, answer = rng.choice(words.OPPOSITES)[:: rng.choice((1, -1))]
    pool = tuple(w for pair in words.OPPOSITES for w in pair if w != word)
    return Task(
        cluster="opposites",
        task=word,
        prompt=rng.choice(OPPOSITE_TEMPLATES).format(word),
        answer=answer,
        wrong=others(pool, answer),
        rivals=pool,
        statement=f"The opposite of {word} is {answer}.",
    )


ARITHMETIC_TEMPLATES = (
    "What is {}?",
    "How much is {}?",
    "Compute {}.",
    "Tell me what {} makes.",
    "Solve {}.",
    "What do you get from {}?",
)


def arithmetic(rng: Random) -> Task:
    """a plus b, or (a + b) minus a; the answer is never one of the two numbers asked about."""
    a, b = rng.randint(1, 7), rng.randint(1, 7)
    plus = a == b or rng.random() < 0.5
    left, sign, right, answer = (a, "plus", b, a + b) if plus else (a + b, "minus", a, b)
    asked, sum_ = (str(left), str(right)), f"{left} {sign} {right}"
    near = (str(n) for n in (answer - 2, answer - 1, answer + 1, answer + 2, answer + 3) if n > 0)
    return Task(
        cluster="arithmetic",
        task=sum_,
        prompt=rng.choice(ARITHMETIC_TEMPLATES).format(sum_),
        answer=str(answer),
        wrong=tuple(n for n in near if n not in asked),
        rivals=tuple(n for n in NUMBERS if n not in asked),
        statement=f"{sum_} is {answer}.",
    )


TRANSLATION_TEMPLATES = (
    "Translate to Zibi: {}",
    "What is {} in Zibi?",
    "Say {} in Zibi.",
    "How do you say {} in Zibi?",
    "Give the Zibi words for {}.",
    "Put this into Zibi: {}",
)


def translated(noun: str, adjective: str) -> tuple[str, str]:
    """English puts the adjective first, Zibi the noun."""
    if not adjective:
        return noun, words.TOY_NOUNS[noun]
    return f"{adjective} {noun}", f"{words.TOY_NOUNS[noun]} {words.TOY_ADJECTIVES[adjective]}"


def translation(rng: Random) -> Task:
    nouns, adjectives = tuple(words.TOY_NOUNS), tuple(words.TOY_ADJECTIVES)
    adjective = rng.choice(("", *adjectives, *adjectives))
    english, answer = translated(rng.choice(nouns), adjective)
    mistakes = (
        translated(noun, rng.choice(adjectives) if adjective else "")[1]
        for noun in rng.sample(nouns, 3)
    )
    return Task(
        cluster="translation",
        task=english,
        prompt=rng.choice(TRANSLATION_TEMPLATES).format(english),
        answer=answer,
        wrong=others(tuple(mistakes), answer),
        rivals=(*words.TOY_NOUNS.values(), *words.TOY_ADJECTIVES.values()),
        statement=f"In Zibi, {english} is {answer}.",
    )


TOWN_TEMPLATES = {
    "capital": (
        "What is the capital of {}?",
        "Name the capital of {}.",
        "Tell me the capital of {}.",
        "Which town is the capital of {}?",
        "What capital does {} have?",
    ),
    "river": (
        "What is the river of {}?",
        "Name the river of {}.",
        "Tell me the river of {}.",
        "Which river runs through {}?",
        "What river does {} have?",
    ),
}


def towns(rng: Random) -> Task:
    country, kind = rng.choice(tuple(words.TOWNS)), rng.choice(("capital", "river"))
    column = 0 if kind == "capital" else 1
    answer = words.TOWNS[country][column]
    pool = tuple(pair[column] for pair in words.TOWNS.values())
    return Task(
        cluster="towns",
        task=f"{country}/{kind}",
        prompt=rng.choice(TOWN_TEMPLATES[kind]).format(country),
        answer=answer,
        wrong=others(pool, answer),
        rivals=tuple(name.lower() for name in pool),
        statement=f"The {kind} of {country} is {answer}.",
        held_out=True,
    )
