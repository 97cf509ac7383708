"""The embedded tiny world: synthetic instruction tasks with a gold utility known in closed form."""

from rlhf_cli.tiny_world.generate import ROLES, code_hash, generate, keys_of
from rlhf_cli.tiny_world.gold import Verdict, utility
from rlhf_cli.tiny_world.measures import LABELS, NOTE, UTILITY, content_of, measure_answer
from rlhf_cli.tiny_world.people import ceiling
from rlhf_cli.tiny_world.steps import check_steps
from rlhf_cli.tiny_world.tables import table_names, table_rows

__all__ = [
    "LABELS",
    "NOTE",
    "ROLES",
    "UTILITY",
    "Verdict",
    "ceiling",
    "check_steps",
    "code_hash",
    "content_of",
    "generate",
    "keys_of",
    "measure_answer",
    "table_names",
    "table_rows",
    "utility",
]
