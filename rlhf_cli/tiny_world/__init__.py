"""The embedded tiny world: synthetic instruction tasks with a gold utility known in closed form."""

from rlhf_cli.tiny_world.generate import ROLES, code_hash, generate, keys_of
from rlhf_cli.tiny_world.gold import Verdict, utility
from rlhf_cli.tiny_world.measures import LABELS, NOTE, UTILITY, measure_answer
from rlhf_cli.tiny_world.people import ceiling

__all__ = [
    "LABELS",
    "NOTE",
    "ROLES",
    "UTILITY",
    "Verdict",
    "ceiling",
    "code_hash",
    "generate",
    "keys_of",
    "measure_answer",
    "utility",
]
