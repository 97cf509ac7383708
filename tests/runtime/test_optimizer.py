"""The engine that trains a model: AdamW, average of the weights, saved state, several processes."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from rlhf_cli.config.schema import Optim
from rlhf_cli.core.microbatches import Share
from rlhf_cli.runtime import factory
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.runtime.factory import open_engine
from rlhf_cli.runtime.world import World
from tests.support.tabular import CPU, runtime

ALONE = World()


class Small(nn.Module):
    """A matrix and a gain; the loss of `learn` has known gradients."""

    def __init__(self, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.matrix = nn.Parameter(torch.randn(2, 3, generator=generator))
        self.gain = nn.Parameter(torch.randn(3, generator=generator))


SETTINGS = Optim(lr=0.1, betas=[0.6, 0.7], eps=0.3, weight_decay=0.4, grad_clip=1.5)
LENGTH = 3.0  # of the gradient, over all parameters


def gradients(step: int) -> dict[str, torch.Tensor]:
    """Return the gradients of a step, with the norm LENGTH over all parameters."""
    torch.manual_seed(step)
    found = {"matrix": torch.randn(2, 3), "gain": torch.randn(3)}
    norm = torch.cat([gradient.flatten() for gradient in found.values()]).norm()
    return {name: gradient * LENGTH / norm for name, gradient in found.items()}


def learn(engine: Engine, step: int, factor: float = 1.0) -> float:
    for name, gradient in gradients(step).items():  # in two parts, as two microbatches
        loss = (engine.model.get_parameter(name) * gradient).sum()
        engine.backward(loss, last=name == "gain")
    return engine.step(factor)


def new_engine(
    seed: int = 0, world: World = ALONE, ema_decay: float | None = 0.8, **changes
) -> Engine:
    return open_engine(
        Small(seed), optim=replace(SETTINGS, **changes), device=CPU, world=world,
        runtime=runtime(), ema_decay=ema_decay,
    )  # fmt: skip


def adamw_by_hand(name: str, factors: list[float], *, clip: float | None) -> list[torch.Tensor]:
    """Return the parameter after every step (Loshchilov & Hutter 2019, Algorithm 2), in float64."""
    value = Small().get_parameter(name).detach().double()
    first = second = torch.zeros_like(value)
    decay, (beta1, beta2) = SETTINGS.weight_decay * (name == "matrix"), SETTINGS.betas
    found = []
    for step, factor in enumerate(factors, start=1):
        gradient = gradients(step)[name].double() * min(1.0, (clip or LENGTH) / LENGTH)
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient.square()
        move = (first / (1 - beta1**step)) / ((second / (1 - beta2**step)).sqrt() + SETTINGS.eps)
        value = value - SETTINGS.lr * factor * (move + decay * value)
        found.append(value)
    return found


def is_close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return torch.allclose(found.detach().double(), wanted.double(), atol=1e-5)


@pytest.mark.parametrize("clip", [1.5, None])
def test_a_step_equals_adamw_computed_by_hand(clip):
    """Every setting acts: learning rate, factor, betas, eps, clipping; only the matrix decays."""
    engine, factors = new_engine(grad_clip=clip), [1.0, 0.5, 0.25]
    assert [learn(engine, n, f) for n, f in enumerate(factors, 1)] == pytest.approx([LENGTH] * 3)
    for name in ("matrix", "gain"):
        wanted = adamw_by_hand(name, factors, clip=clip)[-1]
        assert is_close(engine.get(name), wanted)


def test_the_average_is_exponential_and_use_average_makes_it_the_weights():
    engine = new_engine()
    for step in (1, 2, 3):
        learn(engine, step)
    for name in ("matrix", "gain"):
        average = Small().get_parameter(name).detach().double()
        for value in adamw_by_hand(name, [1.0] * 3, clip=1.5):
            average = 0.8 * average + 0.2 * value
        assert not is_close(engine.get(name), average)
        kept = dict(engine.state())[f"average/{name}"]
        assert is_close(kept, average)
    engine.use_average()
    for name, value in engine.weights():
        assert is_close(value, dict(engine.state())[f"average/{name}"])


def test_without_a_decay_there_is_no_average():
    engine = new_engine(ema_decay=None)
    learn(engine, 1)
    before = engine.get("matrix")
    engine.use_average()
    assert torch.equal(engine.get("matrix"), before)
    assert not [name for name, _ in engine.state() if name.startswith("average/")]


def test_training_resumed_from_a_saved_state_is_exact():
    engine, other = new_engine(), new_engine(seed=9)
    for step in (1, 2):
        learn(engine, step)
    kept = {name: value.clone() for name, value in engine.state()}
    other.load_state(kept.__getitem__, 2)
    for step in (3, 4):
        learn(engine, step)
        learn(other, step)
    assert other.steps == engine.steps == 4
    found, wanted = dict(other.state()), dict(engine.state())
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_discarded_gradients_do_not_affect_the_next_step():
    engine, other = new_engine(), new_engine()
    engine.backward((engine.model.matrix * 7).sum(), last=True)
    engine.discard()
    assert learn(engine, 1) == learn(other, 1)
    assert torch.equal(engine.get("matrix"), other.get("matrix"))


def test_each_rank_saves_its_own_share_of_the_state():
    shares = [dict(new_engine(world=World(Share(rank, 2))).state()) for rank in range(2)]
    assert all(shares)
    assert not shares[0].keys() & shares[1].keys()
    assert shares[0].keys() | shares[1].keys() == dict(new_engine().state()).keys()


class IdenticalRanks(World):
    """A process group of two whose ranks hold equal tensors."""

    def all_reduce(self, values):
        return 2 * values


def test_gradients_are_summed_over_the_processes(monkeypatch):
    """The sum holds also when the buckets are smaller than a parameter."""
    monkeypatch.setattr(factory, "BUCKET", 4)
    engine, alone = (
        new_engine(world=IdenticalRanks(Share(0, 2)), grad_clip=None),
        new_engine(grad_clip=None),
    )
    for name, gradient in gradients(1).items():
        alone.backward((alone.model.get_parameter(name) * 2 * gradient).sum(), last=True)
    assert learn(engine, 1) == pytest.approx(alone.step(1.0)) == pytest.approx(2 * LENGTH)
    assert is_close(engine.get("matrix"), alone.get("matrix"))
    assert is_close(engine.get("gain"), alone.get("gain"))
