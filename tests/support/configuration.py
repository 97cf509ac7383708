"""Configurations of a command line."""

from copy import deepcopy
from functools import cache

from rlhf_cli.config.command_line import compose_each
from rlhf_cli.config.schema.run import Config


@cache
def _composed(words: tuple[str, ...]) -> Config:
    found: list[Config] = []
    compose_each(list(words), found.append)
    return found[0]


def composed(*words: str) -> Config:
    """Return the configuration of a command line, composed once because that is slow."""
    return deepcopy(_composed(words))
