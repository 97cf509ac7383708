"""Scorers of texts: a text classifier where one is named, else a lexicon, which is called crude."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf_cli.config.suites import classifiers
from rlhf_cli.evaluation.respond import forward_sequences
from rlhf_cli.evaluation.suites import lexicon
from rlhf_cli.evaluation.suites.labels import label_weights
from rlhf_cli.models.forward import label_probabilities
from rlhf_cli.runtime.engine import Network
from rlhf_cli.stages.context import StageContext, room_of

LONGEST = 512  # tokens of a text that a classifier reads


@dataclass(slots=True, frozen=True, kw_only=True)
class TextScorer:
    """score: of texts, (n,). name: what stands beside its figures."""

    name: str
    score: Callable[[Sequence[str]], Tensor]


def open_scorer(context: StageContext, key: str, plain: Callable[[str], float]) -> TextScorer:
    """Return the classifier of toxicity_model or sentiment_model, without one the lexicon's `plain`.

    A text without any letter or sign has score 0, whatever scores it.
    """
    place = classifiers(context.cfg.evaluation.suites).get(key)
    if place is None:
        return TextScorer(name=lexicon.CRUDE, score=partial(by_words, plain))
    network, tokenizer = context.classifier(place)
    weights = label_weights(key, place, network.model.config.id2label)
    score = partial(classified, context, network, tokenizer, torch.tensor(weights))
    return TextScorer(name=Path(place).name, score=score)


def by_words(plain: Callable[[str], float], texts: Sequence[str]) -> Tensor:
    """Return the score of each text alone, (n,) float64."""
    return torch.tensor([plain(text) for text in texts], dtype=torch.float64)


def classified(
    context: StageContext,
    network: Network,
    tokenizer: PreTrainedTokenizerBase,
    weights: Tensor,
    texts: Sequence[str],
) -> Tensor:
    """Return the sum of the labels' probabilities times their weights, of each text, (n,) float64."""
    filled = [i for i, text in enumerate(texts) if text.strip()]
    limit = min(LONGEST, tokenizer.model_max_length, room_of(network.model.config) or LONGEST)
    scores = torch.zeros(len(texts), dtype=torch.float64)
    if not filled:
        return scores
    rows = tokenizer([texts[i] for i in filled], truncation=True, max_length=limit)["input_ids"]
    with context.clock.phase("score"):
        probabilities = forward_sequences(
            label_probabilities,
            network,
            rows,
            pad_id=tokenizer.pad_token_id,
            batch=context.cfg.evaluation.batch,
            world=context.world,
        )
    scores[filled] = (probabilities @ weights).double()
    return scores
