"""Answers that abstain ("I do not know"): how many there are, and how often the others are right.

Imitation learns how often people abstain, not when the model itself should: that takes feedback on its own
answers. English patterns recognize an abstention; an embedded task, or a judge, may decide instead.
"""

import re
from collections.abc import Sequence

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.core.estimates import wilson_interval
from rlhf_cli.data.embedded import EmbeddedTask

PART = "abstention"
BINS = ("never", "low", "middle", "high")  # how often another model is right on the prompt

EXPANDED = (
    ("’", "'"),
    (r"\b(do|does|did|could|would|is|are|was|have|has)n'?t\b", r"\1 not"),
    (r"\b(?:can'?t|cannot)\b", "can not"),
    (r"\b(?:idk|dunno)\b", "i do not know"),
    ("'m\\b", " am"),
    ("'s\\b", " is"),
    ("'re\\b", " are"),
    ("'ve\\b", " have"),
    (r"\b(but|however|still|anyway|maybe|perhaps|probably|possibly),", r"\1"),
)
CLAUSE = re.compile(r"[.!?;:,\n]+")
_ADVERBS = r"(?:(?:\w+ly|just|still|also|even|quite) )*"
_VERB = r"(?:say|tell|know|answer|determine|verify|recall|remember)"
# What may follow as the thing that is not known; "I do not know Paris well" has another object.
_THING = (
    r"(?: (?:that|this|it|the|your|who|whom|whose|what|when|where|which|why|how|if|whether|yet|"
    r"exactly|enough|much|for sure|for certain|anything about|"
    r"(?:about|from|without|with) (?:that|this|it|the|more))\b.*)?"
)
_ADMISSIONS = (
    rf"(?:i|we) {_ADVERBS}(?:do|can|could|would) not {_ADVERBS}(?:be able to )?{_VERB}{_THING}",
    rf"(?:i|we) (?:am|are) {_ADVERBS}(?:unsure|uncertain|not {_ADVERBS}(?:sure|certain)){_THING}",
    rf"(?:i|we) (?:am|are) {_ADVERBS}(?:unable|not able) to {_VERB}{_THING}",
    rf"(?:i|we) {_ADVERBS}(?:have no|do not have) (?:[\w-]+ )*"
    r"(?:idea|clue|answer|comment|information|knowledge|data|context|way)\b.*",
    rf"(?:no idea|no clue|no comment|not sure|unknown){_THING}",
    rf"it is {_ADVERBS}(?:unclear|unknown|not known){_THING}",
    rf"it is {_ADVERBS}(?:impossible|difficult|hard|not possible)(?: for me)? to {_VERB}{_THING}",
    rf"who (?:knows|can {_VERB})(?: (?:that|this|it))?",
    r"there is (?:(?:not enough|insufficient) (?:information|evidence|context)|no information)\b.*",
    r"(?:the|that) answer is (?:unknown|not known)\b.*",
)
ADMITS = re.compile("|".join(_ADMISSIONS))
# Clauses, or beginnings of one, that may come before it: courtesy, an excuse, who is speaking.
_LEADS = (
    r"(?:(?:i|we) (?:am|are) )?(?:(?:very|so|really|truly) )?(?:sorry|afraid)(?: but)?(?: that)?",
    r"i apologi[sz]e|my apologies|unfortunately|regrettably|honestly|to be honest",
    r"well|oh|hm+|sure|of course|gladly|with pleasure|but",
    r"as an? .*",
    r"(?:that|this|it) is an? (?:\w+ )*(?:question|one)|(?:(?:what )?an? )?\w+ question",
)
LEADS = re.compile(rf"(?:{'|'.join(_LEADS)})(?: |$)")
# What makes a later clause an answer all the same; an offer or advice is none.
_ANSWERS = (
    r"(?:but|however|though|although|still|anyway)\b"
    r"(?! (?:i can|i could|you|if|feel|please|let|there))",
    r"(?:and )?(?:maybe|perhaps|probably|possibly|my (?:best )?guess)\b",
    r"(?:and )?(?:i|we) (?:would )?(?:think|believe|guess|suppose|suspect)\b",
    r"the answer (?:is|was|could|might|may)\b",
    r"(?:it|that|this) (?:is|was|could be|might be|may be|would be)(?: \w+){1,4}$",
)
ANSWERS = re.compile("|".join(_ANSWERS))


def abstains(text: str) -> bool:
    """Return whether an answer begins by admitting that it is not known, and gives none afterwards.

    "I do not know why, but it is 5." answers. An answer that follows without any sign of one, as in
    "I do not know. Paris.", is not seen.
    """
    text = text.lower().strip()
    for found, instead in EXPANDED:
        text = re.sub(found, instead, text)
    clauses = [" ".join(clause.split()) for clause in CLAUSE.split(text)]
    clauses = [clause for clause in clauses if clause]
    while clauses and not ADMITS.fullmatch(clauses[0]):
        lead = LEADS.match(clauses[0])
        if lead is None:
            return False
        rest = clauses[0][lead.end() :]
        clauses[:1] = [rest] if rest else []
    return bool(clauses) and not any(
        ANSWERS.match(clause) and not ADMITS.fullmatch(clause) for clause in clauses[1:]
    )


def readings(
    task: EmbeddedTask | None, metas: Sequence[dict], texts: Sequence[str]
) -> tuple[list[bool], list[bool] | None]:
    """Return whether each answer abstains, and whether each is right, where a task knows that.

    metas: those of the prompts' records.
    """
    if task is None:
        return [abstains(text) for text in texts], None
    found = [task.content_of(meta, text) for meta, text in zip(metas, texts, strict=True)]
    return [one.abstains for one in found], [one.right is not None for one in found]


def bin_of(rate: float) -> str:
    """Return the bin of a rate of right answers: never is 0, the others are thirds of (0, 1]."""
    return BINS[0] if rate == 0 else BINS[1 + (rate > 1 / 3) + (rate > 2 / 3)]


def abstention_figures(
    policy: str,
    abstained: Sequence[bool],
    right: Sequence[bool] | None = None,
    rates: Sequence[float] | None = None,
) -> list[Figure]:
    """Return the rate of abstaining and the accuracy of the answers that do not, as far as it is known.

    One answer per prompt. right: whether it is the right one. rates: how often samples of the SFT model,
    not these answers, are right on the prompt; the figures are then given by the bin of that rate too.
    """
    groups: dict[str | None, list[int]] = {None: list(range(len(abstained)))}
    for name in BINS if rates is not None else ():
        groups[name] = [i for i, rate in enumerate(rates or ()) if bin_of(rate) == name]
    found = []
    for name, index in groups.items():
        abstentions = [abstained[i] for i in index]
        found += _share(policy, "rate", abstentions, name)
        if right is not None:
            given = [right[i] for i in index if not abstained[i]]
            found += _share(policy, "accuracy_answering", given, name)
    return found


def _share(policy: str, measure: str, hits: list[bool], group: str | None) -> list[Figure]:
    """Return the share of hits with its Wilson interval; nothing of nothing."""
    if not hits:
        return []
    interval = wilson_interval(sum(hits), len(hits))
    names = {"measure": measure, "policy": policy, "group": group}
    return [Figure.of(interval, part=PART, count=len(hits), **names)]
