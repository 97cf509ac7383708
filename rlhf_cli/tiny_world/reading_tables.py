"""Tables answered from what the question shows."""

from random import Random

from rlhf_cli.tiny_world import vocabulary as words
from rlhf_cli.tiny_world.knowledge import FACT_TEMPLATES, OPPOSITE_TEMPLATES, TOWN_TEMPLATES
from rlhf_cli.tiny_world.rows import THREE_WAY, UNKNOWN, Row, yes_no

FEELINGS = ("positive", "negative")
ORDINALS = ("first", "last")


def _opinion(rng: Random) -> tuple[str, str]:
    """Return (adjective with its degree, the feeling it expresses)."""
    feeling, pool = rng.choice(tuple(zip(FEELINGS, (words.LIKED, words.DISLIKED), strict=True)))
    return rng.choice(words.DEGREES) + rng.choice(pool), feeling


def sentiment(rng: Random) -> Row:
    opinion, feeling = _opinion(rng)
    text = f"The {rng.choice(words.REVIEWED)} was {opinion}."
    return Row(columns={"text": text}, answer=feeling, options=FEELINGS)


def aspect(rng: Random) -> Row:
    """Two opinions in one text, one of which is asked for."""
    things, asked = rng.sample(words.REVIEWED, 2), rng.randrange(2)
    opinions = [_opinion(rng) for _ in things]
    first, second = (f"the {t} was {text}" for t, (text, _) in zip(things, opinions, strict=True))
    columns = {"text": f"{first.capitalize()} but {second}.", "thing": things[asked]}
    return Row(columns=columns, answer=opinions[asked][1], options=FEELINGS)


def pick_kind(rng: Random) -> Row:
    """One member of each of three kinds, of which one kind is asked for."""
    kinds = rng.sample(tuple(words.CATEGORIES), 3)
    shown = tuple(rng.choice(words.CATEGORIES[kind][1]) for kind in kinds)
    asked = rng.randrange(3)
    columns = {"kind": kinds[asked], "words": ", ".join(shown)}
    return Row(columns=columns, answer=shown[asked], options=shown)


def odd_one_out(rng: Random) -> Row:
    kind, other = rng.sample(tuple(words.CATEGORIES), 2)
    answer = rng.choice(words.CATEGORIES[other][1])
    shown = tuple(rng.sample((answer, *rng.sample(words.CATEGORIES[kind][1], 3)), 4))
    return Row(columns={"words": ", ".join(shown)}, answer=answer, options=shown)


def _event(rng: Random) -> tuple[str, str, str]:
    """Return (who, verb in the present, whom)."""
    who, whom = rng.sample(tuple(words.ANIMALS), 2)
    return who, rng.choice(tuple(words.PAST)), whom


def _sentences(who: str, verb: str, whom: str) -> tuple[str, str]:
    return f"the {who} {verb} the {whom}", f"the {who} {words.PAST[verb]} the {whom}"


def _rewritten(rng: Random, given: int) -> Row:
    """A sentence to be put into the other tense. given: 0 the present, 1 the past."""
    who, verb, whom = _event(rng)
    other = rng.choice([v for v in words.PAST if v != verb])
    sentence, answer = _sentences(who, verb, whom)[given], _sentences(who, verb, whom)[1 - given]
    wrong = _sentences(who, other, whom)[1 - given], _sentences(whom, verb, who)[1 - given]
    options = tuple(rng.sample((answer, *wrong), 3))
    return Row(columns={"sentence": sentence}, answer=answer, options=options)


def to_past(rng: Random) -> Row:
    return _rewritten(rng, 0)


def to_present(rng: Random) -> Row:
    return _rewritten(rng, 1)


def every_word() -> tuple[str, ...]:
    """Return the members of all kinds."""
    return tuple(word for _, members in words.CATEGORIES.values() for word in members)


def list_member(rng: Random) -> Row:
    """Whether a word is in a list; a word that is not may be of the kind of one that is."""
    shown, right = rng.sample(every_word(), rng.randint(3, 4)), rng.random() < 0.5
    word = rng.choice(shown if right else [w for w in every_word() if w not in shown])
    return yes_no({"words": ", ".join(shown), "word": word}, right=right)


def list_place(rng: Random) -> Row:
    shown, place = tuple(rng.sample(every_word(), rng.randint(3, 4))), rng.choice(ORDINALS)
    columns = {"words": ", ".join(shown), "place": place}
    return Row(columns=columns, answer=shown[-ORDINALS.index(place)], options=shown)


Claims = dict[str, tuple[str, ...]]  # {verdict: sentences of which it is true}


def event_claims(rng: Random) -> tuple[str, Claims]:
    """Return a sentence and claims: yes leaves an adjective out, no denies, and others cannot be known."""
    who, verb, whom = _event(rng)
    stranger = rng.choice([a for a in words.ANIMALS if a not in (who, whom)])
    adjective, past = rng.choice(tuple(words.TOY_ADJECTIVES)), words.PAST[verb]
    unknown = ((stranger, whom), (who, stranger), (whom, who))
    return f"the {adjective} {who} {past} the {whom}", {
        "yes": (f"the {who} {past} the {whom}",),
        UNKNOWN: tuple(f"the {a} {past} the {b}" for a, b in unknown),
        "no": (f"the {who} never {past} the {whom}",),
    }


def kind_claims(rng: Random) -> tuple[str, Claims]:
    """Return what is where and claims: of its kind, of another kind, of another place."""
    kind, other = rng.sample(("fruit", "tool", "garment", "instrument"), 2)
    thing = rng.choice(words.CATEGORIES[kind][1])
    place, elsewhere = rng.sample(words.CONTAINERS, 2)
    return f"the {thing} is in the {place}", {
        "yes": (f"some {kind} is in the {place}",),
        UNKNOWN: (f"some {other} is in the {place}", f"some {kind} is in the {elsewhere}"),
        "no": (f"no {kind} is in the {place}",),
    }


def _entailed(found: tuple[str, Claims], rng: Random) -> Row:
    premise, claims = found
    answer = rng.choice(THREE_WAY)
    columns = {"premise": premise, "hypothesis": rng.choice(claims[answer])}
    return Row(columns=columns, answer=answer, options=THREE_WAY)


def nli_events(rng: Random) -> Row:
    return _entailed(event_claims(rng), rng)


def nli_kinds(rng: Random) -> Row:
    return _entailed(kind_claims(rng), rng)


def same_sentence(rng: Random) -> Row:
    """A sentence and one in the passive, which may turn who and whom around."""
    (who, verb, whom), right = _event(rng), rng.random() < 0.5
    first = _sentences(who, verb, whom)[1]
    patient, agent = (whom, who) if right else (who, whom)
    second = f"the {patient} was {words.PASSIVE[verb]} by the {agent}"
    return yes_no({"first": first, "second": second}, right=right)


def _asked(rng: Random) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the wordings of a question, and what it can ask about."""
    kind = rng.choice(("opposite", *words.ATTRIBUTES, *TOWN_TEMPLATES))
    if kind == "opposite":
        return OPPOSITE_TEMPLATES, tuple(word for pair in words.OPPOSITES for word in pair)
    if kind in TOWN_TEMPLATES:
        return TOWN_TEMPLATES[kind], tuple(words.TOWNS)
    return FACT_TEMPLATES[kind], tuple(words.ANIMALS)


def same_question(rng: Random) -> Row:
    """Two wordings of one question, about one thing or about two."""
    (wordings, things), right = _asked(rng), rng.random() < 0.5
    thing, other = rng.sample(things, 2)
    first, second = rng.sample(wordings, 2)
    columns = {"first": first.format(thing), "second": second.format(thing if right else other)}
    return yes_no(columns, right=right)


def pronoun(rng: Random) -> Row:
    man, woman, mood = rng.choice(words.MEN), rng.choice(words.WOMEN), rng.choice(words.MOODS)
    who, whom = rng.sample((man, woman), 2)
    verb, word = rng.choice(tuple(words.PAST.values())), rng.choice(("he", "she"))
    columns = {"text": f"The {who} {verb} the {whom} when {word} was {mood}.", "mood": mood}
    options = (f"the {who}", f"the {whom}")
    return Row(columns=columns, answer=f"the {man if word == 'he' else woman}", options=options)


def fit(rng: Random) -> Row:
    """The thing is too big or the container too small (after Levesque's winograd schemas)."""
    thing = rng.choice([w for kind in ("tool", "instrument") for w in words.CATEGORIES[kind][1]])
    container, size = rng.choice(words.CONTAINERS), rng.choice(("big", "small"))
    text = f"The {thing} is not in the {container} because it is too {size}."
    options = (f"the {thing}", f"the {container}")
    columns = {"text": text, "size": size}
    return Row(columns=columns, answer=options[size == "small"], options=options)


TABLES = (
    (
        "sentiment",
        "sentiment",
        sentiment,
        ("{text} Is that positive or negative?", "Text: {text} What is the feeling?"),
    ),
    ("sentiment", "aspect", aspect, ("{text} What is the feeling about the {thing}?",)),
    ("options", "pick_kind", pick_kind, ("Which of these is a kind of {kind}? {words}",)),
    ("options", "odd_one_out", odd_one_out, ("Which of these is not like the others? {words}",)),
    ("rewrite", "to_past", to_past, ("Say this in the past: {sentence}.",)),
    ("rewrite", "to_present", to_present, ("Say this as of today: {sentence}.",)),
    ("list", "list_member", list_member, ("{words}. Is {word} one of these?",)),
    ("list", "list_place", list_place, ("{words}. Which one is {place}?",)),
    ("nli", "nli_events", nli_events, ("Suppose {premise}. Can we tell that {hypothesis}?",)),
    ("nli", "nli_kinds", nli_kinds, ("Suppose {premise}. Can we tell that {hypothesis}?",)),
    ("paraphrase", "same_sentence", same_sentence, ("{first}. {second}. Is it the same?",)),
    ("paraphrase", "same_question", same_question, ("{first} {second} Is it the same?",)),
    ("coreference", "pronoun", pronoun, ("{text} Who was {mood}?",)),
    ("coreference", "fit", fit, ("{text} What is too {size}?",)),
)
