"""What runs in the processes of test_zero.py: small models under some engine against plain ones.

A test names the file of conf/runtime whose dictionary it trains with; buckets are made so small that
even a tiny model fills several.
"""

import json
from pathlib import Path

import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlhf_cli.config.schema import Gather, LearningRates, Model, Optim, Runtime
from rlhf_cli.core.logprobs import token_logprobs
from rlhf_cli.models.loading import fit_tokens, freeze, load_causal_lm, load_scalar_model
from rlhf_cli.models.reward import HEAD, fresh_head
from rlhf_cli.models.sampling import sample
from rlhf_cli.models.scoring import sequence_logits, sequence_scores, token_scores
from rlhf_cli.runtime.device import pick_device
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.runtime.opening import loading, open_engine, open_network
from rlhf_cli.runtime.world import World, open_world
from tests.models.tiny import causal, ragged, scalar

CONF = Path(__file__).resolve().parents[2] / "conf" / "runtime"
SMALL = {
    "reduce_bucket_size": 500,
    "allgather_bucket_size": 500,
    "stage3_prefetch_bucket_size": 1000,
    "stage3_param_persistence_threshold": 20,
}
EMA = 0.9
STEPS, SAVED = 4, 2
ALONE = World()
ENDS = [1, 2, 3, 4, 5, 6]


def runtime(name: str | None, dtype: str = "float32", gather: str = "auto") -> Runtime:
    given = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))["deepspeed"] if name else None
    if given:
        zero = given["zero_optimization"]
        zero |= {key: size for key, size in SMALL.items() if key in zero}
    return Runtime(
        device="cpu",
        dtype=dtype,
        num_threads=1,
        num_processes=None,
        gather=Gather[gather],
        timeout=60,
        deepspeed=given,
    )


def world_of(given: Runtime) -> World:
    return open_world(pick_device(given).torch, timeout=60, grouped=True)


def optim(grad_clip: float | None = 0.5) -> Optim:
    return Optim(lr=0.01, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.1, grad_clip=grad_clip)


def trained(given: Runtime, world: World, model, *, clip: float | None = 0.5) -> Engine:
    return open_engine(
        model,
        optim=optim(clip),
        device=pick_device(given),
        world=world,
        runtime=given,
        ema_decay=EMA,
    )


def microbatches(step: int, world: World) -> list[tuple[Tensor, Tensor]]:
    """This process's rows, one by one; where others have one more, a row that counts for nothing."""
    tokens, mask = step_rows(step)
    mine = [(t[None], m[None]) for t, m in zip(world.share.of(tokens), world.share.of(mask), strict=True)]
    empty = (tokens[:1], torch.zeros_like(mask[:1]))
    return mine + [empty] * (-(-len(tokens) // world.size) - len(mine))


def step_rows(step: int) -> tuple[Tensor, Tensor]:
    return ragged(5 if step % 2 else 4, 9, side="right", seed=step)


def part_of_loss(engine: Engine, tokens: Tensor, mask: Tensor, count: float) -> Tensor:
    logits = engine(sequence_logits, tokens, mask)
    taken = token_logprobs(logits[:, :-1], tokens[:, 1:], temperature=1.0)
    return -(taken * mask[:, 1:]).sum() / count


def learn(engine: Engine, step: int, world: World) -> tuple[float, float]:
    """One optimizer step: the loss over all processes, and the gradient norm."""
    engine.train()
    count, total = float(step_rows(step)[1][:, 1:].sum()), 0.0
    batches = microbatches(step, world)
    for number, (tokens, mask) in enumerate(batches, start=1):
        loss = part_of_loss(engine, tokens, mask, count)
        total += float(loss.detach())
        engine.backward(loss, last=number == len(batches))
    norm = engine.step(1.0 / (1 + step))
    return world.totals({"loss": total})["loss"], norm


def everything(engine: Engine, world: World) -> dict[str, Tensor]:
    """What all processes tell of the state, together; none tells what another told."""
    parts = [None] * world.size
    dist.all_gather_object(parts, dict(engine.state()))
    assert sum(len(part) for part in parts) == len({name for part in parts for name in part})
    return {name: value for part in parts for name, value in part.items()}


def gap(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest difference; names, shapes, dtypes and places must be equal."""
    assert sorted(found) == sorted(wanted)
    for name, value in found.items():
        assert value.shape == wanted[name].shape and value.dtype == wanted[name].dtype, name
        assert value.device.type == "cpu"
    return max(float((found[name] - wanted[name]).abs().max()) for name in found)


def same_bits(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    assert sorted(found) == sorted(wanted)
    return all(torch.equal(found[n].view(torch.int32), wanted[n].view(torch.int32)) for n in found)


def far(found, wanted) -> float:
    return max(abs(a - b) for one, two in zip(found, wanted, strict=True) for a, b in zip(one, two))


def check_training(*kinds: list) -> None:
    """Losses, norms, weights and averages of some steps are the plain engine's."""
    for name, dtype in kinds:
        given = runtime(name, dtype)
        world = world_of(given)
        engine, twin = trained(given, world, causal("llama")), plain_twin(dtype)
        begun, steps = dict(engine.weights()), [learn(engine, s, world) for s in range(STEPS)]
        if world.is_main:
            assert gap(begun, dict(twin.weights())) == 0  # bfloat16 takes no digits from the masters
        near = 1e-5 if dtype == "float32" else 5e-3
        assert far(steps, [learn(twin, s, ALONE) for s in range(STEPS)]) < near, (name, dtype)
        assert engine.steps == STEPS
        ended, state = dict(engine.weights()), everything(engine, world)
        if dtype == "float32":
            assert gap(state, dict(twin.state())) < 1e-4, name
        if world.is_main:
            assert all(torch.equal(ended[n], state[f"weight/{n}"]) for n, _ in engine.model.named_parameters())
        else:
            assert all(value is None for value in ended.values())


def plain_twin(dtype: str = "float32", seed: int = 0) -> Engine:
    return trained(runtime(None, dtype), ALONE, causal("llama", seed=seed))


def junk(engine: Engine, world: World, *, last: bool) -> None:
    tokens, mask = microbatches(17, world)[0]
    engine.backward(part_of_loss(engine, tokens, mask, 1.0), last=last)


def check_resuming(folder: str, *kinds: list) -> None:
    """Save and load is exact, training goes on bit for bit, and discarded gradients leave no trace."""
    for name, dtype in kinds:
        given = runtime(name, dtype)
        world = world_of(given)
        engine = trained(given, world, causal("llama"))
        for step in range(STEPS):
            if step == SAVED:
                saved = everything(engine, world)
            learn(engine, step, world)
        ended = everything(engine, world)

        again = trained(given, world, causal("llama", seed=5))
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
        if world.is_main:
            save_file(saved, Path(folder) / f"{name}-{dtype}.safetensors")


def check_average(engine: Engine, state: dict[str, Tensor], *, near: float) -> None:
    """use_average changes what is told and what forwards read; put changes one parameter."""
    engine.use_average()
    engine.eval()
    tokens, mask = step_rows(99)
    twin = causal("llama")
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
    """A plain engine's state goes on under this one."""
    twin = plain_twin()
    for step in range(SAVED):
        learn(twin, step, ALONE)
    state = {key: value.clone() for key, value in twin.state()}
    engine = trained(given, world, causal("llama", seed=6))
    engine.load_state(state.__getitem__, SAVED)
    assert same_bits(everything(engine, world), state)
    check_going_on(engine, world, twin, name)


def check_going_on(engine: Engine, world: World, twin: Engine, name: str) -> None:
    steps = range(SAVED, STEPS)
    found = [learn(engine, step, world) for step in steps]
    assert far(found, [learn(twin, step, ALONE) for step in steps]) < 1e-5, name
    state = everything(engine, world) if world is not ALONE else dict(engine.state())
    assert gap(state, dict(twin.state())) < 1e-4, name


def check_moving(folder: str, *names: str | None) -> None:
    """States that other topologies wrote into `folder` go on here. None: the plain engine."""
    for path in sorted(Path(folder).glob("*-float32.safetensors")):
        state = load_file(path)
        for name in names:
            given = runtime(name)
            world = world_of(given) if name else ALONE
            engine, twin = trained(given, world, causal("llama", seed=7)), plain_twin()
            for step in range(SAVED):
                learn(twin, step, ALONE)
            engine.load_state(state.__getitem__, SAVED)
            check_going_on(engine, world, twin, f"{path.name} in {name}")


def respond(network: Network, world: World, seed: int):
    prompts, mask = ragged(6, 5, side="left", seed=seed)
    uniforms = torch.rand(6, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mine = (world.share.of(x) for x in (prompts, mask, uniforms))
    with network.generating() as model:
        return sample(
            model, *mine, end_ids=ENDS, pad_id=0, temperature=1.0, going_on=network.going_on
        )


def check_same_responses(network: Network, world: World, model, seed: int) -> None:
    """Token for token the plain model's, though the processes finish at different lengths."""
    network.model.eval()
    device = pick_device(runtime(None))
    whole = respond(Network(model.eval(), device=device), ALONE, seed)
    found = respond(network, world, seed)
    mask = world.share.of(whole.mask)
    width = int(mask.sum(1).max())
    widths = torch.zeros(world.size)
    widths[world.rank] = width
    assert world.size == 1 or len(world.sum(widths).unique()) > 1
    assert torch.equal(found.mask, mask[:, :width])
    assert torch.equal(found.responses * found.mask, (world.share.of(whole.responses) * mask)[:, :width])


def hooks_of(network: Network) -> list:
    """All hooks in the order in which they fire."""
    return [
        list(hooks.values())
        for module in network.zero.module.modules()
        for hooks in (module._forward_pre_hooks, module._forward_hooks)
    ]


def check_generating(*kinds: list) -> None:
    """Responses, then training, then responses again; an exception leaves everything as it was."""
    for name, architecture, gather in kinds:
        given = runtime(name, gather=gather)
        world = world_of(given)
        engine, twin = (trained(given, world, causal(architecture)), None)
        twin = trained(runtime(None), ALONE, causal(architecture))
        frozen = freeze(causal(architecture, seed=3))
        network = open_network(frozen, device=engine.device, world=world, runtime=given)
        hooks = hooks_of(engine)
        for step in range(2):
            near = far([learn(engine, step, world)], [learn(twin, step, ALONE)])
            assert near < 1e-5, (name, architecture, gather)
            twin.load_state(everything(engine, world).__getitem__, step + 1)
            check_same_responses(engine, world, twin.model, seed=3)
            check_same_responses(network, world, causal(architecture, seed=3), seed=3)
        try:
            with engine.generating():
                raise KeyError("on purpose")
        except KeyError:
            assert hooks_of(engine) == hooks
        assert far([learn(engine, 2, world)], [learn(twin, 2, ALONE)]) < 1e-5
        check_plan(engine, gather)


def check_plan(engine: Engine, gather: str) -> None:
    plan = engine.plan()
    assert ("in step" in plan) == (gather == "never") and "GiB" in plan
    assert (f"gather={gather}" in plan) == (gather != "auto") and "\n" not in plan
    assert engine.going_on(True) and not engine.going_on(False)


def model_conf(folder: Path, *, checkpointing: bool) -> Model:
    return Model(
        path=str(folder),
        revision=None,
        tokenizer=None,
        trust_remote_code=False,
        attention="sdpa",
        gradient_checkpointing=checkpointing,
        lr=LearningRates(sft=1, rm=1, policy=1, value=1),
    )


def players(given: Runtime, world: World, folder: Path, *, checkpointing: bool) -> list[Network]:
    """Policy (with five tokens more), value model (with a new head), reference, reward model."""
    dtype = pick_device(given).dtype

    def load(kind, name: str, grown: int | None = None, frozen: bool = False):
        torch.manual_seed(3)
        asked = dtype if frozen else torch.float32
        conf = model_conf(folder / name, checkpointing=checkpointing and not frozen)
        with loading(given, world, asked):
            model = kind(conf, str(folder / name), dtype=asked)
            if grown:
                fit_tokens(model, grown)
        if frozen:
            return open_network(freeze(model), device=pick_device(given), world=world, runtime=given)
        return trained(given, world, model, clip=None if kind is load_scalar_model else 0.5)

    value = load(load_scalar_model, "causal")
    value.put(HEAD, fresh_head(value.get(HEAD).shape, seed=4))
    return [
        load(load_causal_lm, "causal", grown=45),
        value,
        load(load_causal_lm, "causal", grown=45, frozen=True),
        load(load_scalar_model, "scalar", frozen=True),
    ]


def iteration(cast: list[Network], world: World, number: int) -> tuple[list[float], Tensor]:
    """As PPO does: score without gradients, then two minibatches that step both engines in turn."""
    policy, value, ref, reward = cast
    tokens, mask = (world.share.of(x) for x in ragged(4, 10, side="right", seed=50 + number))
    policy.eval()
    value.eval()
    with torch.no_grad():
        seen = [policy(sequence_logits, tokens, mask), ref(sequence_logits, tokens, mask)]
        scores, values = reward(sequence_scores, tokens, mask), value(token_scores, tokens, mask)
    assert scores.dtype == values.dtype == torch.float32
    numbers = []
    policy.train()
    value.train()
    for _ in range(2):
        total = 0.0
        for row in range(len(tokens)):
            one, real, last = tokens[row : row + 1], mask[row : row + 1], row == len(tokens) - 1
            loss = part_of_loss(policy, one, real, 20)
            policy.backward(loss, last=last)
            error = value(token_scores, one, real) - scores[row]
            spread = (error.square() * real).sum() / 20
            value.backward(spread, last=last)
            total += float(loss.detach()) + float(spread.detach())
        numbers += [world.totals({"loss": total})["loss"], policy.step(1.0), value.step(0.5)]
    told = [float(x.double().sum()) for x in (*seen, scores, values)]
    return [*numbers, *world.totals(dict(enumerate(told))).values()], scores


def check_players(folder: str, *kinds: list) -> None:
    """Four networks in one process, sharded while they are read, against four plain ones."""
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    for name, dtype, architecture, near in kinds:
        given = runtime(name, dtype)
        world = world_of(given)
        place = Path(folder) / architecture
        if world.is_main and not place.exists():
            causal(architecture, seed=1, sharpness=3).save_pretrained(place / "causal")
            scalar(architecture, seed=2, sharpness=3).save_pretrained(place / "scalar")
        world.barrier()
        cast = players(given, world, place, checkpointing=True)
        assert not is_deepspeed_zero3_enabled()
        twins = players(runtime(None, dtype), ALONE, place, checkpointing=False)
        told = [dict(network.weights()) for network in cast[:2]]
        if world.is_main:
            for weights, twin in zip(told, twins, strict=False):
                assert gap(weights, dict(twin.weights())) == 0, name
        for number in range(3):
            found, scores = iteration(cast, world, number)
            wanted, wanted_scores = iteration(twins, ALONE, number)
            worst = max(abs(a - b) / (1 + abs(b)) for a, b in zip(found, wanted, strict=True))
            print(json.dumps([name, dtype, architecture, number, worst]))
            assert worst < near
            assert (scores - world.share.of(wanted_scores)).abs().max() < 100 * near
