"""The people of the tiny world: labelers who write demonstrations, annotators who rank responses.

Labelers are good but not perfect: some are hasty, chatty or grumpy, so that a model which imitates
them still has something to gain. Annotators rank by the gold utility plus their bias plus noise.
"""

from itertools import pairwise
from random import Random

from rlhf_cli.config.schema import TinyWorld
from rlhf_cli.data.records import Comparison
from rlhf_cli.tiny_world.gold import is_list, utility, words_of
from rlhf_cli.tiny_world.replies import Reply, Style
from rlhf_cli.tiny_world.task import Task

LABELERS = {
    "careful": Style(
        share=0.30, right=0.97, courteous=0.7, rude=0.0, forms={"bare": 2, "phrase": 1}
    ),
    "brisk": Style(share=0.25, right=0.95, courteous=0.05, rude=0.05, forms={"bare": 3, "list": 1}),
    "chatty": Style(
        share=0.20, right=0.9, courteous=0.4, rude=0.0, forms={"phrase": 1, "ramble": 3}
    ),
    "grumpy": Style(share=0.12, right=0.85, courteous=0.0, rude=0.7, forms={"bare": 2, "dodge": 1}),
    "hasty": Style(share=0.13, right=0.5, courteous=0.2, rude=0.05, forms={"bare": 3, "repeat": 1}),
}

UNTRAINED = {  # what a base model says
    "quizzing": Style(share=0.35, right=0.5, courteous=0.0, rude=0.05, forms={"questions": 1}),
    "rude": Style(share=0.25, right=0.5, courteous=0.0, rude=0.9, forms={"bare": 1, "dodge": 2}),
    "rambling": Style(
        share=0.25, right=0.5, courteous=0.1, rude=0.1, forms={"ramble": 1, "cut": 2}
    ),
    "plain": Style(share=0.15, right=0.6, courteous=0.1, rude=0.1, forms={"bare": 2, "repeat": 1}),
}
TUNED = {  # what a model says that chases a reward model
    "tuned": Style(
        share=1.0,
        right=0.65,
        courteous=0.75,
        rude=0.03,
        forms={"bare": 6, "phrase": 4, "list": 2, "repeat": 1, "dodge": 0.5},
    )
}
UNSURE = {  # who admits it; there is one in every group where a wrong answer has a utility of its own
    "unsure": Style(share=0.1, right=1.0, courteous=0.4, rude=0.0, forms={"abstain": 1})
}
RANKED = (LABELERS, UNTRAINED, TUNED)
RANKED_SHARES = (0.45, 0.25, 0.3)


def styles_of(group: dict[str, Style], world: TinyWorld) -> dict[str, Style]:
    """Return the styles of a group: with tiny_world.wrong some of its replies abstain.

    Otherwise no model could learn when to do so.
    """
    return group | UNSURE if world.wrong else group


def annotator_utility(task: Task, reply: Reply, world: TinyWorld) -> float:
    """Return the gold utility plus the biases shared by all annotators, without noise."""
    gold = utility(task.meta(world.wrong), reply.text, reply.finished).utility
    bias = world.length_bias * len(words_of(reply.text)) + world.format_bias * is_list(reply.text)
    return gold + bias


def rank_groups(observed: list[float], tie_margin: float) -> list[int]:
    """Return ranks, 0 is best; neighbours closer than the margin share one, so ties are transitive."""
    order = sorted(range(len(observed)), key=lambda i: -observed[i])
    ranks, rank = [0] * len(observed), 0
    for previous, i in pairwise(order):
        gap = observed[previous] - observed[i]
        rank += gap > 0 and gap >= tie_margin
        ranks[i] = rank
    return ranks


def draw_ranks(utilities: tuple[float, ...], world: TinyWorld, rng: Random) -> list[int]:
    """Return the ranks that one annotator gives to responses with these noiseless utilities."""
    return rank_groups([u + rng.gauss(0.0, world.noise) for u in utilities], world.tie_margin)


def ceiling(comparisons: list[Comparison]) -> float:
    """Return the accuracy on ranked pairs of a judge who knows the noiseless utilities: no model beats it.

    Pairs that such a judge cannot tell apart count one half.
    """
    gaps = [
        row.meta["utilities"][winner] - row.meta["utilities"][loser]
        for row in comparisons
        for winner, loser in row.better
    ]
    if not gaps:
        raise ValueError("ceiling needs at least one comparison with an untied pair")
    return sum(0.5 if gap == 0 else float(gap > 0) for gap in gaps) / len(gaps)
