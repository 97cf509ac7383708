"""How many positions a model has by its configuration, and whether prompts and responses fit. No torch."""

from collections.abc import Mapping
from typing import Any

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Data

# Under these names the configurations of models hold their number of positions.
NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")


def num_positions(config: Mapping[str, Any]) -> int | None:
    """Return how many positions the model knows; None where its config.json names no limit."""
    text = config.get("text_config") or config
    found = (text.get(name) for name in NAMES)
    return next((num for num in found if isinstance(num, int) and num > 0), None)


def require_positions(num: int | None, data: Data, *, who: str = "the model") -> None:
    """Refuse a prompt and response limit beyond the positions that the model has."""
    wanted = data.max_prompt_tokens + data.max_response_tokens
    if num is not None and wanted > num:
        raise UserError(
            f"data.max_prompt_tokens={data.max_prompt_tokens} and data.max_response_tokens="
            f"{data.max_response_tokens} make {wanted} tokens, but {who} has {num} positions: "
            "lower one of them"
        )
