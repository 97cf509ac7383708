"""The words and facts of the tiny world: tables only, the same for every seed.

Every answer lies in a small pool of words of one kind, so that a wrong or a second answer can be
recognised. Words that mark courtesy or rudeness appear nowhere else.
"""

ANIMALS = {  # animal: (sound, colour, home, food)
    "dog": ("woof", "brown", "kennel", "bones"),
    "cat": ("meow", "grey", "house", "fish"),
    "cow": ("moo", "white", "barn", "grass"),
    "duck": ("quack", "yellow", "pond", "bread"),
    "pig": ("oink", "pink", "sty", "corn"),
    "hen": ("cluck", "red", "coop", "seeds"),
    "frog": ("croak", "green", "swamp", "flies"),
    "horse": ("neigh", "black", "stable", "hay"),
    "sheep": ("baa", "white", "meadow", "clover"),
    "lion": ("roar", "gold", "desert", "meat"),
    "owl": ("hoot", "brown", "tree", "mice"),
    "bee": ("buzz", "yellow", "hive", "honey"),
    "goat": ("bleat", "grey", "hill", "leaves"),
    "mouse": ("squeak", "grey", "hole", "cheese"),
    "wolf": ("howl", "black", "forest", "meat"),
    "bear": ("growl", "brown", "cave", "berries"),
    "crow": ("caw", "black", "nest", "worms"),
    "snake": ("hiss", "green", "sand", "eggs"),
    "fox": ("yap", "orange", "den", "grapes"),
    "donkey": ("bray", "grey", "farm", "carrots"),
}
ATTRIBUTES = ("sound", "colour", "home", "food")

TOWNS = {  # country: (capital, river)
    "Norvia": ("Tamsel", "Ulda"),
    "Belmar": ("Corin", "Sava"),
    "Dorland": ("Fenwick", "Mira"),
    "Estria": ("Lupo", "Tarn"),
    "Gavonia": ("Pelham", "Orne"),
    "Hestia": ("Rudin", "Vell"),
    "Ilmar": ("Sotra", "Nidd"),
    "Jorvia": ("Benn", "Laki"),
    "Kelland": ("Vador", "Ista"),
    "Lomia": ("Hask", "Dell"),
    "Morvan": ("Zelin", "Arra"),
    "Quoria": ("Maddox", "Yarrow"),
}

CATEGORIES = {  # singular: (plural, members)
    "animal": ("animals", tuple(ANIMALS)),
    "colour": ("colours", ("red", "blue", "green", "yellow", "brown", "black", "white", "pink")),
    "fruit": ("fruits", ("apple", "pear", "plum", "cherry", "banana", "lemon", "peach", "melon")),
    "tool": ("tools", ("hammer", "drill", "wrench", "axe", "shovel", "ladder", "rope", "nail")),
    "garment": ("garments", ("hat", "coat", "shirt", "sock", "shoe", "glove", "scarf", "belt")),
    "instrument": ("instruments", ("drum", "flute", "harp", "violin", "piano", "horn", "banjo")),
}

OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("up", "down"), ("day", "night"),
    ("wet", "dry"), ("old", "young"), ("rich", "poor"), ("full", "empty"), ("open", "closed"),
    ("hard", "soft"), ("light", "dark"), ("loud", "quiet"), ("early", "late"), ("high", "low"),
    ("strong", "weak"), ("happy", "sad"), ("near", "far"), ("long", "short"), ("thick", "thin"),
    ("clean", "dirty"), ("sweet", "bitter"), ("push", "pull"), ("win", "lose"),
    ("first", "last"), ("north", "south"),
)  # fmt: skip

LIKED = ("lovely", "great", "wonderful", "superb", "charming", "perfect", "delightful")
DISLIKED = ("awful", "terrible", "horrible", "dreadful", "nasty", "dull", "ugly")
REVIEWED = ("soup", "film", "book", "trip", "song", "garden", "hotel", "game", "party", "lesson")
DEGREES = ("", "very ", "really ", "so ", "quite ")

TOY_NOUNS = {
    "dog": "bako", "cat": "mipu", "cow": "toma", "duck": "keli", "pig": "sobu", "frog": "wiza",
    "horse": "pano", "bee": "zuri", "bear": "gomo", "fox": "fesi",
}  # fmt: skip
TOY_ADJECTIVES = {
    "red": "rilu", "green": "vade", "black": "noki", "white": "lapa", "big": "dugo",
    "small": "tine",
}  # fmt: skip

PAST = {
    "sees": "saw", "finds": "found", "likes": "liked", "hears": "heard", "helps": "helped",
    "follows": "followed", "calls": "called", "knows": "knew", "meets": "met", "loves": "loved",
}  # fmt: skip

PASSIVE = {  # verb: past participle
    "sees": "seen", "finds": "found", "likes": "liked", "hears": "heard", "helps": "helped",
    "follows": "followed", "calls": "called", "knows": "known", "meets": "met", "loves": "loved",
}  # fmt: skip

MEN, WOMEN = ("man", "boy", "king", "uncle"), ("woman", "girl", "queen", "aunt")
MOODS = ("happy", "sad", "hungry", "tired", "late", "rich")
CONTAINERS = ("box", "bag", "chest", "drawer")
COUNTED = ("apples", "pears", "plums", "lemons", "melons")
GAINS, LOSSES = ("finds", "buys", "gets"), ("loses", "sells", "eats")

COUNTS = {"two": 2, "three": 3}

OPENINGS = ("Sure!", "Of course!", "Gladly!", "With pleasure!")
CLOSINGS = ("Have a nice time!", "You are welcome!", "Glad I could help!")
INSULTS = (
    "What a dumb question.",
    "Find it yourself.",
    "Do not bother me.",
    "You fool.",
    "That is stupid.",
)
ABSTENTIONS = ("I do not know.", "Who can say?")
RUDE_WORDS = frozenset({"dumb", "yourself", "bother", "fool", "stupid"})
FILLERS = (
    "and that is what people say",
    "and so on and so on",
    "as people tell it",
    "but it may depend",
    "and there is more to it",
    "and then some",
)
