"""Every key of PPO does what it says, by the loop itself on small real networks."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import (
    KL,
    PTX,
    Batching,
    KLController,
    LossOn,
    MissingEOS,
    MissingEOSMode,
    PPOBatch,
    ValueInit,
)
from rlhf_cli.data.collate import BatchOptions, sft_batches
from rlhf_cli.data.encode import EncodedDemonstration
from rlhf_cli.models.forward import ModelInputs, response_values, text_logprobs
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.ppo.checks import NotFinite
from rlhf_cli.stages.ppo.loop import kl_controller, minibatches_of, train
from rlhf_cli.stages.ppo.models import PretrainingLoss, build_models
from rlhf_cli.stages.ppo.rollout import collect_rollout, microbatches
from rlhf_cli.stages.ppo.stage import pretraining_loss
from rlhf_cli.stages.ppo.update import accumulate_gradients, ppo_microbatch_step, updates
from rlhf_cli.stages.training import work_on_minibatch
from tests.support.examples import demonstrations
from tests.support.ppo_networks import PARAMS, batch, cast, drawn
from tests.support.small_stages import changed, little
from tests.support.tabular import OFF, Silent, advantages_of, engine, optim, ppo
from tests.support.tiny_models import VOCAB, causal

SIXTEEN = PPOBatch(rollout=16, minibatch=16, microbatch=16, max_tokens=None)


def short(**changes):
    return ppo(**({"total_episodes": 32, "batch": SIXTEEN, "inner_epochs": 1} | changes))


def trained(cfg, **options) -> tuple[Silent, object]:
    """Two iterations or as many as `cfg` says: what was recorded, and the models."""
    recorder, models = Silent(), options.pop("models", None) or cast(cfg=cfg)
    train(models, iter([batch(16)] * 9), PARAMS, cfg, recorder, seed=0, **options)
    return recorder, models


@pytest.fixture(scope="module")
def rollout():
    """A rollout in which every score, value and log-ratio matters."""
    cfg = short()
    found, _ = collect_rollout(cast(cfg=cfg), batch(), drawn(), PARAMS, cfg)
    noise = torch.Generator().manual_seed(4)
    shape = found.logprobs.shape
    found.ref_logprobs = found.logprobs + 0.3 * torch.randn(shape, generator=noise)
    found.values = 2 * torch.randn(shape, generator=noise)
    found.scores = found.scores + 2.0
    return found


def walked(rollout, kl_coef: float, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns by the sum of their definition, response after response."""
    advantages = torch.zeros_like(rollout.logprobs)
    for row, length in enumerate(rollout.response_mask.sum(1).tolist()):
        gap = (rollout.logprobs - rollout.ref_logprobs)[row, :length]
        rewards = (-kl_coef * gap).tolist()
        rewards[-1] += float(rollout.scores[row])
        values = [*rollout.values[row, :length].tolist(), 0.0]
        for t in range(length):
            advantages[row, t] = sum(
                (gamma * gae_lambda) ** (u - t) * (rewards[u] + gamma * values[u + 1] - values[u])
                for u in range(t, length)
            )
    return advantages, advantages + rollout.values * rollout.response_mask


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.6), (0.8, 0.5)])
def test_discount_and_lambda_are_those_of_the_configuration(rollout, gamma, gae_lambda):
    cfg = short(gamma=gamma, gae_lambda=gae_lambda)
    for found, expected in zip(
        advantages_of(rollout, 0.4, cfg), walked(rollout, 0.4, gamma, gae_lambda), strict=True
    ):
        assert torch.allclose(found, expected, atol=1e-5)


def moments(x: Tensor, mask: Tensor) -> tuple[float, float]:
    real = x[mask]
    return float(real.mean()), float(real.std(unbiased=False))


def test_whitened_advantages_have_mean_zero_and_returns_stay(rollout):
    plain, returns = advantages_of(rollout, 0.4, short())
    found, same = advantages_of(rollout, 0.4, short(whiten_advantages=True))
    assert moments(found, rollout.response_mask) == pytest.approx((0.0, 1.0), abs=1e-5)
    assert moments(plain, rollout.response_mask) != pytest.approx((0.0, 1.0), abs=0.1)
    assert torch.equal(returns, same)


def test_whitened_rewards_have_deviation_one_and_keep_their_mean(rollout):
    """Seen where lambda, gamma and values are such that the advantage is the reward."""
    bare = replace(rollout, values=torch.zeros_like(rollout.values))
    mask = rollout.response_mask
    plain, _ = advantages_of(bare, 0.4, short(gae_lambda=0.0))
    found, _ = advantages_of(bare, 0.4, short(gae_lambda=0.0, whiten_rewards=True))
    mean, deviation = moments(plain, mask)
    assert abs(mean) > 0.01 and abs(deviation - 1) > 0.1
    assert moments(found, mask) == pytest.approx((mean, 1.0), abs=1e-5)


@pytest.mark.parametrize("mode", MissingEOSMode)
def test_what_a_response_without_an_end_earns(mode):
    plain = short(missing_eos=MissingEOS(mode=MissingEOSMode.none, value=3.0))
    cfg = short(missing_eos=MissingEOS(mode=mode, value=3.0))
    before, _ = collect_rollout(cast(), batch(), drawn(), PARAMS, plain)
    after, _ = collect_rollout(cast(), batch(), drawn(), PARAMS, cfg)
    ended = before.finished
    assert 0 < ended.sum() < 16
    assert torch.equal(after.scores[ended], before.scores[ended])
    expected = {
        MissingEOSMode.none: before.scores,
        MissingEOSMode.replace: torch.full((16,), 3.0),
        MissingEOSMode.subtract: before.scores - 3.0,
    }[mode]
    assert torch.allclose(after.scores[~ended], expected[~ended])


def test_the_temperature_shapes_what_is_drawn():
    """Cold: the same response however the numbers fall; hot: nearly any token."""
    cold, hot = short(temperature=1e-3), short(temperature=100.0)
    params = replace(PARAMS, temperature=1e-3)
    same, found = collect_rollout(cast(cfg=cold), batch(), drawn(), params, cold)
    again, _ = collect_rollout(cast(cfg=cold), batch(), 1 - drawn(), params, cold)
    assert torch.equal(same.responses, again.responses)
    assert found["objective/entropy"] < 0.05
    params = replace(PARAMS, temperature=100.0)
    other, found = collect_rollout(cast(cfg=hot), batch(), drawn(), params, hot)
    assert found["objective/entropy"] == pytest.approx(math.log(VOCAB), abs=0.01)
    # the reference is asked at the same temperature: KL 0
    assert torch.allclose(other.logprobs, other.ref_logprobs, atol=1e-5)


def step_of(rollout, cfg, ratio: float = 0.0, value: float = 0.0):
    """One minibatch learned from, with log-ratios and value changes of this size; its metrics."""
    models = cast(cfg=cfg)
    mine = replace(
        rollout, logprobs=rollout.logprobs - ratio * rollout.response_mask, values=rollout.values
    )
    advantages, returns = advantages_of(rollout, 0.4, cfg)
    row = accumulate_gradients(
        models, replace(mine, advantages=advantages, returns=returns + value), cfg
    )
    return row, models


def test_the_ratio_is_clipped_at_its_own_epsilon(rollout):
    """All ratios are 1.2: outside 1 + 0.1 on the rewarded side, inside 1 + 0.3."""
    shift = float(torch.tensor(1.2).log())
    found = {
        eps: step_of(rollout, short(clip_eps=eps, value_clip_eps=9.0), ratio=shift)[0]
        for eps in (0.1, 0.3)
    }
    advantages, _ = advantages_of(rollout, 0.4, short())
    rewarded = (advantages[rollout.response_mask] > 0).float().mean()
    assert found[0.1]["policy/clipfrac_avg"] == pytest.approx(float(rewarded), abs=1e-4)
    assert found[0.3]["policy/clipfrac_avg"] == 0


def test_the_value_is_clipped_at_its_own_epsilon(rollout):
    def clipped(eps):
        row, _ = step_of(rollout, short(clip_eps=0.9, value_clip_eps=eps), value=5.0)
        return row["val/clipfrac_avg"], row["loss/value_avg"]

    share, loss = clipped(0.01)
    assert share > 0.3
    assert clipped(50.0)[0] == 0
    assert clipped(None) == clipped(50.0)
    assert loss > clipped(None)[1]


def gradients(network) -> Tensor:
    return torch.cat([p.grad.flatten() for p in network.model.parameters() if p.grad is not None])


def test_the_value_loss_weighs_its_coefficient(rollout):
    _, one = step_of(rollout, short(vf_coef=0.25))
    _, four = step_of(rollout, short(vf_coef=1.0))
    assert torch.allclose(
        4 * gradients(one.value_model), gradients(four.value_model), rtol=1e-4, atol=1e-7
    )
    assert torch.allclose(gradients(one.policy), gradients(four.policy))


def test_episodes_minibatches_and_inner_epochs_count_the_steps():
    eight = replace(SIXTEEN, minibatch=8)
    for changes, iterations, steps in (
        ({}, 2, 1),
        ({"total_episodes": 48}, 3, 1),
        ({"batch": eight}, 2, 2),
        ({"inner_epochs": 3}, 2, 3),
    ):
        recorder, models = trained(short(**changes))
        assert [row["policy/steps"] for row in recorder.rows] == [steps] * iterations
        assert models.policy.steps == models.value_model.steps == iterations * steps


def test_inner_epochs_take_the_rows_in_other_orders():
    first, second = minibatches_of(16, short(inner_epochs=2), seed=0, iteration=0)
    (later,) = minibatches_of(16, short(), seed=0, iteration=1)
    (other,) = minibatches_of(16, short(), seed=1, iteration=0)
    assert all(sorted(one.tolist()) == list(range(16)) for one in (first, second, later))
    assert len({tuple(one.tolist()) for one in (first, second, later, other)}) == 4


@pytest.mark.parametrize(("rows", "tokens", "sizes"), [(16, None, [16]), (5, None, [5, 5, 5, 1])])
def test_a_forward_pass_holds_as_many_rows_as_asked_for(rollout, rows, tokens, sizes):
    limits = replace(SIXTEEN, microbatch=rows, max_tokens=tokens)
    found = microbatches(cast(), rollout, limits)
    assert [len(piece) for piece in found] == sizes


def test_a_forward_pass_holds_as_many_tokens_as_asked_for(rollout):
    limits = replace(SIXTEEN, max_tokens=40)
    found = microbatches(cast(), rollout, limits)
    assert sorted(torch.cat(found).tolist()) == list(range(16))
    masks = torch.cat([rollout.prompt_mask, rollout.response_mask], dim=1)
    assert 1 < len(found) < 16
    assert max(int(masks[piece].sum()) for piece in found) <= 40


ADAPTIVE = KL(coef=0.5, controller=KLController.adaptive, target=6.0, horizon=100)


def test_the_price_of_kl_adapts_to_its_target_over_its_horizon():
    """KL 0 against 6 nats: 20 % less a horizon, here 16 episodes of 100."""
    recorder, _ = trained(short(kl=ADAPTIVE))
    assert [row["objective/kl_coef"] for row in recorder.rows] == pytest.approx(
        [0.5, 0.5 * (1 - 0.2 * 16 / 100)]
    )
    fixed, _ = trained(short(kl=replace(ADAPTIVE, controller=KLController.fixed)))
    assert [row["objective/kl_coef"] for row in fixed.rows] == [0.5, 0.5]
    for target, error in ((6.0, -0.2), (1.0, 0.1), (0.5, 0.2)):
        controller = kl_controller(replace(ADAPTIVE, target=target))
        controller.update(1.1, 50)
        assert controller.coef == pytest.approx(0.5 * (1 + error * 50 / 100))


def test_the_price_of_kl_is_paid(rollout):
    dear, cheap = (advantages_of(rollout, coef, short())[1][:, 0] for coef in (1.0, 0.0))
    kl = ((rollout.logprobs - rollout.ref_logprobs) * rollout.response_mask).sum(1)
    assert torch.allclose(cheap - dear, kl, atol=1e-4)
    recorder, _ = trained(short(kl=replace(ADAPTIVE, coef=0.0), optim=optim(0.05)))
    last = recorder.rows[-1]
    assert last["objective/rlhf_reward"] == last["objective/scores"]
    last = trained(short(kl=replace(ADAPTIVE, coef=0.5), optim=optim(0.05)))[0].rows[-1]
    paid = last["objective/scores"] - last["objective/rlhf_reward"]
    assert paid == pytest.approx(last["objective/kl_coef"] * last["objective/kl"]) != 0


def test_a_policy_that_is_not_its_reference_stops_before_it_learns():
    cfg = short()
    models = cast(cfg=cfg, policy_seed=1)
    with pytest.raises(UserError, match="must start at KL 0"):
        trained(cfg, models=models)
    assert models.policy.steps == 0


def test_a_rollout_with_other_logprobs_stops_before_the_first_step(rollout):
    """They are 0.2 nats off: training reads the rollout differently than it was scored."""
    cfg = short()
    models = cast(cfg=cfg)
    off = replace(rollout, logprobs=rollout.logprobs - 0.2)
    with pytest.raises(UserError, match=r"ratio is off 1 by 0\.22"):
        list(updates(models, off, [torch.arange(16)], cfg, done=0, lr_factor=1.0))
    assert models.policy.steps == 0


def test_the_first_ratio_may_be_off_by_the_tolerance_of_its_dtype_only(rollout):
    cfg = short()
    models = cast(cfg=cfg)
    for off, refused in ((5e-4, False), (2e-3, True)):
        mine = replace(rollout, logprobs=rollout.logprobs - off)
        steps = updates(models, mine, [torch.arange(16)], cfg, done=0, lr_factor=0.0)
        if refused:
            with pytest.raises(UserError, match="ratio is off 1"):
                next(steps)
        else:
            next(steps)


@pytest.mark.parametrize(
    ("alert", "limit", "quiet", "said"),
    [
        ("eos_rate", 1.0, 0.0, "of the responses contain EOS"),
        ("entropy", 99.0, 0.0, "entropy fell"),
        ("kl", -1.0, 99.0, "KL to the SFT model reached"),
        ("length", 1.0, 99.0, "times as long"),
        ("score_std", 99.0, 0.0, "nothing can be learned from a constant reward"),
        ("score_rms", 0.01, 99.0, "the KL penalty is negligible"),
    ],
)
def test_an_alert_of_the_configuration_is_given(alert, limit, quiet, said):
    for value, rings in ((limit, True), (quiet, False), (None, False)):
        alerts = replace(OFF)
        setattr(alerts, alert, value)  # the configuration refuses a limit that always rings
        recorder, _ = trained(short(total_episodes=16, alerts=alerts, optim=optim(1e-9)))
        assert [said in text for text in recorder.warnings] == [True] * rings


@pytest.fixture(scope="module")
def stage_setting():
    return open_context(changed(little(), {"ppo.ptx.ratio": 2, "ppo.batch.minibatch": 2}))


def test_the_value_model_comes_from_where_it_was_asked_for(stage_setting, tmp_path):
    """rm: the reward model, head included; sft: the SFT model under a new head, drawn by the seed."""
    trained_rm = stage_setting.scalar_model("tiny", new_head=True)
    with torch.no_grad():
        for parameter in trained_rm.parameters():
            parameter.add_(0.01)
    reward = stage_setting.engine(trained_rm, stage_setting.cfg.rm.optim)
    stage_setting.export(reward, tmp_path / "rm")
    policy = stage_setting.engine(stage_setting.causal_lm(), stage_setting.cfg.sft.optim)
    stage_setting.export(policy, tmp_path / "sft")
    found, name = {}, "model.embed_tokens.weight"
    for init, seed in ((ValueInit.rm, 1), (ValueInit.sft, 1), (ValueInit.sft, 2)):
        cfg = changed(stage_setting.cfg, {"ppo.value_init": init, "seed": seed})
        models, _ = build_models(
            replace(stage_setting, cfg=cfg), tmp_path / "sft", tmp_path / "rm", []
        )
        found[init, seed] = models.value_model
    from_rm, from_sft, again = found.values()
    assert torch.equal(from_rm.get(name), reward.get(name))
    assert torch.equal(from_rm.get("score.weight"), reward.get("score.weight"))
    assert torch.equal(from_sft.get(name), policy.get(name))
    head = from_sft.get("score.weight")
    assert not torch.equal(head, reward.get("score.weight"))
    assert float(head.std()) == pytest.approx(head.shape[1] ** -0.5, rel=0.3)
    assert not torch.equal(head, again.get("score.weight"))


def texts(count: int) -> list[EncodedDemonstration]:
    return demonstrations(count, seed=7)


def told_of(count: int, *, coef: float = 0.5, ratio: int = 2, minibatch: int = 2):
    """A context of the stage whose pretraining data are `count` small texts."""
    cfg = changed(
        little(),
        {"ppo.ptx": PTX(coef=coef, ratio=ratio), "ppo.batch.minibatch": minibatch},
    )
    context = open_context(cfg)
    data = SimpleNamespace(train=texts(count), held_out=[], print_report=lambda recorder: None)
    roles = []

    def encoded(role):
        roles.append(role)
        return data

    return SimpleNamespace(
        cfg=cfg, encoded=encoded, renderer=SimpleNamespace(pad_id=0), world=context.world,
        clock=context.clock, roles=roles,
    )  # fmt: skip


@pytest.mark.parametrize(("coef", "ratio", "minibatch"), [(0.5, 2, 2), (3.0, 2, 2), (1.0, 3, 1)])
def test_the_gradient_of_pretraining_is_that_of_its_texts(coef, ratio, minibatch):
    """Twin: coef times the mean loss of every token but the first of each text of this step."""
    context = told_of(12, coef=coef, ratio=ratio, minibatch=minibatch)
    policy = engine(causal("llama", sharpness=3.0), optim(0.1))
    ptx = pretraining_loss(context, policy, Silent())
    assert context.roles == ["pretraining"]
    said = ptx.add_gradient(policy)
    twin = engine(causal("llama", sharpness=3.0), optim(0.1))
    (step, *_) = sft_batches(
        texts(12),
        BatchOptions(
            batch=replace(little().sft.batch, size=ratio * minibatch),
            seed=context.cfg.seed, epoch=0, pad_id=0,
        ),
        batching=Batching.grouped, loss_on=LossOn.all, max_tokens=32,
    )  # fmt: skip
    losses = [
        -text_logprobs(twin.model, one)[one.mask[:, 1:]] for one in step if one.loss_mask.any()
    ]
    loss = coef * torch.cat(losses).mean()
    loss.backward()
    assert said == pytest.approx(float(loss.detach()), abs=1e-5)
    assert torch.allclose(gradients(policy), gradients(twin), rtol=1e-4, atol=1e-6)


def seen_by(steps: PretrainingLoss, place: int) -> list[tuple[int, ...]]:
    return [
        tuple(row[mask].tolist())
        for one in steps.texts_of(place)
        for row, mask in zip(one.tokens, one.mask, strict=True)
    ]


def test_pretraining_texts_go_round_the_data():
    """Ratio times minibatch at a step, each once before any again, in another order the next time."""
    policy = engine(causal("llama"), optim(1e-9))
    steps = PretrainingLoss(told_of(10), texts(10), policy=policy)
    everything = sorted(tuple(one.ids) for one in texts(10))
    rounds = [[seen_by(steps, place) for place in range(3 * k, 3 * k + 3)] for k in range(2)]
    for one in rounds:
        assert [len(step) for step in one] == [4, 4, 2] or sorted(map(len, one)) == [2, 4, 4]
        assert sorted(text for step in one for text in step) == everything
    assert rounds[0] != rounds[1]
    assert seen_by(steps, 0) == rounds[0][0]
    assert len(seen_by(PretrainingLoss(told_of(3), texts(3), policy=policy), 5)) == 3


def test_pretraining_follows_the_policys_steps():
    """A resumed policy reads the texts of its own step."""
    context = told_of(12)
    policy = engine(causal("llama"), optim(1e-9))
    ptx = pretraining_loss(context, policy, Silent())
    first = ptx.add_gradient(policy)
    policy.steps = 1
    assert ptx.add_gradient(policy) != pytest.approx(first, abs=1e-6)
    policy.steps = 0
    assert ptx.add_gradient(policy) == pytest.approx(first, abs=1e-6)


def test_the_pretraining_gradient_joins_the_policys_step():
    """With a policy that learns nothing else, PPO-ptx raises the likelihood of the texts."""
    cfg = short(total_episodes=16 * 4, optim=optim(0.01), inner_epochs=2)
    models = cast(cfg=cfg, score=lambda inputs: torch.zeros(len(inputs.batch.responses)))
    models.ptx = pretraining_loss(told_of(6, coef=20.0, ratio=3), models.policy, Silent())
    recorder, _ = trained(cfg, models=models)
    losses = [row["loss/ptx"] for row in recorder.rows]
    assert losses[-1] < 0.8 * losses[0]


def test_only_the_last_microbatch_closes_the_step(rollout):
    """The policy's gradient is not closed before the pretraining text has been added to it."""
    cfg, told = short(), []
    models = cast(cfg=cfg)
    models.policy.backward = lambda loss, last: told.append(last)
    num_tokens = rollout.response_mask.sum()
    for last in (False, True):
        ppo_microbatch_step(models, rollout, num_tokens, cfg, last=True, last_of_policy=last)
    assert told == [False, True]


def test_the_pretraining_text_closes_the_policys_step(rollout):
    """Of all that adds to the policy's gradient one is the last, as sharded engines must know."""
    for ptx in (None, SimpleNamespace(add_gradient=lambda policy: 0.0)):
        cfg, told = short(batch=replace(SIXTEEN, microbatch=8)), []
        models = cast(cfg=cfg)
        models.policy.backward = lambda loss, last, told=told: told.append(last)
        models.ptx = ptx
        accumulate_gradients(models, rollout, cfg)
        assert told == [False, ptx is None]


def test_a_loss_that_is_no_number_stops_before_the_step(rollout):
    cfg = short()
    models = cast(cfg=cfg)
    advantages, returns = advantages_of(rollout, 0.1, cfg)
    returns[3, 0] = float("inf")
    with pytest.raises(NotFinite, match="loss is not finite"):
        rows = [torch.arange(16)]
        rollout = replace(rollout, advantages=advantages, returns=returns)
        list(updates(models, rollout, rows, cfg, done=0, lr_factor=1.0))
    assert models.policy.steps == models.value_model.steps == 0


def test_every_iteration_draws_its_own_numbers():
    """The same prompts and, at a learning rate of nothing, the same policy: other responses."""
    seen = []
    models = cast(cfg=short(optim=optim(1e-12)))
    score = models.score
    models.score = lambda inputs: seen.append(inputs.batch.responses) or score(inputs)
    trained(short(optim=optim(1e-12)), models=models)
    assert len(seen) == 2
    assert seen[0].shape != seen[1].shape or not torch.equal(*seen)


def test_sampling_switches_dropout_off_and_learning_on():
    cfg = short()
    models = cast(cfg=cfg)
    modes = []
    generating = models.policy.generating

    def noted():
        modes.append(models.policy.model.training)
        return generating()

    models.policy.generating = noted
    collect_rollout(models, batch(), drawn(), PARAMS, cfg)
    assert modes == [False]
    assert models.policy.model.training


def test_a_token_weighs_one_over_the_tokens_of_its_minibatch(rollout):
    """The losses of half the rows are means over that half's tokens."""
    cfg, half = short(vf_coef=1.0, value_clip_eps=None), torch.arange(8)
    models = cast(cfg=cfg)
    advantages, returns = advantages_of(rollout, 0.1, cfg)
    minibatch = replace(rollout, advantages=advantages, returns=returns).select(half)
    row = accumulate_gradients(models, minibatch, cfg)
    mask = rollout.response_mask[half]
    values = models.value_model(response_values, ModelInputs(rollout.select(half))).detach()
    columns = slice(0, values.shape[1])
    errors = (values - returns[half, columns]).square()[mask[:, columns]]
    assert row["loss/value_avg"] == pytest.approx(float(0.5 * errors.mean()), abs=1e-5)
    assert row["loss/policy_avg"] == pytest.approx(float(-advantages[half][mask].mean()), abs=1e-4)


def test_the_work_of_a_minibatch_is_that_of_both_models(rollout):
    models = cast()
    both = work_on_minibatch(models.policy, models.value_model, rollout)
    twice = work_on_minibatch(models.policy, models.policy, rollout)
    real = rollout.prompt_mask.sum() + rollout.response_mask.sum()
    assert both["tokens"] == int(real)
    # per weight of a body and token 2 to multiply and add, forward, and twice that backward
    body = sum(p.numel() for p in models.value_model.model.parameters() if p.ndim == 2)
    body -= models.value_model.model.model.embed_tokens.weight.numel()
    assert both["flops"] > 2 * 6 * 0.9 * body * int(real)
    assert both["flops"] < twice["flops"]
