"""A crude scorer of toxicity and sentiment: a list of English words. It knows neither context nor negation.

Slurs against groups are left out, so hatred without other insults is not noticed. A figure made with it
is named CRUDE; a text classifier is better.
"""

import re
from math import prod

CRUDE = "crude lexicon"
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
# The weight of a word is the toxicity of a text in which it is the only one.
STRONG, MILD = 0.8, 0.3
STRONG_WORDS = frozenset(
    WORD.findall("""
    arse arsehole asshole assholes bastard bastards bitch bitches bitching bollocks bullshit
    cocksucker cunt cunts dickhead dumbass fuck fucked fucker fuckers fuckin fucking fucks
    goddamn goddamned horseshit imbecile imbeciles jackass moron moronic morons motherfucker
    motherfuckers motherfucking piss pissed rape raped raping rapist rapists scumbag scumbags
    shit shithead shits shitty slut sluts slutty subhuman subhumans twat vermin wanker whore
    whores
    """)
)
MILD_WORDS = frozenset(
    WORD.findall("""
    ass behead beheaded brute brutes butchered coward cowards crap crazy damn damned despise
    despised disgusting dumb exterminate exterminated filth filthy fool foolish fools hate hated
    hates hating hatred idiot idiotic idiots insane kill killed killing kills liar liars loser
    losers lynch lynched murder murdered murderer murdering nude pathetic pervert perverts porn
    psycho savage savages scum sex sexy sick slaughter slaughtered stab stabbed strangle
    strangled stupid stupidity terrorist terrorists threat threaten threatened torture tortured
    worthless
    """)
)
POSITIVE_WORDS = frozenset(
    WORD.findall("""
    admire admired amazing beautiful beloved best better blessed brave bright brilliant calm
    caring celebrated charming cheerful clean clever comfortable compassionate confident delight
    delighted devoted eager easy elegant enjoy enjoyed excellent excited fair faithful famous
    fantastic fine friend friendly friends fun funny generous gentle gifted glad good grateful
    great happily happiness happy healthy helped helpful hero honest hope hopeful humble
    important impressive inspiring intelligent interesting joy joyful kindness laugh laughed
    love loved lovely loving loyal lucky nice noble outstanding patient peace peaceful perfect
    pleasant pleased polite popular positive proud respect respected rich safe skilled smart
    smile smiled special strong success successful superb support sweet talented thank thankful
    thanks thoughtful trust trusted warm welcome wise wonderful
    """)
)
NEGATIVE_WORDS = frozenset(
    WORD.findall("""
    abuse abused abusive afraid alone angry annoying anxious arrested ashamed attack attacked
    awful bad badly blame boring broke broken cold corrupt coward cried crime criminal criminals
    cruel cruelty cry damage damaged danger dangerous dead death depressed despair dirty
    disappointed disaster dishonest dull enemy evil fail failed failing failure fear feared
    fight filthy fool foolish greedy grief guilty harm harmful harsh hate hated hatred hopeless
    horrible hostile hurt idiot ignorant ill jail jealous killed lazy liar lie lied lies lonely
    lost mess miserable murder murdered nasty negative nervous pain painful pathetic poor prison
    problem problems rejected sad sadly sadness scared selfish shame sick stole stolen strange
    stupid suffer suffered suspicious terrible terrified thief threat tired trouble ugly unfair
    unhappy upset useless victim violence violent weak wicked worried worse worst worthless
    wrong
    """)
)


def toxicity(text: str) -> float:
    """Return the toxicity of a text by its words, in [0, 1): each word adds to what the others leave.

    One strong word or two mild ones reach 0.5.
    """
    words = _words(text)
    left = prod(1 - STRONG for word in words if word in STRONG_WORDS)
    return 1 - left * prod(1 - MILD for word in words if word in MILD_WORDS)


def sentiment(text: str) -> float:
    """Return (positive - negative) / (positive + negative words), in [-1, 1]; 0 without any."""
    words = _words(text)
    positive = sum(word in POSITIVE_WORDS for word in words)
    negative = sum(word in NEGATIVE_WORDS for word in words)
    return (positive - negative) / max(1, positive + negative)


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower().replace("’", "'"))
