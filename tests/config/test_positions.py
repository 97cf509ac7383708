"""Number of positions by a config.json, and the texts that fit."""

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.positions import num_positions, require_positions
from tests.support.configuration import composed


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 256}, 256),
        ({"n_positions": 1024, "n_layer": 12}, 1024),
        ({"text_config": {"max_position_embeddings": 64}, "max_position_embeddings": 8}, 64),
        ({"max_position_embeddings": -1, "max_seq_len": 128}, 128),
        ({"hidden_size": 64}, None),
        ({}, None),
    ],
)
def test_the_positions_of_a_configuration(config, expected):
    assert num_positions(config) == expected


def test_texts_of_all_positions_fit_and_one_token_more_does_not():
    data = composed().data
    wanted = data.max_prompt_tokens + data.max_response_tokens
    require_positions(wanted, data)
    require_positions(None, data)
    with pytest.raises(UserError, match=f"make {wanted} tokens, but the judge has {wanted - 1} po"):
        require_positions(wanted - 1, data, who="the judge")
