"""Encoded examples of random tokens, and the gradients that a model has of them."""

import random

import torch

from rlhf_cli.config.schema import RM, Batch, Schedule, ScheduleKind, Ties
from rlhf_cli.data.encode import EncodedComparison, EncodedDemonstration
from rlhf_cli.data.records import Comparison, Demonstration, Message, Origin
from tests.support.tabular import optim
from tests.support.tiny_models import VOCAB

WHERE = Origin("made in a test", 0)


def demonstrations(count: int, seed: int = 0) -> list[EncodedDemonstration]:
    draw, found = random.Random(seed), []
    record = Demonstration((Message("user", "x"), Message("assistant", "y")), WHERE)
    for _ in range(count):
        prompt, response = draw.randint(1, 6), draw.randint(1, 9)
        ids = [draw.randrange(2, VOCAB) for _ in range(prompt + response)] + [1]
        mask = [False] * prompt + [True] * (response + 1)
        found.append(EncodedDemonstration(ids=ids, loss_mask=mask, record=record))
    return found


def assert_same(one: dict, other: dict):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.allclose(one[name], other[name], atol=2e-6, rtol=1e-4), name


def comparisons(count: int, seed: int = 0) -> list[EncodedComparison]:
    draw, found = random.Random(seed), []
    for _ in range(count):
        num = draw.randint(2, 5)
        prompt = [draw.randrange(2, VOCAB) for _ in range(draw.randint(1, 5))]
        responses = [
            [draw.randrange(2, VOCAB) for _ in range(draw.randint(1, 6))] + [1] for _ in range(num)
        ]
        better = tuple((i, j) for i in range(num) for j in range(i + 1, num))
        record = Comparison((Message("user", "x"),), ("y",) * num, better, (), WHERE)
        found.append(
            EncodedComparison(
                prompt_ids=prompt,
                response_ids=responses,
                better=better[1:],
                ties=better[:1],
                record=record,
            )
        )
    return found


def rm_config(**changes) -> RM:
    values = {
        "epochs": 1,
        "max_steps": None,
        "batch": Batch(size=10, microbatch=10, max_tokens=None),
        "members": 1,
        "ties": Ties.drop,
        "tie_param": 1.5,
        "margin": 0.0,
        "label_smoothing": 0.0,
        "center_coef": 0.0,
        "dropout": 0.0,
        "optim": optim(0.01),
        "schedule": Schedule(kind=ScheduleKind.constant, warmup=0.0, final=1.0),
    }
    return RM(**values | changes)


def summed(parts: list[dict]) -> dict:
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def gradients(engine) -> dict:
    return {n: p.grad for n, p in engine.model.named_parameters() if p.grad is not None}
