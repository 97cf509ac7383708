"""Probes of the reward models: those that fit the lengths of the run, and what was left out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.config.keys import probes_file
from rlhf_cli.config.schema import LongText
from rlhf_cli.data.encode import EncodedComparison, EncodedPrompt, encode_comparison
from rlhf_cli.data.probes import read_probes
from rlhf_cli.data.records import Comparison, RowError
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.evaluation.comparisons import scored_rankings
from rlhf_cli.evaluation.probes import probe_figures, unknown_share
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.evaluate.comparisons import compared_answers
from rlhf_cli.stages.reward_scorer import RewardModel
from rlhf_cli.stages.samples import compared_prompts

LEAST_FITTING = 0.5  # share of the probes below which those that fit show too little
MOST_UNKNOWN = 0.1  # share of tokens above which a tokenizer cannot carry the texts


@dataclass(slots=True, kw_only=True)
class Probes:
    """comparisons: the probes that are scored, in the policy's tokens. missing: a line on each omission."""

    context: StageContext
    comparisons: list[EncodedComparison]
    missing: list[str]

    @classmethod
    def of(cls, context: StageContext) -> "Probes":
        """Read the probes of evaluation.probes; none are scored where fewer than half of them fit."""
        named = context.cfg.evaluation.probes
        if named is None:
            return cls(context=context, comparisons=[], missing=[])
        probes = read_probes(probes_file(named))
        fitting, first = fitted(context, probes)
        if note := unknown(probes, context.renderer, "the policy"):
            return cls(context=context, comparisons=[], missing=[note])
        missing, too_few = [], len(fitting) < LEAST_FITTING * len(probes)
        if lost := len(probes) - len(fitting):
            rest = "none is scored" if too_few else "these are left out"
            missing.append(f"probes: {lost} of {len(probes)} do not fit ({first}): {rest}")
        return cls(context=context, comparisons=[] if too_few else fitting, missing=missing)

    @property
    def prompts(self) -> list[EncodedPrompt]:
        """Return the prompts, which a reward model has to be loaded for."""
        return compared_prompts(self.comparisons)

    def figures(self, models: Mapping[str, RewardModel]) -> list[Figure]:
        """Return the accuracy of each reward model, by kind. models: name -> reward model.

        One whose tokenizer cannot carry the texts is left out, with a line in `missing`.
        """
        records = [one.record for one in self.comparisons]
        rankings = {}
        for name, model in models.items() if records else ():
            note = model.renderer and unknown(records, model.renderer, name)
            if note:
                self.missing.append(note)
                continue
            answers = compared_answers(self.comparisons, self.context.renderer)
            rankings[name] = scored_rankings(self.comparisons, model.score_answers(answers))
        return probe_figures(rankings)


def fitted(
    context: StageContext, probes: list[Comparison]
) -> tuple[list[EncodedComparison], RowError | None]:
    """Return the probes whose texts fit uncut, and why the first other one does not."""
    uncut = replace(context.cfg.data, long_prompts=LongText.drop, long_responses=LongText.drop)
    found, first = [], None
    for probe in probes:
        try:
            found.append(encode_comparison(context.renderer, probe, uncut))
        except RowError as error:
            first = first or error
    return found, first


def unknown(probes: list[Comparison], renderer: Renderer, whose: str) -> str | None:
    """Return a line where a tokenizer has no tokens for too much of the texts."""
    texts = [text for one in probes for text in (one.prompt[-1].content, *one.responses)]
    share = unknown_share(renderer.tokenizer, texts)
    if share <= MOST_UNKNOWN:
        return None
    return f"probes: the tokenizer of {whose} does not know {share:.0%} of their tokens; none is scored"
