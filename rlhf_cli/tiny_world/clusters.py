"""The table of task clusters.

HELD_OUT clusters occur in the pretraining text and in evaluation prompts, never in training data.
"""

from random import Random

from rlhf_cli.tiny_world.knowledge import arithmetic, facts, opposites, towns, translation
from rlhf_cli.tiny_world.reading import entailment, list_, options, rewrite, sentiment
from rlhf_cli.tiny_world.task import Task

TRAINED = {
    "facts": facts,
    "opposites": opposites,
    "arithmetic": arithmetic,
    "sentiment": sentiment,
    "options": options,
    "translation": translation,
    "rewrite": rewrite,
    "list": list_,
}
HELD_OUT = {"towns": towns, "entailment": entailment}
CLUSTERS = TRAINED | HELD_OUT


def draw(clusters: dict, rng: Random) -> Task:
    """Return a task of a uniformly drawn cluster."""
    return clusters[rng.choice(tuple(clusters))](rng)


def draw_different(clusters: dict, num: int, rng: Random) -> list[Task]:
    """Return `num` tasks with different prompts; repeats only once the clusters have no more to give."""
    tasks, seen, attempts = [], set(), 0
    while len(tasks) < num:
        task, attempts = draw(clusters, rng), attempts + 1
        if task.prompt not in seen or attempts > 50 * num:
            seen.add(task.prompt)
            tasks.append(task)
    return tasks
