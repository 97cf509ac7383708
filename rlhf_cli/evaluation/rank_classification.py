"""Rank classification: of the options of a question the one that the model finds likeliest.

The log-prob of an option is that of its tokens and the end token, so that an option which another one
begins with is no likelier for that (FLAN, section 2.3, sums without a normalisation by length).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_cli.evaluation.likelihood import Continuation, log_likelihoods
from rlhf_cli.runtime.engine import Network
from rlhf_cli.runtime.world import World


@dataclass(slots=True, frozen=True, kw_only=True)
class Choice:
    """A question with its options as texts and as tokens, end token included."""

    prompt_ids: list[int]
    options: tuple[str, ...]
    option_ids: tuple[list[int], ...]


def rank(
    network: Network,
    choices: Sequence[Choice],
    *,
    empty_prompt: list[int],
    pad_id: int,
    batch: int,
    world: World,
) -> list[dict[str, int]]:
    """Return for each choice {way to rank: index of the option that it puts first}.

    sum: of the log-probs; token, byte: divided by the tokens or by the bytes of the text; prior: minus
    the log-prob of the option after `empty_prompt`. Of equal options the first one is taken.
    """
    rows = [
        Continuation(prompt_ids=choice.prompt_ids, ids=ids)
        for choice in choices
        for ids in choice.option_ids
    ]
    alone = {tuple(row.ids): Continuation(prompt_ids=empty_prompt, ids=row.ids) for row in rows}
    settings = {"pad_id": pad_id, "batch": batch, "world": world}
    found = iter(log_likelihoods(network, rows, **settings).tolist())
    priors = log_likelihoods(network, list(alone.values()), **settings).tolist()
    prior_of = dict(zip(alone, priors, strict=True))
    return [
        firsts(
            choice,
            [next(found) for _ in choice.options],
            [prior_of[tuple(ids)] for ids in choice.option_ids],
        )
        for choice in choices
    ]


def firsts(choice: Choice, logprobs: list[float], priors: list[float]) -> dict[str, int]:
    """Return the first of the best options by each way to rank."""
    num_tokens = [len(ids) for ids in choice.option_ids]
    num_bytes = [len(text.encode()) for text in choice.options]
    scores = {
        "sum": logprobs,
        "token": [x / num for x, num in zip(logprobs, num_tokens, strict=True)],
        "byte": [x / num for x, num in zip(logprobs, num_bytes, strict=True)],
        "prior": [x - prior for x, prior in zip(logprobs, priors, strict=True)],
    }
    return {way: found.index(max(found)) for way, found in scores.items()}
