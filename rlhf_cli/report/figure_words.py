"""Words of the page for the parts and measures of results.json; an unknown one keeps its own name."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(slots=True, kw_only=True, frozen=True)
class Section:
    """A section of the page made of figures. note: in a sentence or two what is good and what is bad."""

    title: str
    parts: tuple[str, ...]
    note: str = ""


WIN_RATES = Section(
    title="Win rates, on held-out prompts and on others",
    parts=("win_rates", "generalisation"),
    note="How often a judge prefers the policy's answer to that of the SFT model for the same prompt; a "
    "tie counts half. Better than SFT: the whole interval is above 0.5 (dashed). The reward model that a "
    "policy was trained on is no independent judge. Lengths made equal: the rate if both answers had "
    "the same number of tokens. A policy that wins on held-out prompts and loses much of that on other "
    "sets (the gap) has learned how to please on one kind of prompt.",
)
DIVERSITY = Section(
    title="Diversity",
    parts=("diversity",),
    note="How much answers differ. Several answers to one prompt that are all alike: the policy has "
    "settled on one. One answer per prompt compares answers to different prompts: where they are "
    "alike, it answers everything in the same manner. Training by a score usually costs some of both.",
)
OTHERS = (
    Section(
        title="Scores and probes of the reward model",
        parts=("reward_model", "probes"),
        note="Probes are pairs in which one answer is plainly better: the share that the reward model "
        "gets right, by kind. 0.5 is chance; a kind far below the others is what training will exploit.",
    ),
    Section(
        title="Harm, bias, truth",
        parts=("suites",),
        note="Standard questions about toxic, stereotyped and false answers. Compare each policy with "
        "SFT and the base model rather than with numbers from elsewhere.",
    ),
    Section(
        title="Preferred and rejected responses",
        parts=("imitation",),
        note="Change of the mean log-probability of held-out responses, against the base model. "
        "Imitation raises that of preferred and of rejected ones; learning from preferences should "
        "open a gap between them.",
    ),
    Section(
        title="Answering that one does not know",
        parts=("abstention",),
        note="An honest policy abstains where it would be wrong, and is right when it answers.",
    ),
)

MEASURES = MappingProxyType(
    {
        "win_rate": "preferred to SFT",
        "win_rate_controlled": "preferred to SFT, lengths made equal",
        "gap": "gap: held-out prompts minus these",
        "ead": "Distinct phrases (EAD)",
        "self_bleu": "Overlap between answers (self-BLEU)",
        "cosine": "Distance of meanings (1 - cosine)",
        "nli": "Contradiction between answers (NLI)",
        "entropy": "Entropy per token, in nats",
        "repetition": "Share of answers that repeat a phrase three times",
        "distinct_right": "Different right answers found",
        "chosen": "preferred responses",
        "rejected": "rejected responses",
    }
)

CAPTIONS = MappingProxyType(
    {
        "ead": "Distinct sequences of 1 to 5 words, by those expected. Higher: more diverse.",
        "self_bleu": "How much of each answer is found in the others. Lower: more diverse.",
        "cosine": "By an encoder. Higher: more diverse in meaning.",
        "nli": "From -2, all entail each other, to 2, all contradict each other. Higher: more diverse.",
        "entropy": "Higher: more choices are left open at each token.",
        "repetition": "A sequence of four tokens, three times in one answer. Lower is better.",
        "distinct_right": "Where a prompt has many right answers: how many of them several samples find.",
    }
)


def label_of_measure(measure: str) -> str:
    """Return the name of a measure for a person: known ones in words, others without their punctuation."""
    kind, slash, rest = measure.partition("/")
    known = MEASURES.get(measure) or MEASURES.get(kind, kind.replace("_", " "))
    return f"{known}, {rest.replace('_', ' ').replace('/', ', ')}" if slash else known


def other_sections(parts: Iterable[str]) -> list[Section]:
    """Return the sections after the reward model's, and one for each part that has none."""
    known = {part for one in (WIN_RATES, DIVERSITY, *OTHERS) for part in one.parts}
    unknown = [part for part in parts if part not in known]
    return [*OTHERS, *(Section(title=_words(part), parts=(part,)) for part in unknown)]


def _words(part: str) -> str:
    return part.replace("_", " ").capitalize()


def caption_of(part: str, measure: str) -> str:
    """Return how to read the chart of a measure."""
    line = "Line: 95\N{NO-BREAK SPACE}% interval."
    known = CAPTIONS.get(measure.partition("/")[0], "") if part == "diversity" else ""
    return f"{known} {line}".strip()
