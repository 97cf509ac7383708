"""Words of the page for the parts and measures of results.json; an unknown one keeps its own name."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.data.embedded import utility_labels


@dataclass(slots=True, kw_only=True, frozen=True)
class Section:
    """A section of the page made of figures. note: in a sentence or two what is good and what is bad."""

    title: str
    parts: tuple[str, ...]
    note: str = ""


WIN_RATES = Section(
    title="Win rates",
    parts=("win_rates",),
    note="How often a judge prefers the policy's answer to another one to the same prompt: the SFT "
    "model's, or the response that the data have (reference). A tie counts half. Better: the whole "
    "interval is above 0.5 (dashed). The score that a policy was trained to raise is no independent "
    "judge. Lengths made equal: the rate if both answers had the same number of tokens.",
)
GENERALISATION = Section(
    title="On other kinds of prompts",
    parts=("generalisation",),
    note="The same policies on held-out prompts like those of training, and on prompts unlike them. "
    "What was learned should carry over. Gap: the first minus the second; close to 0, or no larger "
    "than that of SFT, is good.",
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
        title="Scores of the reward model",
        parts=("reward_model",),
        note="What the reward model makes of people's responses and of each policy's answers. A policy "
        "far above people's best responses is where the reward model was never corrected. Accuracy and "
        "agreement: the share of pairs that it orders as people, or another judge, do.",
    ),
    Section(
        title="Probes of the reward model",
        parts=("probes",),
        note="Pairs in which one answer is plainly better: the share that the reward model gets right. "
        "0.5 is chance; a kind far below the others is what training will exploit.",
    ),
    Section(
        title="Harm, bias, truth",
        parts=("suites",),
        note="Standard questions about toxic, stereotyped and false answers. Compare each policy with "
        "SFT and the base model rather than with numbers from elsewhere.",
    ),
    Section(
        title="The language model that judges",
        parts=("judge",),
        note="Each pair of answers is shown to it in both orders. The lower the share of pairs of which it "
        "prefers the same answer both times, the more its preferences are for a place.",
    ),
    Section(
        title="Preferred and rejected responses",
        parts=("imitation",),
        note="How much likelier than under the base model people's responses in held-out comparisons "
        "have become. Imitation raises preferred and rejected ones; learning from preferences should "
        "open a gap between them.",
    ),
    Section(
        title="Answering that one does not know",
        parts=("abstention",),
        note="An honest policy abstains where it would be wrong, and is right when it answers. Groups: "
        "how often samples of the SFT model are right on the prompt.",
    ),
)

MEASURES = MappingProxyType(
    {
        "win_rate": "Win rate",
        "win_rate_controlled": "Win rate, lengths made equal",
        "win_rate_gap": "Gap of the win rate",
        "value": "Mean value",
        "value_gap": "Gap of the mean value",
        "ead": "Distinct phrases (EAD)",
        "self_bleu": "Overlap between answers (self-BLEU)",
        "cosine": "Distance of meanings (1 - cosine)",
        "nli": "Contradiction between answers (NLI)",
        "entropy": "Entropy per token, in nats",
        "repetition": "Answers that repeat a phrase three times",
        "distinct_right": "Different right answers found",
        "same_in_both_orders": "The same answer preferred in both orders",
        "length_baseline": "Preferring the longer answer",
        "logprob": "Log-probability of a response, in nats",
        "logprob_minus_base": "Change of log-probability per response, in nats",
        "logprob_per_token": "Log-probability per token, in nats",
        "logprob_per_token_minus_base": "Change of log-probability per token, in nats",
        "rate": "Abstains",
        "accuracy_answering": "Right when it answers",
        "toxicity/mean": "Toxicity, mean",
        "toxicity/max": "Toxicity, most toxic continuation per prompt",
        "toxicity/any": "Prompts with a toxic continuation",
        "crows_pairs": "CrowS-Pairs",
        "winogender": "Winogender",
        "truthfulqa": "TruthfulQA",
        "xstest": "XSTest",
    }
)

JUDGES = MappingProxyType(
    {
        "score": "the score that was optimised",
        "check": "a second reward model (check)",
        "judge": "a language model (judge)",
        "people": "people",
    }
)

CAPTIONS = MappingProxyType(
    {
        "ead": "Distinct sequences of 1 to 5 words, by those expected. Higher: more diverse.",
        "self_bleu": "How much of each answer is found in the others. Lower: more diverse.",
        "cosine": "By an encoder. Higher: more diverse in meaning.",
        "nli": "From -2, all entail each other, to 2, all contradict each other. Higher: more diverse.",
        "entropy": "Higher: more choices are left open at each token.",
        "repetition": "Of four words, in one answer. Lower is better.",
        "distinct_right": "Where a prompt has many right answers: how many of them several samples find.",
    }
)


def label_of_measure(measure: str) -> str:
    """Return the name of a measure for a person: known ones in words, others without their punctuation."""
    if measure in MEASURES:
        return MEASURES[measure]
    kind, slash, rest = measure.partition("/")
    known = MEASURES.get(kind) or _words(kind)
    rest = rest.replace("_std", "/standard deviation")
    return f"{known}, {rest.replace('_', ' ').replace('/', ', ')}" if slash else known


def judge_words(judge: str | None) -> str:
    """Return a judge in words; any but the known ones by its name."""
    return JUDGES.get(judge or "") or utility_labels().get(judge or "") or judge or "unknown judge"


def title_of(one: Figure) -> str:
    """Return the title of the chart of a measure by one judge."""
    return label_of_measure(one.measure) + (f", by {judge_words(one.judge)}" if one.judge else "")


def other_sections(parts: Iterable[str]) -> list[Section]:
    """Return the sections after the reward model's, and one for each part that has none."""
    known = {part for one in (WIN_RATES, GENERALISATION, DIVERSITY, *OTHERS) for part in one.parts}
    unknown = [part for part in parts if part not in known]
    return [*OTHERS, *(Section(title=_words(part), parts=(part,)) for part in unknown)]


def _words(part: str) -> str:
    return part.replace("_", " ").capitalize()


def caption_of(part: str, measure: str) -> str:
    """Return how to read the chart of a measure."""
    line = "Line: 95\N{NO-BREAK SPACE}% interval."
    if (part, measure) == ("reward_model", "score"):
        return "Mean over prompts. Band: from the 5 % to the 95 % quantile of all scores. " + line
    known = CAPTIONS.get(measure.partition("/")[0], "") if part == "diversity" else ""
    return f"{known} {line}".strip()
