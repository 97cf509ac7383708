"""Clusters answered from what the prompt shows: sentiment, options, rewrite, list, entailment."""

from random import Random

from rlhf_cli.tiny_world import vocabulary as words
from rlhf_cli.tiny_world.task import Task, others

SENTIMENT_TEMPLATES = (
    "Is this positive or negative? {}",
    "Say positive or negative: {}",
    "What is the feeling of this text? {}",
    "Positive or negative feeling? {}",
    "{} Is that positive or negative?",
    "Tell me the feeling in this: {}",
)


def sentiment(rng: Random) -> Task:
    answer, adjectives = rng.choice((("positive", words.LIKED), ("negative", words.DISLIKED)))
    thing, degree, adjective = (
        rng.choice(words.REVIEWED),
        rng.choice(words.DEGREES),
        rng.choice(adjectives),
    )
    text = f"The {thing} was {degree}{adjective}."
    return Task(
        cluster="sentiment",
        task=f"{thing}/{degree}{adjective}",
        prompt=rng.choice(SENTIMENT_TEMPLATES).format(text),
        answer=answer,
        wrong=others(("positive", "negative"), answer),
        rivals=("positive", "negative"),
        statement=f"{text} That is {answer}.",
    )


OPTION_TEMPLATES = (
    "Which of these is a kind of {}?",
    "Pick the {}.",
    "Choose the {} from the options.",
    "Find the {}.",
    "Which one would you call a kind of {}?",
    "Only one of these is a kind of {}. Say which.",
)


def options(rng: Random) -> Task:
    kind, *other_kinds = rng.sample(tuple(words.CATEGORIES), rng.randint(2, 3))
    answer = rng.choice(words.CATEGORIES[kind][1])
    wrong = tuple(rng.choice(words.CATEGORIES[k][1]) for k in other_kinds)
    shown = rng.sample((answer, *wrong), len(wrong) + 1)
    question = rng.choice(OPTION_TEMPLATES).format(kind)
    return Task(
        cluster="options",
        task=f"{kind}/" + "/".join(shown),
        prompt=question + "\nOPTIONS:" + "".join(f"\n- {word}" for word in shown),
        answer=answer,
        wrong=wrong,
        rivals=wrong,
        statement=f"{answer} is a kind of {kind}.",
    )


REWRITE_TEMPLATES = (
    "Rewrite in the past: {}.",
    "Put this in the past: {}.",
    "Change to the past: {}.",
    "Turn this into the past: {}.",
    "Say this in the past: {}.",
)


def rewrite(rng: Random) -> Task:
    subject, thing = rng.sample(tuple(words.ANIMALS), 2)
    verb, other = rng.sample(tuple(words.PAST), 2)
    now, answer = (
        f"the {subject} {verb} the {thing}",
        f"the {subject} {words.PAST[verb]} the {thing}",
    )
    return Task(
        cluster="rewrite",
        task=now,
        prompt=rng.choice(REWRITE_TEMPLATES).format(now),
        answer=answer,
        wrong=(f"the {subject} {words.PAST[other]} the {thing}", now),
        rivals=tuple(words.PAST.values()),
        statement=f"Today {now}. Yesterday {answer}.",
    )


LIST_TEMPLATES = (
    "List {}.",
    "Name {}.",
    "Give me {}.",
    "Tell me {}.",
    "I need {}.",
    "Write down {}.",
)


def list_(rng: Random) -> Task:
    kind, other = rng.sample(tuple(words.CATEGORIES), 2)
    (plural, pool), number = words.CATEGORIES[kind], rng.choice(tuple(words.COUNTS))
    banned = rng.choice(("", rng.choice(pool)))
    members = tuple(word for word in pool if word != banned)
    chosen = rng.sample(members, words.COUNTS[number])
    stranger = rng.choice(words.CATEGORIES[other][1])
    every = tuple(w for _, group in words.CATEGORIES.values() for w in group)
    request = rng.choice(LIST_TEMPLATES).format(f"{number} {plural}")
    return Task(
        cluster="list",
        task=f"{number}/{kind}/{banned}",
        prompt=request + (f" Leave out {banned}." if banned else ""),
        answer=", ".join(chosen),
        wrong=(", ".join(chosen[:-1]), ", ".join([*chosen[:-1], stranger])),
        rivals=tuple(word for word in every if word not in members),
        statement=f"Some {plural} are {', '.join(chosen)}.",
        members=members,
        count=len(chosen),
    )


ENTAILMENT_TEMPLATES = (
    "If {}, does it follow that {}?",
    "Say yes or no. {}. Does it follow that {}?",
    "Suppose {}. Is it true that {}?",
    "Given that {}, is it true that {}?",
    "{}. So {}. Yes or no?",
)


def entailment(rng: Random) -> Task:
    """Yes when the conclusion only leaves an adjective out, no when it changes who or what."""
    subject, thing, stranger = rng.sample(tuple(words.ANIMALS), 3)
    verb, adjective = rng.choice(tuple(words.PAST)), rng.choice(tuple(words.TOY_ADJECTIVES))
    premise = f"the {adjective} {subject} {verb} the {thing}"
    answer = rng.choice(("yes", "no"))
    swapped = rng.choice(
        (f"the {stranger} {verb} the {thing}", f"the {subject} {verb} the {stranger}")
    )
    conclusion = f"the {subject} {verb} the {thing}" if answer == "yes" else swapped
    return Task(
        cluster="entailment",
        task=f"{premise}/{conclusion}",
        prompt=rng.choice(ENTAILMENT_TEMPLATES).format(premise, conclusion),
        answer=answer,
        wrong=others(("yes", "no"), answer),
        rivals=("yes", "no"),
        statement=f"If {premise}, does it follow that {conclusion}? {answer}.",
        held_out=True,
    )
