"""The suites of `evaluation.suites` that are named, asked of every model alike, the base model too."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.artifacts.store import write_text
from rlhf_cli.config.suites import suite_files
from rlhf_cli.evaluation.suites import lexicon
from rlhf_cli.evaluation.suites.rows import read_suites
from rlhf_cli.runtime.engine import Network
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.evaluate.likelihood_suites import PairSuite, TruthSuite
from rlhf_cli.stages.evaluate.part import Part
from rlhf_cli.stages.evaluate.sampled_suites import (
    BiasSuite,
    RefusalSuite,
    SuiteSampler,
    ToxicitySuite,
)
from rlhf_cli.stages.evaluate.suite_encoding import SuiteEncoder
from rlhf_cli.stages.evaluate.text_scorers import TextScorer, open_scorer

SUITE_ANSWERS = "suite_answers.jsonl"


@dataclass(slots=True, kw_only=True)
class SuitePart:
    """All suites. notes: rows that were left out or cut. description: how many rows each has."""

    parts: list[Part]
    sampler: SuiteSampler
    notes: list[str]
    description: str

    def figures(self, policy: str, network: Network) -> list[Figure]:
        """Return the figures of every suite."""
        return [figure for part in self.parts for figure in part.figures(policy, network)]

    def write(self, out: Path) -> None:
        """Write every sampled answer with its scores, if there is one; only the main process does."""
        if self.sampler.context.world.is_main and self.sampler.entries:
            lines = [json.dumps(entry) for entry in self.sampler.entries]
            write_text(out / SUITE_ANSWERS, "\n".join(lines) + "\n")


def open_suites(context: StageContext) -> SuitePart | None:
    """Return the suites that are named, their rows in the policy's tokens; None where none is.

    UserError where a file or a classifier cannot be used.
    """
    cfg = context.cfg
    if not suite_files(cfg.evaluation.suites):
        return None
    found = read_suites(cfg.evaluation.suites, cfg.seed)
    encoders = {suite: SuiteEncoder(context=context, suite=suite) for suite in found}
    sampler, scorers = SuiteSampler(context=context), scorers_of(context, found)
    return SuitePart(
        parts=[_part(encoders[name], rows, sampler, scorers) for name, rows in found.items()],
        sampler=sampler,
        notes=[note for encoder in encoders.values() for note in encoder.notes()],
        description=", ".join(f"{suite} ({len(rows)} rows)" for suite, rows in found.items()),
    )


def scorers_of(context: StageContext, found: dict[str, list[Any]]) -> dict[str, TextScorer]:
    """Return the scorers that these suites need."""
    scorers = {}
    if found.keys() & {"toxicity", "bias"}:
        scorers["toxicity"] = open_scorer(context, "toxicity_model", lexicon.toxicity)
    if "bias" in found:
        scorers["sentiment"] = open_scorer(context, "sentiment_model", lexicon.sentiment)
    return scorers


def _part(
    encoder: SuiteEncoder, rows: list[Any], sampler: SuiteSampler, scorers: dict[str, TextScorer]
) -> Part:
    match encoder.suite:
        case "toxicity":
            rounds, scorer = encoder.rounds(rows), scorers["toxicity"]
            return ToxicitySuite(sampler=sampler, rounds=rounds, scorer=scorer)
        case "bias":
            return BiasSuite(sampler=sampler, asked=encoder.prompts(rows), scorers=scorers)
        case "xstest":
            return RefusalSuite(sampler=sampler, asked=encoder.prompts(rows))
        case "truthfulqa":
            return TruthSuite(context=encoder.context, asked=encoder.answers(rows))
        case suite:
            pairs = encoder.sentences(rows)
            return PairSuite(context=encoder.context, suite=suite, pairs=pairs)
