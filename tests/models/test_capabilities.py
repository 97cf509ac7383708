"""Models that no stage can train are refused by their behaviour, not by their type."""

import pytest
import torch

from rlhf_cli.config.errors import UserError
from rlhf_cli.models.capabilities import require_causal
from tests.support.tiny_models import causal


def random_output(module, inputs, output):
    return output + 0.1 * torch.randn_like(output)


def random_output_in_training(module, inputs, output):
    return random_output(module, inputs, output) if module.training else output


def reads_later_tokens(module, inputs, output):
    return output + output.mean(dim=1, keepdim=True)


def reads_the_last_column(module, inputs, output):
    return (
        output + output[:, -1:] if len(output) > 1 else output
    )  # padding, except for a text that is read alone


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (random_output, "it predicts something else each time it reads a text"),
        (
            random_output_in_training,
            "in training it predicts something else, though every dropout is 0",
        ),
        (reads_later_tokens, "depends on later tokens: it is no causal language model"),
        (reads_the_last_column, "depends on the padding behind a text"),
    ],
)
def test_models_that_cannot_be_trained_are_refused_by_their_behaviour(fault, expected):
    model = causal("llama").eval()
    require_causal(model)
    model.model.norm.register_forward_hook(fault)
    with pytest.raises(UserError, match=expected):
        require_causal(model)
    assert not model.training
