"""Keys of the reward model: the loss of its pairs, its report, and its initial weights."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Batch, Ties
from rlhf_cli.data.collate import BatchOptions, preference_batches
from rlhf_cli.models.forward import sequence_scores
from rlhf_cli.runtime.world import World
from rlhf_cli.stages import rm, rm_report
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.rm_report import report_on, scored_sample
from tests.support.examples import comparisons, rm_config
from tests.support.small_stages import changed, little, work
from tests.support.stage_runs import metrics
from tests.support.tabular import engine, network, optim
from tests.support.tiny_models import scalar

EXAMPLES = comparisons(6)
BATCH = Batch(size=6, microbatch=9, max_tokens=None)


def reward_model():
    return scalar("llama", sharpness=2.0)


def step() -> list:
    (found,) = preference_batches(EXAMPLES, BatchOptions(batch=BATCH, seed=0, epoch=0, pad_id=0))
    return found


@torch.no_grad()
def scores_of(model, example) -> Tensor:
    rows = [torch.tensor([ids]) for ids in example.sequences()]
    return torch.cat([sequence_scores(model, row, torch.ones_like(row).bool()) for row in rows])


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def pair_cost(win: float, lose: float, cfg) -> float:
    """Return minus the log-likelihood of a preference for the first, by its formula."""
    gap = win - lose
    if cfg.ties is Ties.davidson:
        parts = [math.exp(gap / 2), cfg.tie_param, math.exp(-gap / 2)]
        return -math.log(parts[0] / sum(parts))
    if cfg.ties is Ties.rao_kupper:
        return -log_sigmoid(gap - math.log(cfg.tie_param))
    gap -= cfg.margin
    wrong = cfg.label_smoothing
    return -(1 - wrong) * log_sigmoid(gap) - wrong * log_sigmoid(-gap)


def tie_cost(one: float, other: float, cfg) -> float:
    gap, param = one - other, cfg.tie_param
    if cfg.ties is Ties.drop:
        return 0.0
    if cfg.ties is Ties.soft:
        return -0.5 * (log_sigmoid(gap) + log_sigmoid(-gap))
    if cfg.ties is Ties.davidson:
        parts = [math.exp(gap / 2), param, math.exp(-gap / 2)]
        return -math.log(parts[1] / sum(parts))
    either = log_sigmoid(gap - math.log(param)) + log_sigmoid(-gap - math.log(param))
    return -math.log(param**2 - 1) - either


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ties": Ties.soft},
        {"ties": Ties.davidson, "tie_param": 0.7},
        {"ties": Ties.rao_kupper, "tie_param": 2.5},
        {"margin": 0.6},
        {"label_smoothing": 0.2},
        {"center_coef": 0.3},
    ],
    ids=str,
)
def test_the_loss_of_a_step_equals_that_of_its_pairs_by_hand(changes):
    """Reference: a loop over the pairs, each prompt a mean over its C(K, 2) pairs."""
    cfg, total = rm_config(**changes), 0.0
    for example in EXAMPLES:
        scores, share = scores_of(reward_model(), example).tolist(), 1 / len(EXAMPLES)
        share /= math.comb(len(scores), 2)
        for i, j in example.better:
            centred = cfg.center_coef * (scores[i] + scores[j]) ** 2
            total += share * (pair_cost(scores[i], scores[j], cfg) + centred)
        for i, j in example.ties:
            centred = cfg.center_coef * (scores[i] + scores[j]) ** 2
            kept = 0.0 if cfg.ties is Ties.drop else centred
            total += share * (tie_cost(scores[i], scores[j], cfg) + kept)
    found = rm.learn(engine(reward_model(), optim(0.01)), step(), cfg, 1.0)
    assert len(step()) > 1
    assert found["rm/loss"] == pytest.approx(total, abs=1e-5)


def test_the_accuracy_counts_strict_pairs_alone():
    """A pair counts as right only when the winner scores strictly higher."""
    right = pairs = 0
    for example in EXAMPLES:
        scores = scores_of(reward_model(), example).tolist()
        right += sum(scores[i] > scores[j] for i, j in example.better)
        pairs += len(example.better)
    found = rm.learn(engine(reward_model(), optim(0.01)), step(), rm_config(), 1.0)
    assert found["rm/pairs"] == pairs
    assert found["rm/accuracy"] == pytest.approx(right / pairs)


def test_a_loss_that_is_not_finite_takes_no_step():
    broken = engine(reward_model(), optim(0.01))
    with torch.no_grad():
        broken.model.score.weight[0, 3] = float("nan")
    kept = broken.model.model.embed_tokens.weight.detach().clone()
    with pytest.raises(UserError, match="rm/loss is nan"):
        rm.learn(broken, step(), rm_config(), 1.0)
    assert torch.equal(broken.model.model.embed_tokens.weight, kept)


def test_a_training_step_switches_dropout_on():
    """An evaluation switches dropout off, and the next training step switches it on."""
    losses = []
    for seed in (0, 1):
        model = reward_model()
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.5
        learner = engine(model, optim(0.01))
        learner.eval()
        torch.manual_seed(seed)
        losses.append(rm.learn(learner, step(), rm_config(), 1.0)["rm/loss"])
    assert abs(losses[0] - losses[1]) > 1e-4


def stage_context(**changes):
    """Return the part of a stage's context that scoring comparisons needs."""
    cfg = SimpleNamespace(rm=rm_config(**changes), samples=changes.pop("samples", 2))
    return SimpleNamespace(cfg=cfg, renderer=SimpleNamespace(pad_id=0), world=World())


@pytest.mark.parametrize("nu", [0.7, 2.0])
def test_the_tie_probability_of_the_report_uses_the_configured_tie_model(nu):
    context = stage_context(ties=Ties.davidson, tie_param=nu)
    held_out = rm_report.scores_of(context, network(reward_model()), EXAMPLES)
    found = report_on(context.cfg, EXAMPLES, [held_out])
    probabilities = []
    for example in EXAMPLES:
        scores = scores_of(reward_model(), example).tolist()
        probabilities += [
            math.exp(-tie_cost(scores[i], scores[j], context.cfg.rm)) for i, j in example.ties
        ]
    assert found["tie_probability"] == pytest.approx(
        sum(probabilities) / len(probabilities), abs=1e-5
    )
    assert report_on(stage_context().cfg, EXAMPLES, [held_out])["tie_probability"] is None


def test_no_comparison_is_shown_with_samples_zero():
    context = stage_context()
    scores = torch.arange(float(sum(map(num, EXAMPLES))))
    (row,) = scored_sample(context.cfg, EXAMPLES, scores)
    assert [float(key.split()[1]) for key in list(row)[1:]] == list(range(num(EXAMPLES[0])))[::-1]
    context.cfg.samples = 0
    assert scored_sample(context.cfg, EXAMPLES, scores) == []


def test_all_responses_of_equal_scores_are_shown():
    """Responses with equal displayed scores must not replace one another."""
    one = max(EXAMPLES, key=num)
    (row,) = scored_sample(stage_context().cfg, [one], torch.zeros(num(one)))
    assert sorted(list(row.values())[1:]) == sorted(one.record.responses)


def test_without_demonstrations_the_best_responses_set_the_mean_score():
    """The best responses are those that won and never lost."""
    context = SimpleNamespace(cfg=SimpleNamespace(data=SimpleNamespace(demonstrations=[])))
    few = [replace(one, better=((1, 0), (1, 2)), ties=()) for one in EXAMPLES if num(one) > 2]
    assert rm.anchor_texts(context, few) == [one.sequences()[1] for one in few]


def num(example) -> int:
    return len(example.response_ids)


@pytest.fixture(scope="module")
def context():
    return open_context(little())


def test_a_new_reward_model_has_the_body_of_its_parent_and_a_head_of_the_seed(context, tmp_path):
    parent = context.engine(context.causal_lm(), context.cfg.sft.optim)
    context.export(parent, tmp_path / "sft")
    models = [
        rm.new_reward_model(
            replace(context, cfg=changed(context.cfg, {"seed": seed})), tmp_path / "sft"
        )
        for seed in (1, 1, 2)
    ]
    body, head = "model.layers.0.mlp.up_proj.weight", "score.weight"
    assert torch.equal(models[0].get(body), parent.get(body))
    assert torch.equal(models[0].get(head), models[1].get(head))
    assert not torch.equal(models[0].get(head), models[2].get(head))
    second = rm.new_reward_model(context, tmp_path / "sft", member=2)
    assert torch.equal(second.get(body), parent.get(body))
    assert not torch.equal(second.get(head), models[0].get(head))
    size = models[0].get(head).shape[1]
    assert float(models[0].get(head).std()) == pytest.approx((size + 1) ** -0.5, rel=0.3)


def test_rm_dropout_applies_during_training(context, tmp_path):
    parent = context.engine(context.causal_lm(), context.cfg.sft.optim)
    context.export(parent, tmp_path / "sft" / "model")
    losses = []
    for dropout in (0.0, 0.5):
        folder = tmp_path / str(dropout)
        work("rm", folder, {"rm.dropout": dropout}, tmp_path)
        losses.append(metrics(folder / "rm")[0]["rm/loss"])
    assert abs(losses[0] - losses[1]) > 1e-4
