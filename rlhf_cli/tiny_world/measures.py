"""What the evaluation reports of answers to the prompts of the tiny world."""

from types import MappingProxyType

from rlhf_cli.data.embedded import Content, Measure
from rlhf_cli.tiny_world.gold import utility, words_of

UTILITY = "gold"
LABELS = MappingProxyType(
    {
        "gold": "gold utility",
        "right": "right, trained",
        "right_held_out": "right, held out",
        "rude": "rude",
    }
)
NOTE = "gold: true utility of the toy task, never shown to a model; score: reward-model output"


def measure_answer(meta: dict, response: str, *, finished: bool) -> dict[str, Measure]:
    """Return utility, rightness and rudeness; rightness apart for clusters that no stage trains on."""
    verdict = utility(meta, response, finished)
    return {
        "gold": verdict.utility,
        "right": None if meta["held_out"] else verdict.right,
        "right_held_out": verdict.right if meta["held_out"] else None,
        "rude": verdict.rude,
    }


def content_of(meta: dict, response: str) -> Content:
    """Return what an answer contains; members of a list count in any order."""
    verdict, many = utility(meta, response, finished=True), meta["count"] > 0
    named = sorted(set(words_of(response)) & set(meta["members"]))
    form = ", ".join(named) if many else meta["answer"]
    return Content(right=form if verdict.right else None, abstains=verdict.abstains, many=many)
