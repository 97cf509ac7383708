"""The parts of PPO on small real networks: invariants before, during and after an iteration."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import KLStop, MissingEOS, MissingEOSMode, OldLogprobs, RolloutBatch
from rlhf_cli.core.microbatches import Share
from rlhf_cli.core.returns import gae
from rlhf_cli.models.generation import decoding
from rlhf_cli.models.unpadding.attention import enable_unpadding
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.ppo.loop import train
from rlhf_cli.stages.ppo.update import accumulate_gradients, updates
from rlhf_cli.stages.rollout import collect as rollouts
from rlhf_cli.stages.rollout.checks import MetricAlerts, NotFinite, check_start
from rlhf_cli.stages.rollout.collect import (
    collect_rollout,
    microbatches,
    rollout_metrics,
    should_recompute,
)
from rlhf_cli.stages.rollout.offending import save_offending
from rlhf_cli.stages.rollout.updates import minibatches_of
from tests.support.ppo_networks import PARAMS, batch, cast, drawn
from tests.support.tabular import CPU, OFF, Silent, advantages_of, optim, ppo

pad = torch.nn.functional.pad
KEPT = MissingEOS(mode=MissingEOSMode.none, value=0.0)
REPLACED = MissingEOS(mode=MissingEOSMode.replace, value=-1.0)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_an_iteration_starts_at_ratio_one_and_kl_zero(temperature):
    cfg = ppo(
        temperature=temperature,
        batch=RolloutBatch(rollout=16, minibatch=16, microbatch=5, max_tokens=None),
    )
    models, params = cast(cfg=cfg), replace(PARAMS, temperature=temperature)
    rollout, found = collect_rollout(models, batch(), drawn(), params, cfg)
    check_start(rollout, torch.float32)
    assert found["objective/kl"] == pytest.approx(0, abs=1e-4)
    advantages, returns = advantages_of(rollout, 0.1, cfg)
    row = accumulate_gradients(
        models, replace(rollout, advantages=advantages, returns=returns), cfg
    )
    assert row["val/ratio"] == pytest.approx(1, abs=1e-5)
    assert row["policy/approxkl_avg"] == pytest.approx(0, abs=1e-8)
    assert row["policy/clipfrac_avg"] == 0


def test_the_samplers_logprobs_equal_those_of_a_forward_pass():
    """Ratio 1 and KL 0 hold at the start without the forward pass, too."""
    cfg = ppo(batch=RolloutBatch(rollout=16, minibatch=16, microbatch=5, max_tokens=None))
    recomputed, found = collect_rollout(cast(cfg=cfg), batch(), drawn(), PARAMS, cfg)
    kept, other = collect_rollout(cast(cfg=cfg), batch(), drawn(), PARAMS, cfg, recompute=False)
    assert 0 < found["policy/sampler_gap"] < 1e-6 and "policy/sampler_gap" not in other
    assert torch.equal(recomputed.responses, kept.responses)
    real = recomputed.response_mask
    assert not torch.equal(recomputed.logprobs[real], kept.logprobs[real])
    assert torch.allclose(recomputed.logprobs[real], kept.logprobs[real], atol=1e-5)
    check_start(kept, torch.float32)


def add_sampler_error(monkeypatch, error: float) -> None:
    """Make the log-probs of the sampler `error` nats too small, as in low precision."""
    sample = rollouts.sample

    def sampler(*inputs, **settings):
        samples = sample(*inputs, **settings)
        return replace(samples, logprobs=samples.logprobs - error * samples.mask)

    monkeypatch.setattr(rollouts, "sample", sampler)


@pytest.mark.parametrize("mode", list(OldLogprobs))
def test_imprecise_sampler_logprobs_are_kept_only_with_old_logprobs_sampler(mode, monkeypatch):
    """The error is within that of bfloat16; the other modes recompute the old log-probs."""
    add_sampler_error(monkeypatch, 0.02)
    cfg = ppo(old_logprobs=mode)
    models = replace(cast(cfg=cfg), device=replace(CPU, dtype=torch.bfloat16))
    rollout, found = collect_rollout(models, batch(), drawn(), PARAMS, cfg)
    assert found["policy/sampler_gap"] == pytest.approx(0.02, abs=1e-5)
    error = (rollout.logprobs - rollout.ref_logprobs)[rollout.response_mask].abs().max()
    assert (error > 0.01) == (mode is OldLogprobs.sampler)


@pytest.mark.parametrize("mode", list(OldLogprobs))
def test_a_sampler_with_wrong_position_ids_is_refused(mode, monkeypatch):
    """Recomputed log-probs give ratio 1 by construction, so the sampler itself is checked."""
    forward = decoding.forward

    def shifted(model, tokens, mask, positions, cache):
        return forward(model, tokens, mask, positions + 7 * (tokens.shape[1] == 1), cache)

    monkeypatch.setattr(decoding, "forward", shifted)
    cfg = ppo(old_logprobs=mode)
    with pytest.raises(UserError, match=r"sampler's log-probs are .* off those of a forward pass"):
        collect_rollout(cast(cfg=cfg), batch(), drawn(), PARAMS, cfg)


def test_should_recompute_follows_the_mode_the_gap_and_the_iteration():
    near, far = rollouts.MAX_GAP / 2, rollouts.MAX_GAP * 2
    auto = [should_recompute(OldLogprobs.auto, near, i) for i in range(33)]
    assert [i for i, yes in enumerate(auto) if yes] == [0, 16, 32]
    assert should_recompute(OldLogprobs.auto, far, 5) and should_recompute(
        OldLogprobs.recompute, near, 5
    )
    assert not should_recompute(OldLogprobs.sampler, far, 5) and should_recompute(
        OldLogprobs.sampler, far, 16
    )


def test_a_policy_that_is_not_its_reference_is_refused():
    cfg = ppo()
    models = cast(policy_seed=1)
    rollout, _ = collect_rollout(models, batch(), drawn(), PARAMS, cfg)
    with pytest.raises(UserError, match="must start at KL 0"):
        check_start(rollout, torch.float32)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_gradients_do_not_depend_on_the_microbatch(name):
    """16x1, 1x16 and 3 ragged pieces: the same gradients of policy and value."""
    gradients = []
    for size in (1, 16, 5):
        cfg = ppo(batch=RolloutBatch(rollout=16, minibatch=16, microbatch=size, max_tokens=None))
        models = cast(name, cfg=cfg)
        rollout, _ = collect_rollout(models, batch(), drawn(), PARAMS, cfg)
        # the same rollout for all: sampling draws do not depend on the microbatch
        advantages, returns = advantages_of(rollout, 0.1, cfg)
        rollout.logprobs = rollout.logprobs + 0.05  # away from ratio 1
        accumulate_gradients(models, replace(rollout, advantages=advantages, returns=returns), cfg)
        networks = (models.policy.model, models.value_model.model)
        gradients.append(
            [p.grad for net in networks for p in net.parameters() if p.grad is not None]
        )
    assert len(gradients[0]) > 10
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            assert torch.allclose(a, b, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("packed", [False, True])
def test_gradients_do_not_depend_on_the_budget_of_tokens(packed):
    """The number of processes does not matter: their gradients sum to those of the minibatch."""
    cfg, rows = (
        ppo(batch=RolloutBatch(rollout=16, minibatch=16, microbatch=16, max_tokens=None)),
        [],
    )
    models, everything = cast(cfg=cfg), torch.arange(16)
    for one in (models.policy, models.value_model, models.ref_policy) if packed else ():
        enable_unpadding(one.model)
    rollout, _ = collect_rollout(models, batch(), drawn(), PARAMS, cfg)
    advantages, returns = advantages_of(rollout, 0.1, cfg)
    rollout.logprobs = rollout.logprobs + 0.05  # away from ratio 1

    def gradients(size, budget, processes):
        cfg = ppo(batch=RolloutBatch(rollout=16, minibatch=16, microbatch=size, max_tokens=budget))
        counts, engines = set(), (models.policy, models.value_model)
        for rank in range(processes):
            models.policy.world = World(Share(rank, processes))
            pieces = microbatches(models, rollout, cfg.batch)
            counts.add(len(pieces))
            rows.extend(row for piece in pieces for row in piece.tolist())
            for piece in (rollout.select(piece).trim() for piece in pieces if budget):
                mask = torch.cat([piece.prompt_mask, piece.response_mask], 1)
                assert (int(mask.sum()) if packed else mask.numel()) <= budget
            accumulate_gradients(
                models, replace(rollout, advantages=advantages, returns=returns), cfg
            )
        assert len(counts) == 1
        found = [p.grad for one in engines for p in one.model.parameters() if p.grad is not None]
        for one in engines:
            one.discard()
        return found

    whole = gradients(16, None, 1)
    for size, budget, processes in ((None, 40, 1), (3, 40, 1), (None, 40, 4)):
        rows.clear()
        for a, b in zip(whole, gradients(size, budget, processes), strict=True):
            assert torch.allclose(a, b, atol=1e-6, rtol=1e-4)
        assert sorted(rows) == everything.tolist()


def test_more_padding_changes_no_metric_and_no_gradient():
    results = []
    for extra in (0, 5):
        cfg = ppo(
            batch=RolloutBatch(rollout=16, minibatch=16, microbatch=16, max_tokens=None),
            whiten_rewards=True,
        )
        models = cast(cfg=cfg)
        rollout, entropies = rollouts.sample_responses(models, batch(), drawn(), PARAMS)
        parts = rollouts.readings_of(models, rollout, cfg.batch)
        rollout, _ = rollouts.score_rollout(models, rollout, parts, cfg)
        for field in ("prompts", "prompt_mask"):
            setattr(rollout, field, pad(getattr(rollout, field), (extra, 0)))
        for field in (
            "responses",
            "response_mask",
            "logprobs",
            "ref_logprobs",
            "values",
            "advantages",
            "returns",
        ):
            setattr(rollout, field, pad(getattr(rollout, field), (0, extra)))
        advantages, returns = advantages_of(rollout, 0.1, cfg)
        row = accumulate_gradients(
            models, replace(rollout, advantages=advantages, returns=returns), cfg
        )
        results.append((rollout_metrics(rollout, pad(entropies, (0, extra))) | row, models))
    (a, first), (b, second) = results
    assert a == pytest.approx(b, abs=1e-6)
    for p, q in zip(first.policy.model.parameters(), second.policy.model.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-6)


def test_the_score_is_added_once_and_the_kl_penalty_at_every_token():
    cfg = ppo(gae_lambda=1.0)
    models = cast(cfg=cfg)
    rollout, _ = collect_rollout(models, batch(), drawn(), PARAMS, cfg)
    rollout.ref_logprobs = rollout.logprobs - 0.1 * rollout.response_mask
    advantages, returns = advantages_of(rollout, 0.5, cfg)
    lengths = rollout.response_mask.sum(1)
    # with gamma = lambda = 1 the first return is the whole reward: score - beta * sum of k1
    assert torch.allclose(returns[:, 0], rollout.scores - 0.5 * 0.1 * lengths, atol=1e-5)
    again, _ = gae(
        torch.zeros_like(advantages),
        rollout.values,
        rollout.response_mask,
        gamma=1.0,
        gae_lambda=1.0,
    )
    assert not torch.allclose(again, advantages)


def test_missing_eos_replaces_the_score_of_unfinished_responses():
    cfg = ppo(missing_eos=MissingEOS(mode=MissingEOSMode.replace, value=-7.0))
    rollout, _ = collect_rollout(cast(), batch(64), drawn(64), PARAMS, cfg)
    assert 0 < rollout.finished.float().mean() < 1
    assert (rollout.scores[~rollout.finished] == -7.0).all()
    assert (rollout.scores[rollout.finished] != -7.0).all()


def test_a_score_that_is_not_finite_raises_with_the_row_and_the_rollout():
    def score_with_nan(inputs):
        scores = torch.zeros(len(inputs.tokens))
        scores[2] = float("nan")
        return scores

    cfg = ppo(batch=RolloutBatch(rollout=16, minibatch=16, microbatch=16, max_tokens=None))
    with pytest.raises(NotFinite, match="score of the reward model") as caught:
        collect_rollout(cast(score=score_with_nan), batch(), drawn(), PARAMS, cfg)
    assert caught.value.rows == [2]
    assert caught.value.rollout.responses.shape[0] == 16


def test_kl_stop_ends_the_updates_of_an_iteration():
    cfg = ppo(
        batch=RolloutBatch(rollout=16, minibatch=4, microbatch=4, max_tokens=None),
        inner_epochs=8,
        optim=optim(0.05),
        kl_stop=KLStop(iteration=0.02, run=None),
    )
    models = cast(cfg=cfg)
    rollout, _ = collect_rollout(models, batch(), drawn(), PARAMS, cfg)
    advantages, returns = advantages_of(rollout, 0.1, cfg)
    minibatches = minibatches_of(16, cfg, seed=0, iteration=0)
    rollout = replace(rollout, advantages=advantages, returns=returns)
    rows = list(updates(models, rollout, minibatches, cfg, done=0, lr_factor=1.0))
    assert len(minibatches) == 32
    assert 0 < len(rows) < 32
    assert all(row["policy/approxkl_avg"] <= 0.02 for row in rows)
    assert all(p.grad is None for p in models.policy.model.parameters())


def test_kl_stop_ends_the_run():
    cfg = ppo(
        total_episodes=16 * 50,
        batch=RolloutBatch(rollout=16, minibatch=16, microbatch=16, max_tokens=None),
        optim=optim(0.02),
        kl_stop=KLStop(iteration=None, run=0.5),
    )
    recorder = Silent()
    train(cast(cfg=cfg), iter([batch()] * 50), PARAMS, cfg, recorder, seed=0)
    assert 1 < len(recorder.rows) < 50
    assert recorder.rows[-1]["objective/kl"] > 0.5
    assert "kl_stop" in recorder.warnings[-1]


def test_the_last_rollout_holds_the_remaining_episodes():
    """40 episodes in rollouts of 16: 16, 16, 8; the learning rate falls over three iterations."""
    cfg = ppo(
        total_episodes=40,
        batch=RolloutBatch(rollout=16, minibatch=8, microbatch=5, max_tokens=None),
        inner_epochs=2,
        optim=optim(1e-3),
    )
    recorder = Silent()
    train(cast(cfg=cfg), iter([batch(), batch(), batch(8)]), PARAMS, cfg, recorder, seed=0)
    assert [row["ppo/episodes"] for row in recorder.rows] == [16, 32, 40]
    assert [row["policy/steps"] for row in recorder.rows] == [4, 4, 2]
    assert [row["ppo/lr"] for row in recorder.rows] == pytest.approx([1e-3, 2e-3 / 3, 1e-3 / 3])


def test_the_average_is_an_exponential_moving_average_of_the_policy():
    """Reference: the recursion of the moving average, written out for one weight."""
    cfg = ppo(
        total_episodes=16 * 3,
        batch=RolloutBatch(rollout=16, minibatch=8, microbatch=8, max_tokens=None),
        inner_epochs=1,
        ema_decay=0.5,
    )
    models, seen = cast(cfg=cfg), []
    weight = models.policy.model.lm_head.weight
    original_step = models.policy.step

    def step(factor):
        norm = original_step(factor)
        seen.append(weight.detach().clone())
        return norm

    start = weight.detach().clone()
    models.policy.step = step
    train(models, iter([batch()] * 3), PARAMS, cfg, Silent(), seed=0)
    models.policy.use_average()
    expected = start
    for value in seen:
        expected = 0.5 * expected + 0.5 * value
    assert len(seen) == 6
    assert torch.allclose(weight, expected, atol=1e-6)


def test_an_alert_is_raised_once_until_its_metric_recovers():
    alerts = MetricAlerts(
        "ppo", replace(OFF, eos_rate=0.5, length=2.0, entropy=0.1, kl=10.0), REPLACED
    )
    normal = {
        "objective/eos_rate": 1.0,
        "objective/entropy": 1.0,
        "objective/kl": 1.0,
        "objective/response_length": 5.0,
    }
    assert alerts.new(normal) == []
    raised = alerts.new(normal | {"objective/kl": 11.0, "objective/response_length": 11.0})
    assert len(raised) == 2
    assert alerts.new(normal | {"objective/kl": 12.0}) == []
    assert alerts.new(normal) == []
    assert len(alerts.new(normal | {"objective/kl": 12.0})) == 1
    assert len(alerts.new(normal | {"objective/eos_rate": 0.2, "objective/entropy": 0.01})) == 2


@pytest.mark.parametrize(
    ("mean", "spread", "expected"),
    [
        (0.3, 0.0, "the scores differ by 0 on average"),
        (0.3, 0.5, None),
        (-2e5, 1.0, "the scores are as large as 2e+05"),
        (0.0, 1e5, "the scores are as large as 1e+05"),
        (0.0, None, None),  # fewer than two responses ended: the spread is unknown
    ],
)
def test_scores_without_spread_or_of_extreme_size_raise_an_alert(mean, spread, expected):
    seen = {f"objective/{name}": 1.0 for name in ("eos_rate", "entropy", "kl", "response_length")}
    seen |= {"objective/scores_ended": mean}
    seen |= {} if spread is None else {"objective/scores_ended_std": spread}
    alerts = MetricAlerts("ppo", replace(OFF, score_std=1e-4, score_rms=1000.0), KEPT)
    raised = alerts.new(seen)
    assert [expected in text for text in raised] == ([] if expected is None else [True])
    assert alerts.new(seen) == []
    assert MetricAlerts("ppo", OFF, KEPT).new(seen) == []


def test_an_alert_is_raised_when_missing_eos_scores_more_than_eos():
    """It names the numbers and cannot be switched off; other modes do not raise it."""
    seen = {f"objective/{name}": 1.0 for name in ("eos_rate", "entropy", "kl", "response_length")}
    low, high = ({"objective/scores_ended": score} for score in (-3.2, -0.9))
    alerts = MetricAlerts("ppo", OFF, REPLACED)
    assert alerts.new(seen | high) == []
    (alert,) = alerts.new(seen | low)
    assert "ppo.missing_eos.value=-1.00, those with EOS score -3.20" in alert
    assert "set ppo.missing_eos.value below -3.20" in alert
    assert alerts.new(seen | low) == []
    assert alerts.new(seen) == []  # no response ended, so the scores are unknown
    assert len(alerts.new(seen | low)) == 1
    subtracted = MissingEOS(mode=MissingEOSMode.subtract, value=1.0)
    for other in (KEPT, subtracted):
        assert MetricAlerts("ppo", OFF, other).new(seen | low) == []


def test_the_alert_on_missing_eos_reads_the_scores_of_finished_responses():
    """The scores are around -5, and a response without EOS gets -1."""
    cfg = ppo(
        total_episodes=16,
        batch=RolloutBatch(rollout=16, minibatch=16, microbatch=16, max_tokens=None),
        missing_eos=REPLACED,
    )
    recorder = Silent()
    models = cast(score=lambda inputs: torch.linspace(-6, -4, len(inputs.tokens)), cfg=cfg)
    train(models, iter([batch()]), PARAMS, cfg, recorder, seed=0)
    (row,) = recorder.rows
    assert -6 < row["objective/scores_ended"] < -4
    assert row["objective/scores_ended"] < row["objective/scores"]
    assert any("EOS is punished" in warning for warning in recorder.warnings)


def test_samples_with_a_score_that_is_not_finite_are_saved(tmp_path):
    """The file holds prompt, response and score of each sample, and the reason."""
    models = cast(score=lambda inputs: torch.full((len(inputs.tokens),), float("inf")))
    cfg = ppo(batch=RolloutBatch(rollout=4, minibatch=4, microbatch=4, max_tokens=None))
    with pytest.raises(NotFinite) as caught:
        collect_rollout(models, batch(4), drawn(4), PARAMS, cfg)
    tokenizer = SimpleNamespace(decode=lambda ids: " ".join(map(str, ids.tolist())))
    context = SimpleNamespace(renderer=SimpleNamespace(tokenizer=tokenizer), world=World())
    saved = json.loads(save_offending(caught.value, context, tmp_path).read_text())
    assert "score" in saved["reason"]
    assert len(saved["samples"]) == 4
    assert all(sample["score"] == "inf" for sample in saved["samples"])
    assert all(sample["prompt"] and sample["response_ids"] for sample in saved["samples"])
