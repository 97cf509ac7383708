"""Models that no stage can learn from are refused by what they do, whatever they are called."""

import pytest
import torch

from rlhf_cli.config.errors import UserError
from rlhf_cli.models.capabilities import require_causal
from tests.support.tiny_models import causal


def draws(module, inputs, output):
    return output + 0.1 * torch.randn_like(output)


def draws_in_training(module, inputs, output):
    return draws(module, inputs, output) if module.training else output


def looks_ahead(module, inputs, output):
    return output + output.mean(dim=1, keepdim=True)


def looks_at_the_last_column(module, inputs, output):
    return output + output[:, -1:] if len(output) > 1 else output  # padding, but in a text alone


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (draws, "it predicts something else each time it reads a text"),
        (draws_in_training, "in training it predicts something else, though every dropout is 0"),
        (looks_ahead, "depends on later tokens: it is no causal language model"),
        (looks_at_the_last_column, "depends on the padding behind a text"),
    ],
)
def test_what_a_model_does_decides_and_not_its_name(fault, said):
    model = causal("llama").eval()
    require_causal(model)
    model.model.norm.register_forward_hook(fault)
    with pytest.raises(UserError, match=said):
        require_causal(model)
    assert not model.training
