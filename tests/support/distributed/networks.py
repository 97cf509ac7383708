"""Code that runs in the processes of test_zero.py: generating, and the four networks of PPO."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from rlhf_cli.config.schema import LearningRates, Model, Runtime
from rlhf_cli.models.forward import sequence_logits, sequence_scores, token_scores
from rlhf_cli.models.generation.sampling import SamplingParams, sample
from rlhf_cli.models.load import freeze, load_causal_lm, load_scalar_model
from rlhf_cli.models.reward_head import HEAD, draw_head
from rlhf_cli.models.unpadding.attention import enable_unpadding
from rlhf_cli.runtime.device import pick_device
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.runtime.factory import model_loading, open_network
from rlhf_cli.runtime.world import World
from tests.support.engines import (
    ALONE,
    everything,
    far,
    gap,
    learn,
    part_of_loss,
    runtime,
    trained,
    world_of,
)
from tests.support.tiny_models import causal, ragged, scalar

PARAMS = SamplingParams(max_new_tokens=9, temperature=1.0, end_ids=[1, 2, 3, 4, 5, 6], pad_id=0)


def respond(network: Network, world: World, seed: int):
    prompts, mask = ragged(6, 5, side="left", seed=seed)
    uniforms = torch.rand(6, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mine = (world.share.of(x) for x in (prompts, mask, uniforms))
    with network.generating() as model:
        return sample(model, *mine, PARAMS, keep_going=network.keep_going)


def check_same_responses(network: Network, world: World, model, seed: int) -> None:
    """Assert that responses equal those of the plain model, with processes of different lengths."""
    network.model.eval()
    device = pick_device(runtime(None))
    whole = respond(Network(model.eval(), device=device), ALONE, seed)
    found = respond(network, world, seed)
    mask = world.share.of(whole.mask)
    width = int(mask.sum(1).max())
    widths = torch.zeros(world.size)
    widths[world.rank] = width
    assert world.size == 1 or len(world.all_reduce(widths).unique()) > 1
    assert torch.equal(found.mask, mask[:, :width])
    assert torch.equal(
        found.responses * found.mask, (world.share.of(whole.responses) * mask)[:, :width]
    )


def hooks_of(network: Network) -> list:
    """Return all hooks in the order in which they are called."""
    return [
        list(hooks.values())
        for module in network.zero.module.modules()
        for hooks in (module._forward_pre_hooks, module._forward_hooks)
    ]


def check_generating(*kinds: list) -> None:
    """Check responses, training, and responses again; an exception must not change anything."""
    for name, architecture, gather in kinds:
        given = runtime(name, gather=gather)
        world = world_of(given)
        engine = trained(given, world, enable_unpadding(causal(architecture)))
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
    plan = engine.generation_note()
    assert ("in step" in plan) == (gather == "never") and "iB of weights" in plan
    assert (f"gather={gather}" in plan) == (gather != "auto") and "\n" not in plan
    assert engine.keep_going(True) and not engine.keep_going(False)


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
    """Return policy (five more tokens), value model (new head), reference, reward model."""

    def load(kind, name: str, grown: int | None = None, frozen: bool = False):
        torch.manual_seed(3)
        packed = world is not ALONE  # what is compared with reads padded rows
        conf = model_conf(folder / name, checkpointing=checkpointing and not frozen)
        if kind is load_scalar_model:
            sharded = partial(model_loading, given, world)
            head = {"new_head": name == "causal", "loading": sharded}
            model = kind(conf, str(folder / name), unpadded=packed, **head)
        else:
            with model_loading(given, world):
                model = kind(conf, str(folder / name), unpadded=packed)
                if grown:
                    model.resize_token_embeddings(grown, mean_resizing=True)
        if frozen:
            return open_network(
                freeze(model), device=pick_device(given), world=world, runtime=given
            )
        return trained(given, world, model, clip=None if kind is load_scalar_model else 0.5)

    value = load(load_scalar_model, "causal")
    value.put(HEAD, draw_head(value.get(HEAD).shape, seed=4))
    return [
        load(load_causal_lm, "causal", grown=45),
        value,
        load(load_causal_lm, "causal", grown=45, frozen=True),
        load(load_scalar_model, "scalar", frozen=True),
    ]


def iteration(cast: list[Network], world: World, number: int) -> tuple[list[float], Tensor]:
    """Run a PPO iteration: score without gradients, then two minibatches that step both engines."""
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
        numbers += [world.sum_scalars({"loss": total})["loss"], policy.step(1.0), value.step(0.5)]
    told = [float(x.double().mean()) / world.size for x in (*seen, scores, values * mask)]
    return [*numbers, *world.sum_scalars(dict(enumerate(told))).values()], scores


def check_players(folder: str, *kinds: list) -> None:
    """Compare four networks, sharded while they are loaded, with four plain ones."""
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
        for number in range(2):
            found, scores = iteration(cast, world, number)
            wanted, wanted_scores = iteration(twins, ALONE, number)
            worst = max(abs(a - b) / (1 + abs(b)) for a, b in zip(found, wanted, strict=True))
            assert worst < near, (name, dtype, architecture, number)
            assert (scores - world.share.of(wanted_scores)).abs().max() < 100 * near
