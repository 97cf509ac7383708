"""Records of the tiny world, a pure function of the role, the settings and the seed."""

import hashlib
from pathlib import Path
from random import Random

from rlhf_cli.config.schema import TinyWorld
from rlhf_cli.data.records import Comparison, Demonstration, Message, Origin, Prompt
from rlhf_cli.tiny_world.clusters import HELD_OUT, TRAINED, draw_different
from rlhf_cli.tiny_world.people import (
    LABELERS,
    RANKED,
    RANKED_SHARES,
    annotator_utility,
    draw_ranks,
    styles_of,
)
from rlhf_cli.tiny_world.pretraining import document
from rlhf_cli.tiny_world.replies import Reply, choose_style, reply
from rlhf_cli.tiny_world.task import Task


def _demonstration(task: Task, origin: Origin, world: TinyWorld, rng: Random) -> Demonstration:
    text = reply(task, choose_style(styles_of(LABELERS, world), rng), rng).text
    messages = (Message("user", task.prompt), Message("assistant", text))
    return Demonstration(messages=messages, origin=origin, meta=task.meta(world.wrong))


def _responses(task: Task, num: int, world: TinyWorld, rng: Random) -> tuple[Reply, ...]:
    """Return `num` different replies such as untrained, imitating and tuned models give."""
    replies = {}
    while len(replies) < num:
        group = rng.choices(RANKED, RANKED_SHARES)[0]
        said = reply(task, choose_style(styles_of(group, world), rng), rng)
        replies.setdefault(said.text, said)
    return tuple(replies.values())


def _comparison(task: Task, origin: Origin, world: TinyWorld, rng: Random) -> Comparison:
    replies = _responses(task, rng.randint(*world.completions), world, rng)
    utilities = tuple(annotator_utility(task, said, world) for said in replies)
    ranks = draw_ranks(utilities, world, rng)
    pairs = [(i, j) for i in range(len(ranks)) for j in range(len(ranks)) if i != j]
    return Comparison(
        prompt=(Message("user", task.prompt),),
        responses=tuple(said.text for said in replies),
        better=tuple((i, j) for i, j in pairs if ranks[i] < ranks[j]),
        ties=tuple((i, j) for i, j in pairs if ranks[i] == ranks[j] and i < j),
        origin=origin,
        meta=task.meta(world.wrong) | {"utilities": utilities},
    )


def _demonstrations(world: TinyWorld, rng: Random) -> list[Demonstration]:
    tasks = draw_different(TRAINED, world.demonstrations, rng)
    return [
        _demonstration(t, Origin("tiny_world:demonstrations", i), world, rng)
        for i, t in enumerate(tasks)
    ]


def _comparisons(world: TinyWorld, rng: Random) -> list[Comparison]:
    tasks = draw_different(TRAINED, world.comparisons, rng)
    return [
        _comparison(t, Origin("tiny_world:comparisons", i), world, rng) for i, t in enumerate(tasks)
    ]


def _prompts(world: TinyWorld, rng: Random) -> list[Prompt]:
    """Return prompts of the trained clusters, then those of the held-out ones, marked for evaluation."""
    tasks = draw_different(TRAINED, world.prompts, rng)
    tasks += draw_different(HELD_OUT, world.held_out_prompts, rng)
    return [
        Prompt(
            messages=(Message("user", task.prompt),),
            origin=Origin("tiny_world:prompts", row),
            meta=task.meta(world.wrong),
        )
        for row, task in enumerate(tasks)
    ]


def _pretraining(world: TinyWorld, rng: Random) -> list[Demonstration]:
    return [
        Demonstration(
            messages=(Message("text", document(rng)),),
            origin=Origin("tiny_world:pretraining", row),
            meta={},
        )
        for row in range(world.pretraining)
    ]


ROLES = {
    "demonstrations": _demonstrations,
    "comparisons": _comparisons,
    "prompts": _prompts,
    "pretraining": _pretraining,
}
SETTINGS = {
    "demonstrations": ("demonstrations", "wrong"),
    "comparisons": (
        "comparisons", "completions", "noise", "tie_margin", "length_bias", "format_bias",
        "wrong",
    ),
    "prompts": ("prompts", "held_out_prompts", "wrong"),
    "pretraining": ("pretraining",),
}  # fmt: skip
NOT_HASHED = (
    "__init__.py",
    "base_model.py",
    "base_text.py",
    "measures.py",
)  # no record depends on them


def generate(role: str, *, settings: TinyWorld, seed: int) -> list:
    """Return all records of a role; the same settings and seed give the same records on any machine."""
    if role not in ROLES:
        raise ValueError(
            f"tiny_world:{role} is not one of " + ", ".join(f"tiny_world:{r}" for r in ROLES)
        )
    return ROLES[role](settings, Random(f"{seed}/{role}"))


def keys_of(role: str) -> tuple[str, ...]:
    """Return the settings that the records of a role depend on, beside the seed."""
    return SETTINGS.get(role, ())


def code_hash() -> str:
    """Return the sha256 of the code that decides the records, beside settings and seed."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.name not in NOT_HASHED:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
