"""Every key of PPO has its effect, shown by the loop itself on small real networks."""

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
    RolloutBatch,
    ValueInit,
)
from rlhf_cli.data.collate import BatchOptions, sft_batches
from rlhf_cli.data.encode import EncodedDemonstration
from rlhf_cli.models.forward import ModelInputs, response_values, text_logprobs
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.ppo.loop import kl_controller, train
from rlhf_cli.stages.ppo.models import PretrainingLoss, build_models
from rlhf_cli.stages.ppo.stage import pretraining_loss
from rlhf_cli.stages.ppo.update import accumulate_gradients, ppo_microbatch_step, updates
from rlhf_cli.stages.reward_scorer import RewardModel
from rlhf_cli.stages.rollout.checks import NotFinite
from rlhf_cli.stages.rollout.collect import collect_rollout, microbatches
from rlhf_cli.stages.rollout.updates import minibatches_of
from rlhf_cli.stages.training import work_on_minibatch
from tests.support.examples import demonstrations
from tests.support.ppo_networks import PARAMS, batch, cast, drawn
from tests.support.small_stages import changed, little
from tests.support.tabular import OFF, Silent, advantages_of, engine, optim, ppo
from tests.support.tiny_models import VOCAB, causal

SIXTEEN = RolloutBatch(rollout=16, minibatch=16, microbatch=16, max_tokens=None)


def short(**changes):
    return ppo(**({"total_episodes": 32, "batch": SIXTEEN, "inner_epochs": 1} | changes))


def trained(cfg, **options) -> tuple[Silent, object]:
    """Train as configured, two iterations by default; return (recorder, models)."""
    recorder, models = Silent(), options.pop("models", None) or cast(cfg=cfg)
    train(models, iter([batch(16)] * 9), PARAMS, cfg, recorder, seed=0, **options)
    return recorder, models


@pytest.fixture(scope="module")
def rollout():
    """Return a rollout in which every score, value and log-ratio matters."""
    cfg = short()
    found, _ = collect_rollout(cast(cfg=cfg), batch(), drawn(), PARAMS, cfg)
    noise = torch.Generator().manual_seed(4)
    shape = found.logprobs.shape
    found.ref_logprobs = found.logprobs + 0.3 * torch.randn(shape, generator=noise)
    found.values = 2 * torch.randn(shape, generator=noise)
    found.scores = found.scores + 2.0
    return found


def expected_advantages(
    rollout, kl_coef: float, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Return advantages and returns by the sum of their definition, response by response."""
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
def test_gamma_and_gae_lambda_give_the_advantages_of_their_definition(rollout, gamma, gae_lambda):
    cfg = short(gamma=gamma, gae_lambda=gae_lambda)
    for found, expected in zip(
        advantages_of(rollout, 0.4, cfg),
        expected_advantages(rollout, 0.4, gamma, gae_lambda),
        strict=True,
    ):
        assert torch.allclose(found, expected, atol=1e-5)


def moments(x: Tensor, mask: Tensor) -> tuple[float, float]:
    real = x[mask]
    return float(real.mean()), float(real.std(unbiased=False))


def test_whitened_advantages_have_mean_zero_and_returns_are_unchanged(rollout):
    plain, returns = advantages_of(rollout, 0.4, short())
    found, same = advantages_of(rollout, 0.4, short(whiten_advantages=True))
    assert moments(found, rollout.response_mask) == pytest.approx((0.0, 1.0), abs=1e-5)
    assert moments(plain, rollout.response_mask) != pytest.approx((0.0, 1.0), abs=0.1)
    assert torch.equal(returns, same)


def test_whitened_rewards_have_deviation_one_and_keep_their_mean(rollout):
    """With this lambda, gamma and values the advantage equals the reward."""
    bare = replace(rollout, values=torch.zeros_like(rollout.values))
    mask = rollout.response_mask
    plain, _ = advantages_of(bare, 0.4, short(gae_lambda=0.0))
    found, _ = advantages_of(bare, 0.4, short(gae_lambda=0.0, whiten_rewards=True))
    mean, deviation = moments(plain, mask)
    assert abs(mean) > 0.01 and abs(deviation - 1) > 0.1
    assert moments(found, mask) == pytest.approx((mean, 1.0), abs=1e-5)


@pytest.mark.parametrize("mode", MissingEOSMode)
def test_missing_eos_sets_the_score_of_a_response_without_eos(mode):
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


def test_the_temperature_changes_the_distribution_of_samples():
    """A low temperature gives the same response for any random numbers, a high one any token."""
    cold, hot = short(temperature=1e-3), short(temperature=100.0)
    params = replace(PARAMS, temperature=1e-3)
    same, found = collect_rollout(cast(cfg=cold), batch(), drawn(), params, cold)
    repeated, _ = collect_rollout(cast(cfg=cold), batch(), 1 - drawn(), params, cold)
    assert torch.equal(same.responses, repeated.responses)
    assert found["objective/entropy"] < 0.05
    params = replace(PARAMS, temperature=100.0)
    other, found = collect_rollout(cast(cfg=hot), batch(), drawn(), params, hot)
    assert found["objective/entropy"] == pytest.approx(math.log(VOCAB), abs=0.01)
    # the reference is scored at the same temperature: KL 0
    assert torch.allclose(other.logprobs, other.ref_logprobs, atol=1e-5)


def step_of(rollout, cfg, ratio: float = 0.0, value: float = 0.0):
    """Train on one minibatch with these log-ratios and value changes; return (metrics, models)."""
    models = cast(cfg=cfg)
    changed_rollout = replace(
        rollout, logprobs=rollout.logprobs - ratio * rollout.response_mask, values=rollout.values
    )
    advantages, returns = advantages_of(rollout, 0.4, cfg)
    row = accumulate_gradients(
        models, replace(changed_rollout, advantages=advantages, returns=returns + value), cfg
    )
    return row, models


def test_the_ratio_is_clipped_at_clip_eps(rollout):
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


def test_the_value_is_clipped_at_value_clip_eps(rollout):
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


def test_the_gradient_of_the_value_loss_is_scaled_by_vf_coef(rollout):
    _, one = step_of(rollout, short(vf_coef=0.25))
    _, four = step_of(rollout, short(vf_coef=1.0))
    assert torch.allclose(
        4 * gradients(one.value_model), gradients(four.value_model), rtol=1e-4, atol=1e-7
    )
    assert torch.allclose(gradients(one.policy), gradients(four.policy))


def test_episodes_minibatches_and_inner_epochs_determine_the_number_of_steps():
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


def test_inner_epochs_shuffle_the_rows_differently():
    first, second = minibatches_of(16, short(inner_epochs=2), seed=0, iteration=0)
    (later,) = minibatches_of(16, short(), seed=0, iteration=1)
    (other,) = minibatches_of(16, short(), seed=1, iteration=0)
    assert all(sorted(one.tolist()) == list(range(16)) for one in (first, second, later))
    assert len({tuple(one.tolist()) for one in (first, second, later, other)}) == 4


@pytest.mark.parametrize(("rows", "tokens", "sizes"), [(16, None, [16]), (5, None, [5, 5, 5, 1])])
def test_a_forward_pass_holds_at_most_microbatch_rows(rollout, rows, tokens, sizes):
    limits = replace(SIXTEEN, microbatch=rows, max_tokens=tokens)
    found = microbatches(cast(), rollout, limits)
    assert [len(piece) for piece in found] == sizes


def test_a_forward_pass_holds_at_most_max_tokens(rollout):
    limits = replace(SIXTEEN, max_tokens=40)
    found = microbatches(cast(), rollout, limits)
    assert sorted(torch.cat(found).tolist()) == list(range(16))
    masks = torch.cat([rollout.prompt_mask, rollout.response_mask], dim=1)
    assert 1 < len(found) < 16
    assert max(int(masks[piece].sum()) for piece in found) <= 40


ADAPTIVE = KL(coef=0.5, controller=KLController.adaptive, target=6.0, horizon=100)


def test_the_kl_coefficient_adapts_to_its_target_over_its_horizon():
    """KL 0 with a target of 6 nats lowers it by 20 % per horizon, here 16 of 100 episodes."""
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


def test_the_kl_penalty_is_subtracted_from_the_reward(rollout):
    with_kl, without_kl = (advantages_of(rollout, coef, short())[1][:, 0] for coef in (1.0, 0.0))
    kl = ((rollout.logprobs - rollout.ref_logprobs) * rollout.response_mask).sum(1)
    assert torch.allclose(without_kl - with_kl, kl, atol=1e-4)
    recorder, _ = trained(short(kl=replace(ADAPTIVE, coef=0.0), optim=optim(0.05)))
    last = recorder.rows[-1]
    assert last["objective/rlhf_reward"] == last["objective/scores"]
    last = trained(short(kl=replace(ADAPTIVE, coef=0.5), optim=optim(0.05)))[0].rows[-1]
    penalty = last["objective/scores"] - last["objective/rlhf_reward"]
    assert penalty == pytest.approx(last["objective/kl_coef"] * last["objective/kl"]) != 0


def test_a_policy_that_differs_from_its_reference_takes_no_step():
    cfg = short()
    models = cast(cfg=cfg, policy_seed=1)
    with pytest.raises(UserError, match="must start at KL 0"):
        trained(cfg, models=models)
    assert models.policy.steps == 0


def test_a_rollout_with_wrong_logprobs_takes_no_step(rollout):
    """The log-probs of training differ by 0.2 nats from those of the rollout."""
    cfg = short()
    models = cast(cfg=cfg)
    deviation = replace(rollout, logprobs=rollout.logprobs - 0.2)
    with pytest.raises(UserError, match=r"ratio is off 1 by 0\.22"):
        list(updates(models, deviation, [torch.arange(16)], cfg, done=0, lr_factor=1.0))
    assert models.policy.steps == 0


def test_the_first_ratio_may_differ_from_one_within_a_tolerance(rollout):
    cfg = short()
    models = cast(cfg=cfg)
    for deviation, refused in ((5e-4, False), (2e-3, True)):
        changed_rollout = replace(rollout, logprobs=rollout.logprobs - deviation)
        steps = updates(models, changed_rollout, [torch.arange(16)], cfg, done=0, lr_factor=0.0)
        if refused:
            with pytest.raises(UserError, match="ratio is off 1"):
                next(steps)
        else:
            next(steps)


@pytest.mark.parametrize(
    ("alert", "limit", "without_alert", "expected"),
    [
        ("eos_rate", 1.0, 0.0, "of the responses contain EOS"),
        ("entropy", 99.0, 0.0, "entropy fell"),
        ("kl", -1.0, 99.0, "KL to the SFT model reached"),
        ("length", 1.0, 99.0, "times as long"),
        ("score_std", 99.0, 0.0, "nothing can be learned from a constant reward"),
        ("score_rms", 0.01, 99.0, "the KL penalty is negligible"),
    ],
)
def test_every_alert_of_the_configuration_warns_at_its_limit(alert, limit, without_alert, expected):
    for value, raised in ((limit, True), (without_alert, False), (None, False)):
        alerts = replace(OFF)
        setattr(alerts, alert, value)  # the configuration refuses a limit that is always exceeded
        recorder, _ = trained(short(total_episodes=16, alerts=alerts, optim=optim(1e-9)))
        assert [expected in text for text in recorder.warnings] == [True] * raised


@pytest.fixture(scope="module")
def stage_setting():
    return open_context(changed(little(), {"ppo.ptx.ratio": 2, "ppo.batch.minibatch": 2}))


def test_value_init_selects_the_weights_of_the_value_model(stage_setting, tmp_path):
    """rm: the reward model with its head; sft: the SFT model with a new head of the seed."""
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
        context = replace(stage_setting, cfg=cfg)
        loaded = RewardModel.load(context, [tmp_path / "rm"], [])
        models, _ = build_models(context, tmp_path / "sft", [tmp_path / "rm"], loaded)
        found[init, seed] = models.value_model
    from_rm, from_sft, from_other_seed = found.values()
    assert torch.equal(from_rm.get(name), reward.get(name))
    assert torch.equal(from_rm.get("score.weight"), reward.get("score.weight"))
    assert torch.equal(from_sft.get(name), policy.get(name))
    head = from_sft.get("score.weight")
    assert not torch.equal(head, reward.get("score.weight"))
    assert float(head.std()) == pytest.approx(head.shape[1] ** -0.5, rel=0.3)
    assert not torch.equal(head, from_other_seed.get("score.weight"))


def texts(count: int) -> list[EncodedDemonstration]:
    return demonstrations(count, seed=7)


def stage_context(count: int, *, coef: float = 0.5, ratio: int = 2, minibatch: int = 2):
    """Return a context of the stage whose pretraining data are `count` small texts."""
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
def test_the_gradient_of_pretraining_equals_that_of_its_texts(coef, ratio, minibatch):
    """Reference: coef times the mean loss of every token except the first of each text."""
    context = stage_context(12, coef=coef, ratio=ratio, minibatch=minibatch)
    policy = engine(causal("llama", sharpness=3.0), optim(0.1))
    ptx = pretraining_loss(context, policy, Silent())
    assert context.roles == ["pretraining"]
    loss_found = ptx.add_gradient(policy)
    reference = engine(causal("llama", sharpness=3.0), optim(0.1))
    (step, *_) = sft_batches(
        texts(12),
        BatchOptions(
            batch=replace(little().sft.batch, size=ratio * minibatch),
            seed=context.cfg.seed, epoch=0, pad_id=0,
        ),
        batching=Batching.grouped, loss_on=LossOn.all, max_tokens=32,
    )  # fmt: skip
    losses = [
        -text_logprobs(reference.model, one)[one.mask[:, 1:]] for one in step if one.loss_mask.any()
    ]
    loss = coef * torch.cat(losses).mean()
    loss.backward()
    assert loss_found == pytest.approx(float(loss.detach()), abs=1e-5)
    assert torch.allclose(gradients(policy), gradients(reference), rtol=1e-4, atol=1e-6)


def seen_by(steps: PretrainingLoss, place: int) -> list[tuple[int, ...]]:
    return [
        tuple(row[mask].tolist())
        for one in steps.texts_of(place)
        for row, mask in zip(one.tokens, one.mask, strict=True)
    ]


def test_pretraining_texts_cycle_through_the_data():
    """A step has ratio * minibatch texts; each occurs once per pass, in another order each time."""
    policy = engine(causal("llama"), optim(1e-9))
    steps = PretrainingLoss(stage_context(10), texts(10), policy=policy)
    everything = sorted(tuple(one.ids) for one in texts(10))
    rounds = [[seen_by(steps, place) for place in range(3 * k, 3 * k + 3)] for k in range(2)]
    for one in rounds:
        assert [len(step) for step in one] == [4, 4, 2] or sorted(map(len, one)) == [2, 4, 4]
        assert sorted(text for step in one for text in step) == everything
    assert rounds[0] != rounds[1]
    assert seen_by(steps, 0) == rounds[0][0]
    assert len(seen_by(PretrainingLoss(stage_context(3), texts(3), policy=policy), 5)) == 3


def test_pretraining_texts_follow_the_steps_of_the_policy():
    """A resumed policy reads the texts of its own step."""
    context = stage_context(12)
    policy = engine(causal("llama"), optim(1e-9))
    ptx = pretraining_loss(context, policy, Silent())
    first = ptx.add_gradient(policy)
    policy.steps = 1
    assert ptx.add_gradient(policy) != pytest.approx(first, abs=1e-6)
    policy.steps = 0
    assert ptx.add_gradient(policy) == pytest.approx(first, abs=1e-6)


def test_the_pretraining_gradient_is_added_to_the_step_of_the_policy():
    """Without any other gradient, PPO-ptx raises the likelihood of the texts."""
    cfg = short(total_episodes=16 * 4, optim=optim(0.01), inner_epochs=2)
    models = cast(cfg=cfg, score=lambda inputs: torch.zeros(len(inputs.batch.responses)))
    models.ptx = pretraining_loss(stage_context(6, coef=20.0, ratio=3), models.policy, Silent())
    recorder, _ = trained(cfg, models=models)
    losses = [row["loss/ptx"] for row in recorder.rows]
    assert losses[-1] < 0.8 * losses[0]


def test_only_the_last_microbatch_ends_the_gradient_of_a_step(rollout):
    """The gradient of the policy must not end before the pretraining text is added."""
    cfg, last_flags = short(), []
    models = cast(cfg=cfg)
    models.policy.backward = lambda loss, last: last_flags.append(last)
    num_tokens = rollout.response_mask.sum()
    for models.ptx in (SimpleNamespace(), None):
        ppo_microbatch_step(models, rollout, True, num_tokens=num_tokens, cfg=cfg)
    assert last_flags == [False, True]


def test_the_pretraining_text_ends_the_gradient_of_a_step(rollout):
    """Sharded engines must know the last part of the gradient of the policy."""
    for ptx in (None, SimpleNamespace(add_gradient=lambda policy: 0.0)):
        cfg, last_flags = short(batch=replace(SIXTEEN, microbatch=8)), []
        models = cast(cfg=cfg)
        models.policy.backward = lambda loss, last, last_flags=last_flags: last_flags.append(last)
        models.ptx = ptx
        accumulate_gradients(models, rollout, cfg)
        assert last_flags == [False, ptx is None]


def test_a_loss_that_is_not_finite_takes_no_step(rollout):
    cfg = short()
    models = cast(cfg=cfg)
    advantages, returns = advantages_of(rollout, 0.1, cfg)
    returns[3, 0] = float("inf")
    with pytest.raises(NotFinite, match="loss is not finite"):
        rows = [torch.arange(16)]
        rollout = replace(rollout, advantages=advantages, returns=returns)
        list(updates(models, rollout, rows, cfg, done=0, lr_factor=1.0))
    assert models.policy.steps == models.value_model.steps == 0


def test_every_iteration_samples_with_its_own_random_numbers():
    """The same prompts and, at a learning rate near zero, the same policy give other responses."""
    seen = []
    models = cast(cfg=short(optim=optim(1e-12)))
    (score,) = models.scores
    models.scores = (lambda inputs: seen.append(inputs.batch.responses) or score(inputs),)
    trained(short(optim=optim(1e-12)), models=models)
    assert len(seen) == 2
    assert seen[0].shape != seen[1].shape or not torch.equal(*seen)


def test_sampling_runs_in_evaluation_mode_and_restores_training_mode():
    cfg = short()
    models = cast(cfg=cfg)
    modes = []
    generating = models.policy.generating

    def recording_generating():
        modes.append(models.policy.model.training)
        return generating()

    models.policy.generating = recording_generating
    collect_rollout(models, batch(), drawn(), PARAMS, cfg)
    assert modes == [False]
    assert models.policy.model.training


def test_the_losses_are_means_over_the_tokens_of_the_minibatch(rollout):
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


def test_the_flops_of_a_minibatch_are_those_of_both_models(rollout):
    models = cast()
    both = work_on_minibatch([models.policy, models.value_model], rollout)
    twice = work_on_minibatch([models.policy, models.policy], rollout)
    real = rollout.prompt_mask.sum() + rollout.response_mask.sum()
    assert both["tokens"] == int(real)
    # per weight of a body and token 2 to multiply and add, forward, and twice that backward
    body = sum(p.numel() for p in models.value_model.model.parameters() if p.ndim == 2)
    body -= models.value_model.model.model.embed_tokens.weight.numel()
    assert both["flops"] > 2 * 6 * 0.9 * body * int(real)
    assert both["flops"] < twice["flops"]
