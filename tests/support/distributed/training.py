"""Code that runs in the processes of test_zero.py: training, resuming, other topologies."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Runtime
from rlhf_cli.models.forward import sequence_logits
from rlhf_cli.runtime.engine import Engine, NotFinite
from rlhf_cli.runtime.world import World
from rlhf_cli.runtime.zero_loading import deepspeed_config
from tests.support.engines import (
    ALONE,
    SAVED,
    STEPS,
    everything,
    far,
    gap,
    learn,
    microbatches,
    odd,
    part_of_loss,
    plain_twin,
    runtime,
    same_bits,
    step_rows,
    trained,
    world_of,
)


def check_training(*kinds: list) -> None:
    """Check that losses, norms, weights and averages of some steps equal the plain engine's."""
    for name, dtype in kinds:
        given = runtime(name, dtype)
        world = world_of(given)
        engine, twin = trained(given, world, odd(packed=True)), plain_twin(dtype)
        begun, steps = dict(engine.weights()), [learn(engine, s, world) for s in range(STEPS)]
        if world.is_main:
            # bfloat16 takes no digits from the masters.
            assert gap(begun, dict(twin.weights())) == 0
        near = 1e-5 if dtype == "float32" else 5e-3
        assert far(steps, [learn(twin, s, ALONE) for s in range(STEPS)]) < near, (name, dtype)
        assert engine.steps == STEPS
        ended, state = dict(engine.weights()), everything(engine, world)
        if dtype == "float32":
            assert gap(state, dict(twin.state())) < 1e-4, name
        if world.is_main:
            names = [name for name, _ in engine.model.named_parameters()]
            assert all(torch.equal(ended[name], state[f"weight/{name}"]) for name in names)
        else:
            assert all(value is None for value in ended.values())
        check_not_finite(engine, world)


def check_alone(*kinds: list) -> None:
    """Check one process; keys that DeepSpeed does not know are refused."""
    check_training(*kinds)
    given = runtime("zero2")
    given.deepspeed["zero_optimization"]["stage3_nonsense"] = 1
    with pytest.raises(
        UserError, match=r"refuses stage3_nonsense in runtime\.deepspeed .*not permitted"
    ):
        deepspeed_config(given, world_of(given), torch.float32)


def check_not_finite(engine: Engine, world: World) -> None:
    """Check that a gradient that is not finite is refused and changes nothing."""
    before = everything(engine, world)
    tokens, mask = microbatches(17, world)[0]
    engine.backward(part_of_loss(engine, tokens, mask, float("nan")), last=True)
    with pytest.raises(NotFinite, match="the gradient is not finite"):
        engine.step(1.0)
    assert engine.steps == STEPS
    assert same_bits(everything(engine, world), before)


def junk(engine: Engine, world: World, *, last: bool) -> None:
    tokens, mask = microbatches(17, world)[0]
    engine.backward(part_of_loss(engine, tokens, mask, 1.0), last=last)


def check_resuming(folder: str, *kinds: list) -> None:
    """Check that saving and resuming is exact, and that discarded gradients have no effect."""
    for name, dtype in kinds:
        given = runtime(name, dtype)
        world = world_of(given)
        engine = trained(given, world, odd(packed=True))
        for step in range(STEPS):
            if step == SAVED:
                saved = everything(engine, world)
            learn(engine, step, world)
        ended = everything(engine, world)

        again = trained(given, world, odd(5, packed=True))
        again.load_state(saved.__getitem__, SAVED)
        assert same_bits(everything(again, world), saved), (name, dtype)
        for last, step in ((False, SAVED), (True, SAVED + 1)):
            junk(again, world, last=False)
            junk(again, world, last=last)
            again.discard()
            learn(again, step, world)
        assert same_bits(everything(again, world), ended), (name, dtype)
        check_average(again, ended, near=1e-5 if dtype == "float32" else 2e-2)
        if dtype == "float32":
            check_other_way(given, world, name)
        if world.is_main and dtype == "float32":
            save_file(saved, Path(folder) / f"{name}.safetensors")


def check_average(engine: Engine, state: dict[str, Tensor], *, near: float) -> None:
    """Check that use_average changes weights and forward passes, and put changes one parameter."""
    engine.use_average()
    engine.eval()
    tokens, mask = step_rows(99)
    twin = odd()
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(state[f"average/{name}"])
            assert torch.equal(engine.get(name), parameter)
        read = engine(sequence_logits, tokens, mask)
        assert float((read - sequence_logits(twin, tokens, mask)).abs().max()) < near
        put = twin.get_parameter(name).fill_(0.25)
        engine.put(name, put)
        assert torch.equal(engine.get(name), put)
        read = engine(sequence_logits, tokens, mask)
        assert float((read - sequence_logits(twin, tokens, mask)).abs().max()) < near


def check_other_way(given: Runtime, world: World, name: str) -> None:
    """Check that this engine resumes from the state of a plain engine."""
    twin = plain_twin()
    for step in range(SAVED):
        learn(twin, step, ALONE)
    state = {key: value.clone() for key, value in twin.state()}
    engine = trained(given, world, odd(6, packed=True))
    engine.load_state(state.__getitem__, SAVED)
    assert same_bits(everything(engine, world), state)
    check_keep_going(engine, world, twin, name)


def check_keep_going(engine: Engine, world: World, twin: Engine, name: str) -> None:
    steps = range(SAVED, STEPS)
    found = [learn(engine, step, world) for step in steps]
    assert far(found, [learn(twin, step, ALONE) for step in steps]) < 1e-5, name
    state = everything(engine, world) if world is not ALONE else dict(engine.state())
    assert gap(state, dict(twin.state())) < 1e-4, name


def check_moving(folder: str, *moves: list) -> None:
    """Check that a state of two processes resumes under another runtime; None: plain engine."""
    for source, name in moves:
        state = load_file(Path(folder) / f"{source}.safetensors")
        given = runtime(name)
        world = world_of(given) if name else ALONE
        engine, twin = trained(given, world, odd(7, packed=True)), plain_twin()
        for step in range(SAVED):
            learn(twin, step, ALONE)
        engine.load_state(state.__getitem__, SAVED)
        check_keep_going(engine, world, twin, f"{source} in {name}")
