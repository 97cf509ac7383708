"""Prompts with several continuations, and their log-probs one at a time."""

import torch

from rlhf_cli.evaluation.likelihood import Continuation

# Options that begin alike, one that another begins with, of several lengths; 1 is the end token.
OPTIONS = ([5, 6, 1], [5, 6, 7, 1], [5, 8, 9, 10, 1], [1])
PROMPTS = ([11, 12, 13], [14], [11, 12, 15, 16, 17, 18], [20, 21, 22])


@torch.no_grad()
def by_itself(model, row: Continuation) -> float:
    """Return the sum of the log-probs of a forward pass over this prompt and response alone."""
    tokens = torch.tensor([row.prompt_ids + row.ids])
    logprobs = model(input_ids=tokens).logits[0].double().log_softmax(-1)
    first = len(row.prompt_ids)
    return sum(float(logprobs[first + i - 1, token]) for i, token in enumerate(row.ids))
