"""The reward model: gradients, batches, and a ranking that it learns."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from rlhf_cli.config.schema import Batch, Combine, Ties
from rlhf_cli.core.microbatches import WHOLE, Share
from rlhf_cli.data.collate import BatchOptions, preference_batches
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.data.records import Origin
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.models.forward import sequence_scores
from rlhf_cli.stages import rm
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.ppo import stage as ppo_stage
from rlhf_cli.stages.reading import drops_ties
from rlhf_cli.stages.reward_scorer import RewardModel, reward_folders
from rlhf_cli.stages.rm_report import report_on, scores_of
from rlhf_cli.stages.training import with_pairs
from tests.support.artifacts import manifest
from tests.support.examples import assert_same, comparisons, gradients, rm_config, summed
from tests.support.small_stages import changed, little, work
from tests.support.tabular import engine as new_engine
from tests.support.tabular import optim
from tests.support.tiny_models import scalar


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("ties", Ties)
def test_rm_gradients_do_not_depend_on_the_microbatch(name, ties):
    gradients = []
    for size, budget in ((1, None), (7, None), (100, None), (None, 50), (9, 30)):
        engine = new_engine(scalar(name, sharpness=2.0), optim(0.1))
        cfg = rm_config(ties=ties)
        steps = preference_batches(
            comparisons(8),
            BatchOptions(
                batch=Batch(size=8, microbatch=size, max_tokens=budget), seed=0, epoch=0, pad_id=0
            ),
        )
        assert len(steps) == 1
        for batch in steps[0]:
            scores = sequence_scores(engine.model, batch.tokens, batch.mask)
            engine.backward(rm.pair_loss(scores, batch, cfg, 8), last=True)
        gradients.append(
            {n: p.grad for n, p in engine.model.named_parameters() if p.grad is not None}
        )
    for other in gradients[1:]:
        assert_same(gradients[0], other)


@pytest.mark.parametrize("budget", [None, 40])
def test_gradients_of_eight_processes_sum_to_those_of_one(budget):
    examples, parts, lengths = comparisons(11), [], set()
    batch = Batch(size=11, microbatch=9, max_tokens=budget)
    for share in [WHOLE, *(Share(rank, 8) for rank in range(8))]:
        engine = new_engine(scalar("llama", sharpness=2.0), optim(0.1))
        step = preference_batches(
            examples, BatchOptions(batch=batch, seed=0, epoch=0, pad_id=0, share=share)
        )[0]  # fmt: skip
        for one in step:
            scores = sequence_scores(engine.model, one.tokens, one.mask)
            engine.backward(rm.pair_loss(scores, one, rm_config(), 11), last=True)
        parts.append(gradients(engine))
        lengths.add(len(step) if share.size > 1 else 0)
    assert len(lengths - {0}) == 1
    assert_same(parts[0], summed(parts[1:]))


def test_every_completion_is_forwarded_once():
    """A prompt of K completions takes K rows, not K(K-1)."""
    examples = comparisons(8)
    steps = preference_batches(
        examples,
        BatchOptions(batch=Batch(size=8, microbatch=9, max_tokens=None), seed=0, epoch=0, pad_id=0),
    )
    rows = sum(len(batch.tokens) for batch in steps[0])
    assert rows == sum(len(one.response_ids) for one in examples)
    pairs = sum(len(batch.pairs) for batch in steps[0])
    assert pairs == sum(len(one.better) + len(one.ties) for one in examples) > rows


def test_the_reward_model_learns_to_prefer_longer_responses():
    """A few dozen steps suffice, and the accuracy is measured on unseen prompts."""

    def by_length(count, seed):
        found = comparisons(count, seed)
        for one in found:
            ranked = [
                (i, j) for i in range(len(one.response_ids)) for j in range(len(one.response_ids))
            ]
            length = [len(ids) for ids in one.response_ids]
            one.better = tuple((i, j) for i, j in ranked if length[i] > length[j])
            one.ties = ()
        return [one for one in found if one.better]

    engine = new_engine(scalar("llama"), optim(0.01))
    cfg, train = rm_config(), by_length(200, seed=0)
    for epoch in range(4):
        for step in preference_batches(
            train,
            BatchOptions(
                batch=Batch(size=16, microbatch=100, max_tokens=None), seed=0, epoch=epoch, pad_id=0
            ),
        ):
            rm.learn(engine, step, cfg, 1.0)
    fresh = preference_batches(
        by_length(60, seed=9),
        BatchOptions(
            batch=Batch(size=60, microbatch=999, max_tokens=None), seed=0, epoch=0, pad_id=0
        ),
    )
    with torch.no_grad():
        hits, pairs = rm.strict_hits(
            sequence_scores(engine.model, fresh[0][0].tokens, fresh[0][0].mask), fresh[0][0]
        )
    assert hits / pairs > 0.9


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    """Return a folder with an SFT model, an ensemble of two, its metrics, and the model of one member."""
    folder = tmp_path_factory.mktemp("ensemble")
    values = {"runs_dir": str(folder / "runs")}
    work("sft", folder, values)
    work("rm", folder / "alone", values, parents=folder)
    metrics = work("rm", folder, values | {"rm.members": 2})
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_the_members_differ_and_the_first_is_the_reward_model_of_one(ensemble):
    first, second = weights(ensemble / "rm" / "model"), weights(ensemble / "rm" / "members" / "2")
    alone = weights(ensemble / "alone" / "rm" / "model")
    assert all(torch.equal(first[name], alone[name]) for name in alone)
    assert not torch.allclose(first["score.weight"], second["score.weight"], atol=0.01)


def test_the_members_read_the_comparisons_in_orders_of_their_own():
    context = SimpleNamespace(
        cfg=little(), renderer=SimpleNamespace(pad_id=0), world=SimpleNamespace(share=WHOLE)
    )
    orders = [
        [
            batch.index
            for step in rm.steps_of(context, comparisons(20), 0, member=member)
            for batch in step
        ]
        for member in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_the_report_is_on_the_mean_score_and_on_each_member(ensemble):
    found = json.loads((ensemble / "rm" / "report.json").read_text())
    alone = json.loads((ensemble / "alone" / "rm" / "report.json").read_text())
    assert len(found["members"]) == 2 and "members" not in alone
    assert found["members"][0]["accuracy"] == alone["accuracy"]
    two = [torch.tensor([1.0, 0.0, 0.3]), torch.tensor([-3.0, 2.0, 0.3])]
    one = EncodedComparison(
        prompt_ids=[5],
        response_ids=[[1], [2], [3]],
        better=((0, 1),),
        ties=(),
        record=SimpleNamespace(meta={}, origin=Origin("a.jsonl", 1)),
    )
    report = report_on(little(), [one], two)  # of means -1 and 1
    assert report["accuracy"][0] == 0.0
    assert [each["accuracy"][0] for each in report["members"]] == [1.0, 0.0]


def test_the_metrics_have_the_extreme_quantile_of_the_mean_score_of_the_members(ensemble):
    """Reference: the scores of the exported models, and the two largest of their means."""
    metrics = json.loads((ensemble / "metrics.json").read_text())
    context = open_context(changed(little(), {"runs_dir": str(ensemble / "runs")}))
    held_out = list(context.encoded("comparisons").held_out)
    places = [ensemble / "rm" / "model", ensemble / "rm" / "members" / "2"]
    networks = [context.network(context.scalar_model(place)) for place in places]
    means = sum(scores_of(context, one, held_out).double() for one in networks) / 2
    *_, second, first = sorted(means.tolist())
    place = 0.999 * (len(means) - 1)  # linear between the two at whole places
    assert len(means) - 2 < place < len(means) - 1
    expected = second + (place - (len(means) - 2)) * (first - second)
    assert metrics["rm/score_p999"] == pytest.approx(expected, abs=1e-5)


def test_an_ensemble_scores_rollouts_and_answers_by_all_its_members(ensemble, tmp_path):
    values = {"runs_dir": str(ensemble / "runs")}
    context = open_context(changed(little(), values | {"reward.combine": Combine.worst}))
    folders = [ensemble / "rm" / "model", ensemble / "rm" / "members" / "2"]
    prompts = context.encoded("prompts").held_out[:3]
    answers = [
        Answer(prompt_ids=p.ids, ids=context.renderer.response_ids("Sure."), text="", finished=True)
        for p in prompts
    ]
    each = [RewardModel.load(context, [one], prompts).score_answers(answers) for one in folders]
    both = RewardModel.load(context, folders, prompts)
    context.clock.costs["scored_responses"] = 0
    assert torch.allclose(both.score_answers(answers), torch.stack(each).amin(0))
    assert context.clock.costs["scored_responses"] == 6
    inputs = {"sft": ensemble / "sft" / "model", "rm": ensemble / "rm", "rm/2": ensemble / "alone"}
    (ensemble / "rm" / "manifest.json").write_text(manifest("rm").seal().to_json())
    assert reward_folders(inputs) == [*folders, ensemble / "alone"]
    (tmp_path / "ppo").mkdir()
    ppo_stage.run(changed(little(), values), inputs | {"rm/2": folders[1]}, tmp_path / "ppo")
    lines = (tmp_path / "ppo" / "metrics.jsonl").read_text().splitlines()
    spread = [row["objective/members_std"] for row in map(json.loads, lines) if "step" in row]
    assert spread and min(spread) > 0


def test_comparisons_of_ties_alone_are_left_out_by_the_stage_that_drops_ties():
    rows = comparisons(6)
    tied = [replace(rows[0], better=(), ties=((0, 1),)), *rows[1:]]
    soft = changed(little(), {"dpo.ties": Ties.soft})
    assert with_pairs(tied, soft.rm.ties, soft) == tied[1:]
    assert with_pairs(tied, soft.dpo.ties, soft) is tied
    assert with_pairs(tied, Ties.drop, little()) is tied  # left out when they were read
    assert drops_ties(little()) and not drops_ties(soft)
