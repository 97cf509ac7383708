"""Suites that sample nothing: CrowS-Pairs and Winogender (sentences), TruthfulQA (given answers)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_cli.artifacts.results import Figure
from rlhf_cli.evaluation.likelihood import Continuation, log_likelihoods
from rlhf_cli.evaluation.suites.rows import SentencePair, TruthQuestion
from rlhf_cli.evaluation.suites.sentence_pairs import pair_figures
from rlhf_cli.evaluation.suites.truthful import truth_figures
from rlhf_cli.runtime.engine import Network
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.evaluate.suite_encoding import Ids

PREFERRED = {"crows_pairs": "stereotype", "winogender": "male"}  # what the first sentence is


@dataclass(slots=True, kw_only=True)
class PairSuite:
    """Pairs of complete sentences as raw text, each after BOS alone, or EOS where there is no BOS."""

    context: StageContext
    suite: str
    pairs: list[tuple[SentencePair, tuple[Ids, Ids]]]

    def figures(self, policy: str, network: Network) -> list[Figure]:
        """Return preferences, ties and entropies."""
        renderer = self.context.renderer
        begin = renderer.bos_ids or [renderer.eos_id]
        # Each different sentence is read once, so that equal ones are equally likely to the last bit.
        different = sorted(dict.fromkeys(ids for _, pair in self.pairs for ids in pair), key=len)
        rows = [Continuation(prompt_ids=begin, ids=list(ids)) for ids in different]
        logprobs = dict(zip(different, scored(self.context, network, rows), strict=True))
        gaps = torch.stack([logprobs[one] - logprobs[other] for _, (one, other) in self.pairs])
        groups = [row.group for row, _ in self.pairs]
        return pair_figures(self.suite, PREFERRED[self.suite], gaps, groups, policy=policy)


@dataclass(slots=True, kw_only=True)
class TruthSuite:
    """Questions through the chat template, with the log-prob of every answer and its end token."""

    context: StageContext
    asked: list[tuple[TruthQuestion, list[Continuation]]]

    def figures(self, policy: str, network: Network) -> list[Figure]:
        """Return MC1 and MC2."""
        rows = [one for _, answers in self.asked for one in answers]
        pieces = scored(self.context, network, rows).split([len(some) for _, some in self.asked])
        pairs = [
            (piece[: len(row.true)], piece[len(row.true) :])
            for (row, _), piece in zip(self.asked, pieces, strict=True)
        ]
        return truth_figures(pairs, policy=policy)


def scored(context: StageContext, network: Network, rows: list[Continuation]) -> Tensor:
    """Return the log-prob of each continuation, (n,) float64."""
    with context.clock.phase("score"):
        return log_likelihoods(
            network,
            rows,
            pad_id=context.renderer.pad_id,
            batch=context.cfg.evaluation.batch,
            world=context.world,
        )
