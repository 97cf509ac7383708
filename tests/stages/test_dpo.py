"""DPO as a stage: its optimum, its start, the reference's log-probs, what it refuses."""

from dataclasses import replace

import pytest
import torch

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Batch, PairLoss, Ties
from rlhf_cli.core.batches import PreferenceBatch
from rlhf_cli.data.collate import preference_batch
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.models.forward import response_sums, sequence_logits
from rlhf_cli.models.unpadding.attention import enable_unpadding
from rlhf_cli.stages import dpo
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.dpo import Comparisons, both_fell, fell_note, learn, require_pairs
from rlhf_cli.stages.reference_logprobs import (
    cache_file,
    offsets,
    reference_logprobs,
    response_logprobs,
    rows_of,
)
from tests.support.small_stages import changed, little
from tests.support.tabular import PROMPT, arm_probs, engine, optim, policy_network
from tests.support.tiny_models import causal

REF = torch.tensor([0.1, 0.2, 0.3, 0.4])
REWARDS = torch.tensor([1.0, 0.5, 0.0, -1.0])
OPTIMUM = [0.451462, 0.332167, 0.183296, 0.033075]  # of beta 1/2


def compared(prompt, *responses, better=((0, 1),), ties=()) -> EncodedComparison:
    return EncodedComparison(
        prompt_ids=list(prompt),
        response_ids=[list(ids) for ids in responses],
        better=tuple(better),
        ties=tuple(ties),
        record=None,
    )


ROWS = [
    compared([5, 6, 7], [8, 9, 3], [4, 3]),
    compared([7], [9, 3], [10, 11, 12, 3], [5, 3], better=((0, 1), (2, 1)), ties=((0, 2),)),
    compared([11, 4], [6, 6, 3], [12, 3], better=((1, 0),)),
]


def arms_batch() -> PreferenceBatch:
    """Return all ordered pairs of four arms, each with the probability that its first one wins."""
    pairs = torch.tensor([(i, j) for i in range(4) for j in range(4) if i != j])
    batch = preference_batch([compared([PROMPT], [0], [1], [2], [3])], pad_id=0)
    wins = torch.sigmoid(REWARDS[pairs[:, 0]] - REWARDS[pairs[:, 1]])
    batch = replace(batch, pairs=pairs, targets=torch.ones(len(pairs)), weights=wins / len(pairs))
    return replace(batch, index=[0])


def test_dpo_reaches_the_kl_regularised_optimum():
    """The real step on all pairs of four arms with the labels of Bradley-Terry."""
    cfg = replace(little().dpo, beta=0.5, batch=Batch(size=1, microbatch=64, max_tokens=None))
    policy = engine(policy_network(REF), replace(optim(0.02), grad_clip=None))
    train = Comparisons(rows=[compared([PROMPT], [0], [1], [2], [3])], reference=REF.log())
    for step in range(400):
        learn(policy, train, [arms_batch()], cfg, factor=1 - step / 400)
    assert arm_probs(policy.model).tolist() == pytest.approx(OPTIMUM, abs=2e-3)


@pytest.mark.parametrize("unpadded", [True, False])
def test_the_log_prob_of_a_response_is_the_sum_over_its_tokens(unpadded):
    model = causal("llama", seed=0, sharpness=3.0).eval()
    if unpadded:
        enable_unpadding(model)
    batch = preference_batch(ROWS, pad_id=0)
    with torch.no_grad():
        found = response_sums(model, batch)
        plain = causal("llama", seed=0, sharpness=3.0).eval()
        expected = []
        for row in (ids for one in ROWS for ids in one.sequences()):
            tokens = torch.tensor([row])
            logits = sequence_logits(plain, tokens, torch.ones_like(tokens).bool())
            expected.append(logits.log_softmax(-1)[0, :-1].gather(1, tokens[0, 1:, None])[:, 0])
    lengths = [len(ids) for one in ROWS for ids in one.response_ids]
    sums = [one[-n:].sum() for one, n in zip(expected, lengths, strict=True)]
    assert torch.allclose(found, torch.stack(sums), atol=1e-5)


def test_the_rows_of_a_batch_find_their_reference():
    starts = offsets(ROWS)
    assert starts == [0, 2, 5, 7]
    batch = preference_batch([ROWS[1], ROWS[0]], pad_id=0)
    assert rows_of(batch, [1, 0], starts).tolist() == [2, 3, 4, 0, 1]


@pytest.fixture
def context(tmp_path):
    return open_context(changed(little(), {"runs_dir": str(tmp_path / "runs")}))


@pytest.fixture
def tiny(context):
    """Return the folder of the embedded model."""
    from rlhf_cli.models.load import model_path

    return model_path(context.cfg.model.path)


def test_the_references_log_probs_are_computed_once_and_again_where_damaged(
    context, tiny, monkeypatch, capsys
):
    rows = [compared([300, 301], [302, 303], [304]), compared([305], [306], [307, 308])]
    first = reference_logprobs(context, tiny, rows, rows[:1])
    network = context.network(context.causal_lm(tiny))
    for kept, side in zip(first, (rows, rows[:1]), strict=True):
        assert torch.equal(kept, response_logprobs(context, network, side))
    with monkeypatch.context() as patch:
        patch.setattr(type(context), "causal_lm", None)  # the model is not loaded
        again = reference_logprobs(context, tiny, rows, rows[:1])
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    file = cache_file(context, tiny, rows)
    file.write_bytes(file.read_bytes()[:-8])
    made = reference_logprobs(context, tiny, rows, rows[:1])
    assert torch.equal(made[0], first[0])
    assert "is damaged: the log-probs of the reference are computed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes", [{"runtime.reference_implementation": True}, {"model.attention": "eager"}]
)
def test_the_cache_depends_on_what_decides_the_log_probs(context, tiny, changes):
    file = cache_file(context, tiny, ROWS)
    assert cache_file(context, tiny, ROWS[:2]) != file
    assert cache_file(replace(context, cfg=changed(context.cfg, changes)), tiny, ROWS) != file
    assert (
        cache_file(replace(context, cfg=changed(context.cfg, {"dpo.beta": 0.7})), tiny, ROWS)
        == file
    )


def step_of(cfg, *, policy_seed=0, microbatches=((0, 1, 2),)):
    """Return the metrics of one step on ROWS, and the policy."""
    reference = causal("llama", seed=0, sharpness=3.0).eval()
    with torch.no_grad():
        sums = response_sums(reference, preference_batch(ROWS, pad_id=0))
    policy = engine(causal("llama", seed=policy_seed, sharpness=3.0), optim(1e-3))
    batches = [
        replace(preference_batch([ROWS[i] for i in part], pad_id=0), index=list(part))
        for part in microbatches
    ]
    metrics = learn(policy, Comparisons(rows=ROWS, reference=sums), batches, cfg, 1.0)
    return metrics, policy


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()])


def test_a_step_starts_at_log_2_and_equal_rewards():
    metrics, _ = step_of(replace(little().dpo, ties=Ties.soft))
    assert metrics["dpo/loss"] == pytest.approx(0.693147, abs=1e-5)
    assert metrics["rewards/margins"] == pytest.approx(0, abs=1e-5)


def test_a_policy_that_is_not_the_reference_is_refused():
    with pytest.raises(UserError, match="nats per token away from its reference"):
        step_of(little().dpo, policy_seed=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": PairLoss.ipo},
        {"loss": PairLoss.ipo_mean},
        {"loss": PairLoss.robust, "label_smoothing": 0.2},
        {"label_smoothing": 0.2},
        {"beta": 0.3},
        {"ties": Ties.soft},
        {"ties": Ties.davidson, "tie_param": 0.5},
        {"margin": 1.0},
        {"sft_coef": 0.5},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_every_key_of_the_loss_changes_the_step(changes):
    """A tie has a loss and, where it begins, no slope; beta has a slope and no loss there."""
    one, _ = step_of(little().dpo)
    other, _ = step_of(replace(little().dpo, **changes))
    both = ("dpo/loss", "dpo/grad_norm")
    assert any(one[name] != pytest.approx(other[name], rel=1e-4) for name in both)


def test_the_parameter_of_a_model_of_ties_changes_the_step():
    one, other = (
        step_of(replace(little().dpo, ties=Ties.davidson, tie_param=nu))[0] for nu in (0.5, 2.0)
    )
    assert one["dpo/loss"] != pytest.approx(other["dpo/loss"], rel=1e-4)


def test_microbatches_add_up_to_the_step():
    cfg = replace(little().dpo, sft_coef=0.5)
    whole, policy = step_of(cfg)
    parts, other = step_of(cfg, microbatches=((0,), (1, 2)))
    assert whole["dpo/loss"] == pytest.approx(parts["dpo/loss"], abs=1e-5)
    assert whole["dpo/grad_norm"] == pytest.approx(parts["dpo/grad_norm"], rel=1e-4)
    assert torch.allclose(weights(policy), weights(other), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [({}, 7), ({"dpo.epochs": 2}, 14), ({"dpo.max_steps": 3}, 3), ({"dpo.batch.size": 2}, 10)],
)
def test_epochs_size_and_max_steps_decide_the_number_of_steps(changes, steps):
    cfg = changed(little(), {"dpo.batch.size": 3} | changes)
    assert dpo.total_steps(cfg, 20) == steps


@pytest.mark.parametrize(
    ("changes", "most"),
    [({"size": 2}, None), ({"microbatch": 14}, "rows"), ({"max_tokens": 300}, "tokens")],
)
def test_a_step_is_divided_by_its_limits(context, changes, most):
    """A prompt with all of its responses stays together, whatever the limit."""
    values = {f"dpo.batch.{key}": value for key, value in changes.items()}
    context = replace(context, cfg=changed(context.cfg, values))
    train = context.encoded("comparisons").train
    steps = list(dpo.steps_of(context, train, epoch=0))
    sizes = [sum(batch.num_prompts for batch in step) for step in steps]
    assert sum(sizes) == len(train)
    assert max(sizes) == min(context.cfg.dpo.batch.size, len(train))
    several = [batch for step in steps for batch in step if batch.num_prompts > 1]
    if most == "rows":
        assert several and max(len(batch.tokens) for batch in several) <= 14
    if most == "tokens":
        assert several and max(int(batch.mask.sum()) for batch in several) <= 300


def test_a_fall_of_both_log_probs_is_described():
    cfg = replace(little().dpo, beta=0.1)
    metrics = {"rewards/chosen": -0.15, "rewards/rejected": -0.4, "rewards/margins": 0.25}
    assert both_fell(metrics, cfg)
    assert "both fell, by 1.5 and 4.0 nats" in fell_note(metrics, cfg)
    assert not both_fell(metrics | {"rewards/chosen": -0.05}, cfg)
    assert not both_fell(metrics | {"rewards/margins": -0.1}, cfg)


def test_comparisons_of_ties_alone_are_refused():
    tied = [compared([5], [6], [7], better=(), ties=((0, 1),))]
    cfg = little().dpo
    with pytest.raises(UserError, match=r"ties only.*set dpo\.ties=soft"):
        require_pairs(tied, cfg)
    require_pairs(tied, replace(cfg, ties=Ties.soft))
    require_pairs([*tied, *ROWS], cfg)


def test_a_dry_run_counts_pairs_and_steps():
    facts = dpo.preview(little(), {}).facts
    assert "in total" in facts["optimizer steps"]
    assert "strict" in facts["pairs"]
