"""Keys of SFT: supervised tokens, packing, dropout, and the epoch that is kept."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlhf_cli.config.schema import Batching, LossOn, ScheduleKind, SelectBy
from rlhf_cli.evaluation.respond import respond
from rlhf_cli.models.forward import sequence_scores
from rlhf_cli.models.generation.sampling import SamplingParams
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.stages import sft
from rlhf_cli.stages.context import StageContext, open_context
from rlhf_cli.stages.reward_scorer import RewardModel, reset_head
from rlhf_cli.stages.samples import prompts_of, sample_answers
from rlhf_cli.stages.training import mean_loss
from tests.support.small_stages import WATCHED, changed, little, seeing, work
from tests.support.stage_runs import metrics


@pytest.fixture(scope="module")
def context() -> StageContext:
    return open_context(little())


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> list[dict]:
    """Return the metrics of a short run."""
    folder = tmp_path_factory.mktemp("plain")
    work("sft", folder, {})
    return metrics(folder / "sft")


def first_step(monkeypatch, tmp_path, values: dict):
    """Return the microbatches of the first step of a run, and its metrics; it ends there."""
    first_steps = []

    class FirstStepDone(Exception):
        """The first step is done."""

    learn = sft.learn

    def record_first_step(engine, microbatches, factor):
        first_steps.append((microbatches, learn(engine, microbatches, factor)))
        raise FirstStepDone

    monkeypatch.setattr(sft, "learn", record_first_step)
    with pytest.raises(FirstStepDone):
        work("sft", tmp_path, values)
    return first_steps[0]


def test_loss_on_all_supervises_prompts_too(monkeypatch, tmp_path, plain):
    batches, found = first_step(monkeypatch, tmp_path, {"sft.loss_on": LossOn.all})
    # every token that has one before it
    assert found["sft/tokens"] == sum(int(one.mask[:, 1:].sum()) for one in batches)
    assert found["sft/tokens"] > plain[0]["sft/tokens"]


def test_packed_rows_hold_several_texts(monkeypatch, tmp_path, plain):
    batches, _ = first_step(monkeypatch, tmp_path, {"sft.batching": Batching.packed})
    assert all(one.packed for one in batches)
    assert sum(len(one.tokens) for one in batches) < 4


def test_sft_dropout_applies_during_training(monkeypatch, tmp_path, plain):
    """Dropout changes the loss of the first step."""
    _, found = first_step(monkeypatch, tmp_path, {"sft.dropout": 0.5})
    assert abs(found["sft/loss"] - plain[0]["sft/loss"]) > 1e-3


def random_reward_model(context: StageContext, folder: Path) -> Path:
    """Write a reward model with a random head; returns its folder."""
    engine = context.engine(context.scalar_model("tiny", new_head=True), context.cfg.rm.optim)
    reset_head(engine, seed=5)
    context.export(engine, folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def reward_folder(context, tmp_path_factory) -> Path:
    return random_reward_model(context, tmp_path_factory.mktemp("reward"))


# Enough to overfit: the held-out loss is least after the second epoch, the score best after the first.
LARGE = {
    "sft.optim.lr": 0.002,
    "sft.epochs": 3,
    "sft.batch.size": 8,
    "sft.schedule.kind": ScheduleKind.constant,
    "sft.schedule.warmup": 0.0,
}
BEST = {SelectBy.last: 2, SelectBy.eval_loss: 1, SelectBy.rm_score: 0}


@pytest.mark.parametrize("select_by", SelectBy)
def test_select_by_decides_which_epoch_is_exported(select_by, reward_folder, tmp_path):
    """The exported weights are those after the best epoch by the configured measure."""
    values = {"sft.reward_model": str(reward_folder), "sft.select_by": select_by}
    with seeing() as seen:
        stage_metrics = work("sft", tmp_path, {**LARGE, **values})
    (steps,) = seen.steps.values()
    rows = [row for row in metrics(tmp_path / "sft") if "sft/epoch" in row]
    values_of_epochs = {
        SelectBy.last: [row["sft/epoch"] for row in rows],
        SelectBy.eval_loss: [-row["sft/eval_loss"] for row in rows],
        SelectBy.rm_score: [row.get("sft/rm_score", 0.0) for row in rows],
    }[select_by]
    best = max(range(3), key=values_of_epochs.__getitem__)
    assert best == BEST[select_by]
    assert stage_metrics["sft/epoch"] == best + 1
    kept = steps[2 * (best + 1) - 1].after
    exported = load_file(tmp_path / "sft" / "model" / "model.safetensors")
    for name, weight in zip(WATCHED, kept, strict=True):
        assert torch.equal(exported[name], weight)


def test_rm_score_is_the_mean_score_of_answers_to_the_selection_prompts(
    context, reward_folder, tmp_path
):
    """Reference: answers of the exported model, scored one by one, as a mean."""
    values = {"sft.reward_model": str(reward_folder), "sft.select_by": SelectBy.rm_score}
    values |= {"data.select_fraction": 0.3, "evaluation.prompts": 2, "samples": 4}
    stage_metrics = work("sft", tmp_path, values)
    data = open_context(changed(little(), values)).encoded("demonstrations")
    prompts = prompts_of(context, data.select)
    assert len(prompts) > 2
    network = context.network(context.causal_lm(tmp_path / "sft" / "model"))
    answers = sample_answers(context, network, prompts[:2], context.cfg.seed)
    reward = RewardModel.load(context, [reward_folder], prompts).networks[0].model
    rows = [torch.tensor([one.prompt_ids + one.ids]) for one in answers]
    with torch.no_grad():
        scores = [float(sequence_scores(reward, row, torch.ones_like(row).bool())) for row in rows]
    assert stage_metrics["sft/rm_score"] == pytest.approx(sum(scores) / 2, abs=1e-4)


def test_answers_are_sampled_at_temperature_one_from_the_seed(context):
    """Reference: a call of `respond` with these parameters."""
    network = context.network(context.causal_lm())
    prompts = context.encoded("prompts").held_out[:6]
    params = SamplingParams(
        max_new_tokens=12,
        temperature=1.0,
        end_ids=context.renderer.end_ids,
        pad_id=context.renderer.pad_id,
    )
    ids = [one.ids for one in prompts]
    expected = respond(network, ids, context.renderer, params, context.world, batch=64, seeds=[7])
    assert sample_answers(context, network, prompts, 7) == expected[0]
    assert sample_answers(context, network, prompts, 8) != expected[0]


def test_the_seed_changes_the_order_of_data_and_new_heads(context):
    """Another seed gives other first demonstrations and another new head."""
    other = open_context(changed(little(), {"seed": 2}))
    train = context.encoded("demonstrations").train
    first = [sft.steps_of(one, train, epoch=0)[0][0].tokens for one in (context, other)]
    assert first[0].shape != first[1].shape or not torch.equal(*first)
    heads = []
    for one in (context, other):
        engine: Engine = one.engine(one.scalar_model("tiny", new_head=True), one.cfg.rm.optim)
        reset_head(engine, seed=one.cfg.seed)
        heads.append(engine.get("score.weight"))
    assert not torch.equal(*heads)


def test_the_held_out_loss_is_computed_without_dropout(context):
    learner = context.engine(context.causal_lm(dropout=0.5), context.cfg.sft.optim)
    batches = sft.steps_of(context, context.encoded("demonstrations").train, epoch=0)[0]
    losses = []
    for _ in range(2):
        learner.train()
        losses.append(mean_loss(learner, batches))
    assert losses[0] == losses[1]
