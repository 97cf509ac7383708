"""Every key of a stage has its effect on weights, files and figures of complete stages.

The stages run once with unusual values, all distinct, so that a value that is taken from elsewhere,
or not at all, gives other weights.
"""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_cli.config.schema import ScheduleKind
from rlhf_cli.evaluation import respond as responding
from rlhf_cli.stages import rm, sft
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.evaluate.prompt_sets import held_out_prompts
from rlhf_cli.stages.ppo import loop
from rlhf_cli.stages.samples import sample_answers
from tests.support.small_stages import WATCHED, Step, changed, little, seeing, work
from tests.support.stage_runs import metrics

SFT = {"lr": 2e-3, "betas": [0.6, 0.7], "eps": 2e-3, "weight_decay": 0.3, "grad_clip": 0.5}
RM = {"lr": 1e-3, "betas": [0.5, 0.8], "eps": 1e-3, "weight_decay": 0.4, "grad_clip": 0.2}
POLICY = {"lr": 2e-3, "betas": [0.7, 0.6], "eps": 3e-3, "weight_decay": 0.5, "grad_clip": 0.1}
VALUE = {"lr": 3e-3, "betas": [0.4, 0.5], "eps": 4e-3, "weight_decay": 0.2, "grad_clip": 0.15}
GRADIENT = {"lr": 4e-3, "betas": [0.3, 0.65], "eps": 5e-3, "weight_decay": 0.6, "grad_clip": 0.05}
DIRECT = {"lr": 5e-3, "betas": [0.2, 0.75], "eps": 6e-3, "weight_decay": 0.7, "grad_clip": 0.02}
EMA = 0.6


def section(name: str, values: dict) -> dict:
    return {f"{name}.{key}": value for key, value in values.items()}


DISTINCT_VALUES = {
    "data.select_fraction": 0.2,
    "sft.epochs": 2,
    "sft.batch.size": 4,
    "sft.batch.microbatch": 2,
    "sft.batch.max_tokens": 60,
    **section("sft.optim", SFT),
    **section("sft.schedule", {"kind": ScheduleKind.linear, "warmup": 0.3, "final": 0.5}),
    "rm.epochs": 2,
    "rm.batch.size": 5,
    "rm.batch.microbatch": 12,
    "rm.batch.max_tokens": 250,
    **section("rm.optim", RM),
    **section("rm.schedule", {"kind": ScheduleKind.linear, "warmup": 0.5, "final": 0.1}),
    "ppo.total_episodes": 20,
    "ppo.batch.rollout": 4,
    "ppo.batch.minibatch": 2,
    "ppo.batch.microbatch": 1,
    "ppo.inner_epochs": 1,
    "ppo.ema_decay": EMA,
    "ppo.ptx.coef": 0.5,
    "ppo.ptx.ratio": 1,
    **section("ppo.optim", POLICY),
    **section("ppo.value_optim", VALUE),
    **section("ppo.schedule", {"kind": ScheduleKind.linear, "warmup": 0.4, "final": 0.2}),
    "rloo.total_episodes": 20,
    "rloo.group": 2,
    "rloo.batch.minibatch": 2,
    "rloo.batch.rollout": 4,
    "rloo.batch.microbatch": 1,
    "rloo.ema_decay": EMA,
    **section("rloo.optim", GRADIENT),
    **section("rloo.schedule", {"kind": ScheduleKind.linear, "warmup": 0.4, "final": 0.2}),
    "dpo.epochs": 2,
    "dpo.batch.size": 5,
    **section("dpo.optim", DIRECT),
    **section("dpo.schedule", {"kind": ScheduleKind.linear, "warmup": 0.5, "final": 0.1}),
    "evaluation.prompts": 5,
    "evaluation.best_of_n": 3,
    "evaluation.batch": 4,
    "samples": 2,
}
# Learning rates as shares of their peaks, step by step, worked out by hand from the schedules:
# 10 demonstrations in fours, twice: 6 steps, of which 2 warm up, then 1/2 is reached 4 steps later.
SFT_FACTORS = [1 / 2, 1, *(1 - 0.5 * k / 4 for k in range(4))]
# 14 comparisons in fives, twice: 6 steps, of which 3 warm up; 1/10 is reached 3 steps later.
RM_FACTORS = [1 / 3, 2 / 3, 1, 1, 1 - 0.9 / 3, 1 - 0.9 * 2 / 3]
# 20 episodes in fours: 5 iterations of 2 steps, of which 2 warm up; 1/5 is reached 3 later.
PPO_FACTORS = [f for f in (1 / 2, 1, 1, 1 - 0.8 / 3, 1 - 0.8 * 2 / 3) for _ in range(2)]


@pytest.fixture(scope="module")
def wiring(tmp_path_factory):
    """Return the records of the stages: folder, steps, microbatches, prompts and sampled rows."""
    folder = tmp_path_factory.mktemp("wired")
    return SimpleNamespace(folder=folder, steps={}, sft=[], rm=[], asked=[], rolled=[])


def run(stage: str, wiring) -> SimpleNamespace:
    """Run one more stage with these values, and record it."""
    with pytest.MonkeyPatch.context() as patch, seeing() as now:
        patch.setattr(sft, "learn", recording(sft.learn, wiring.sft, 1))
        patch.setattr(rm, "learn", recording(rm.learn, wiring.rm, 1))
        patch.setattr(loop, "collect_rollout", recording(loop.collect_rollout, wiring.rolled, 1))
        if stage == "evaluate":
            patch.setattr(responding, "sample", recording(responding.sample, wiring.asked, 3))
        work(stage, wiring.folder, DISTINCT_VALUES)
    wiring.steps[stage] = now.steps
    return wiring


@pytest.fixture(scope="module")
def after_sft(wiring):
    return run("sft", wiring)


@pytest.fixture(scope="module")
def after_rm(after_sft):
    return run("rm", after_sft)


@pytest.fixture(scope="module")
def after_ppo(after_rm):
    return run("ppo", after_rm)


@pytest.fixture(scope="module")
def after_rloo(seen):
    return run("rloo", seen)


@pytest.fixture(scope="module")
def after_dpo(seen):
    return run("dpo", seen)


@pytest.fixture(scope="module")
def seen(after_ppo):
    """Return the records after all stages."""
    return run("evaluate", after_ppo)


def recording(function, recorded: list, place: int):
    """Return the function, which also records its argument at `place`."""

    def record_and_call(*args, **kwargs):
        recorded.append(args[place])
        return function(*args, **kwargs)

    return record_and_call


def adamw(steps: list[Step], factors: list[float], optim: dict) -> list[list[Tensor]]:
    """Return the weights after each step, by AdamW written out (Loshchilov and Hutter 2019)."""
    moments = [(0.0, 0.0) for _ in WATCHED]
    found = []
    for number, (step, factor) in enumerate(zip(steps, factors, strict=True), start=1):
        lr, scale = optim["lr"] * factor, min(1.0, optim["grad_clip"] / (step.norm + 1e-6))
        after = []
        for i, (weight, gradient) in enumerate(zip(step.before, step.gradients, strict=True)):
            m, v = (
                beta * old + (1 - beta) * new
                for beta, old, new in zip(
                    optim["betas"],
                    moments[i],
                    (scale * gradient, (scale * gradient).square()),
                    strict=True,
                )
            )
            moments[i] = (m, v)
            first, second = (1 - beta**number for beta in optim["betas"])
            decay = optim["weight_decay"] if weight.ndim == 2 else 0.0
            move = (m / first) / ((v / second).sqrt() + optim["eps"])
            after.append(weight * (1 - lr * decay) - lr * move)
        found.append(after)
    return found


@pytest.mark.parametrize(
    ("stage", "network", "factors", "optim"),
    [
        ("sft", "LlamaForCausalLM", SFT_FACTORS, SFT),
        ("rm", "LlamaForSequenceClassification", RM_FACTORS, RM),
        ("ppo", "LlamaForCausalLM", PPO_FACTORS, POLICY),
        ("ppo", "LlamaForSequenceClassification", PPO_FACTORS, VALUE),
        ("rloo", "LlamaForCausalLM", PPO_FACTORS, GRADIENT),
        ("dpo", "LlamaForCausalLM", RM_FACTORS, DIRECT),
    ],
)
def test_every_step_equals_adamw_with_the_values_of_the_stage(
    request, stage, network, factors, optim
):
    """Reference: AdamW by hand with schedule, betas, eps, weight decay, clipping and steps."""
    steps = request.getfixturevalue(f"after_{stage}").steps[stage][network]
    assert max(step.norm for step in steps) > 2 * optim["grad_clip"]
    for step, expected in zip(steps, adamw(steps, factors, optim), strict=True):
        for before, after, weight in zip(step.before, step.after, expected, strict=True):
            assert torch.allclose(after - before, weight - before, rtol=2e-2, atol=2e-7)


def test_batches_of_texts_respect_size_rows_and_tokens(after_sft):
    """Rows and tokens limit a forward pass of SFT, and the size limits a step."""
    assert [sum(len(one.tokens) for one in step) for step in after_sft.sft] == [4, 4, 2] * 2
    rows = [len(one.tokens) for step in after_sft.sft for one in step]
    tokens = [int(one.mask.sum()) for step in after_sft.sft for one in step]
    assert max(rows) == 2
    assert max(tokens) <= 60
    roomy = open_context(changed(little(), DISTINCT_VALUES | {"sft.batch.max_tokens": 200}))
    steps = sft.steps_of(roomy, roomy.encoded("demonstrations").train, epoch=0)
    assert max(len(one.tokens) for step in steps for one in step) == 2


def test_batches_of_comparisons_respect_prompts_completions_and_tokens(after_rm):
    assert [sum(one.num_prompts for one in step) for step in after_rm.rm] == [5, 5, 4] * 2
    several = [one for step in after_rm.rm for one in step if one.num_prompts > 1]
    assert several
    assert max(len(one.tokens) for one in several) <= 12
    assert max(int(one.mask.sum()) for one in several) <= 250


def weights_of(folder: Path) -> list[Tensor]:
    tensors = load_file(folder / "model.safetensors")
    return [tensors[name] for name in WATCHED]


@pytest.mark.parametrize("stage", ["sft", "rm"])
def test_the_exported_weights_are_those_after_the_last_step(request, stage):
    seen = request.getfixturevalue(f"after_{stage}")
    (steps,) = seen.steps[stage].values()
    for exported, last in zip(
        weights_of(seen.folder / stage / "model"), steps[-1].after, strict=True
    ):
        assert torch.equal(exported, last)


@pytest.mark.parametrize("stage", ["ppo", "rloo"])
def test_the_averaged_policy_is_exported(request, stage):
    """Reference: the recursion over the weights after every step."""
    found = request.getfixturevalue(f"after_{stage}")
    policy = found.steps[stage]["LlamaForCausalLM"]
    average = policy[0].before
    for step in policy:
        average = [
            EMA * old + (1 - EMA) * new for old, new in zip(average, step.after, strict=True)
        ]
    for exported, mean, last in zip(
        weights_of(found.folder / stage / "model"), average, policy[-1].after, strict=True
    ):
        assert torch.allclose(exported, mean, atol=1e-7)
        assert not torch.allclose(exported, last, atol=1e-6)


def test_the_last_value_model_is_exported(after_ppo):
    _, value = after_ppo.steps["ppo"].values()
    for exported, last in zip(
        weights_of(after_ppo.folder / "ppo" / "value_model"), value[-1].after, strict=True
    ):
        assert torch.equal(exported, last)


def test_policy_and_value_model_start_from_their_parents(after_ppo):
    policy, value = after_ppo.steps["ppo"].values()
    for role, steps in (("sft", policy), ("rm", value)):
        for parent, start in zip(
            weights_of(after_ppo.folder / role / "model"), steps[0].before, strict=True
        ):
            assert torch.equal(parent, start)
    (reward,) = after_ppo.steps["rm"].values()
    assert torch.equal(reward[0].before[0], weights_of(after_ppo.folder / "sft" / "model")[0])


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def context(after_sft):
    return open_context(changed(little(), DISTINCT_VALUES), after_sft.folder / "sft" / "model")


@torch.no_grad()
def test_the_exported_policy_has_the_reported_loss(after_sft, context):
    """Reference: transformers, text by text of the selection split, on response tokens and EOS."""
    model = AutoModelForCausalLM.from_pretrained(after_sft.folder / "sft" / "model")
    select, total, count = context.encoded("demonstrations").select, 0.0, 0
    assert len(select) > 1
    for one in select:
        logprobs = model(torch.tensor([one.ids])).logits[0, :-1].log_softmax(-1)
        learned = torch.tensor(one.loss_mask[1:])
        total -= float(logprobs[range(len(one.ids) - 1), one.ids[1:]][learned].sum())
        count += int(learned.sum())
    rows = metrics(after_sft.folder / "sft")
    assert [row["sft/epoch"] for row in rows if "sft/epoch" in row] == [1, 2]
    assert total / count == pytest.approx(rows[-1]["sft/eval_loss"], abs=1e-4)


@pytest.fixture(scope="module")
def scored(after_rm):
    """Return scored(rows of token ids), the scores of the exported model in transformers."""
    model = AutoModelForSequenceClassification.from_pretrained(after_rm.folder / "rm" / "model")

    @torch.no_grad()
    def score(rows: list[list[int]]) -> Tensor:
        return torch.stack([model(torch.tensor([ids])).logits[0, 0] for ids in rows])

    return score


def test_the_exported_reward_model_has_the_reported_margin(after_rm, context, scored):
    found = json.loads((after_rm.folder / "rm" / "report.json").read_text())
    gaps = []
    for one in context.encoded("comparisons").held_out:
        scores = scored([one.prompt_ids + ids for ids in one.response_ids])
        gaps += [float(scores[win] - scores[lose]) for win, lose in one.better]
    assert len(gaps) == found["num_pairs"]
    assert sum(gaps) / len(gaps) == pytest.approx(found["margin"], abs=1e-4)
    assert sum(gap > 0 for gap in gaps) / len(gaps) == pytest.approx(found["accuracy"][0], abs=0.02)


def test_the_mean_score_of_the_demonstrations_is_zero(after_rm, context, scored):
    """This gives a constant score for a missing EOS a meaning (InstructGPT, section 3.5)."""
    scores = scored([one.ids for one in context.encoded("demonstrations").train])
    assert float(scores.mean()) == pytest.approx(0, abs=1e-4)
    assert float(scores.std()) > 0.01


def test_ppo_runs_total_episodes(after_ppo):
    rows = metrics(after_ppo.folder / "ppo")
    assert [row["ppo/episodes"] for row in rows] == [4, 8, 12, 16, 20]
    assert [row["policy/steps"] for row in rows] == [2] * 5
    assert all(row["loss/ptx"] > 0 for row in rows)


def test_the_evaluation_answers_held_out_prompts_only(seen, context):
    """The prompts are held out, distinct, and as many as configured."""
    prompts = context.encoded("prompts")
    held_out = {tuple(one.ids) for one in prompts.held_out}
    asked = [tuple(one.ids) for one in held_out_prompts(context)]
    assert asked != [tuple(one.ids) for one in prompts.held_out[:5]]
    assert len(set(asked)) == 5
    assert set(asked) <= held_out
    assert not set(asked) & {tuple(one.ids) for one in prompts.train}
    texts = {one.record.messages[0].content for one in prompts.held_out}
    answers = lines(seen.folder / "evaluate" / "answers.jsonl")
    assert {one["prompt"] for one in answers} <= texts


def test_every_candidate_answers_every_prompt(seen):
    answers = lines(seen.folder / "evaluate" / "answers.jsonl")
    models = [one["model"] for one in answers]
    assert list(dict.fromkeys(models)) == ["base", "SFT", "SFT, best of 3", "PPO"]
    assert {models.count(model) for model in models} == {5}
    best, gold = ([one[k] for one in answers_of(seen, "SFT, best of 3")] for k in ("score", "gold"))
    table = json.loads((seen.folder / "evaluate" / "table.json").read_text())
    row = table["rows"]["SFT, best of 3"]
    assert row["score"][0] == pytest.approx(sum(best) / 5, abs=1e-4)
    assert row["gold"][0] == pytest.approx(sum(gold) / 5)
    assert row["kl"][0] == pytest.approx(math.log(3) - 2 / 3)
    assert table["rows"]["SFT"]["kl"][0] == pytest.approx(0, abs=1e-4)


def test_a_forward_pass_of_the_evaluation_holds_evaluation_batch_rows(seen):
    """Its rows are prompts times answers per prompt."""
    assert max(len(numbers) for numbers in seen.asked) == 4


@pytest.mark.parametrize(
    ("stage", "after"), [("sft", "after_sft"), ("ppo", "after_ppo"), ("evaluate", "seen")]
)
def test_the_number_of_displayed_samples_is_that_of_the_configuration(request, stage, after):
    folder = request.getfixturevalue(after).folder
    assert len(lines(folder / stage / "samples.jsonl")) == 2


def test_the_displayed_comparison_lists_its_responses_by_score(after_rm, context, scored):
    """Reference: the scores of the exported model; equal displayed scores lose no response."""
    (row,) = lines(after_rm.folder / "rm" / "samples.jsonl")
    one = context.encoded("comparisons").held_out[0]
    scores = scored([one.prompt_ids + ids for ids in one.response_ids])
    order = scores.argsort(descending=True).tolist()
    shown = [(key, text) for key, text in row.items() if key not in ("title", "prompt")]
    assert [text for _, text in shown] == [one.record.responses[i] for i in order]
    found = [float(key.split(": ")[1]) for key, _ in shown]
    assert found == pytest.approx([float(scores[i]) for i in order], abs=0.006)


def test_ppo_samples_responses_to_training_prompts_only(after_ppo, context):
    """Each of them occurs once before any is repeated, in an order of the seed."""
    train = [tuple(one.ids) for one in context.encoded("prompts").train]
    asked = [
        tuple(row[mask].tolist())
        for one in after_ppo.rolled
        for row, mask in zip(one.tokens, one.mask, strict=True)
    ]
    assert len(asked) == 20
    assert sorted(asked[: len(train)]) == sorted(train)
    assert asked[: len(train)] != train
    assert set(asked) <= set(train)


def answers_of(seen, model: str) -> list[dict]:
    answers = lines(seen.folder / "evaluate" / "answers.jsonl")
    return [one for one in answers if one["model"] == model]


def test_every_candidate_answers_with_its_own_weights(seen, context):
    """Reference: answers of each model folder with the same random numbers."""
    folders = {"base": None, "SFT": seen.folder / "sft", "PPO": seen.folder / "ppo"}
    texts = {}
    for model, folder in folders.items():
        path = folder and folder / "model"
        network = context.network(context.causal_lm(path))
        answers = sample_answers(context, network, held_out_prompts(context), context.cfg.seed)
        texts[model] = [one.text for one in answers]
        assert [one["response"] for one in answers_of(seen, model)] == texts[model]
    assert texts["base"] != texts["SFT"] != texts["PPO"]


def test_best_of_n_draws_answers_of_its_own(seen):
    """They use other random numbers than the single answer."""
    single = [one["response"] for one in answers_of(seen, "SFT")]
    best = [one["response"] for one in answers_of(seen, "SFT, best of 3")]
    assert single != best


def test_the_win_rate_is_against_the_sft_model(seen):
    table = json.loads((seen.folder / "evaluate" / "table.json").read_text())
    base = answers_of(seen, "SFT")
    for model in ("base", "SFT", "PPO"):
        won = [
            0.5
            if all(answer[key] == baseline[key] for key in ("response", "finished"))
            else float(answer["score"] > baseline["score"])
            for answer, baseline in zip(answers_of(seen, model), base, strict=True)
        ]
        assert table["rows"][model]["win_rate"][0] == pytest.approx(sum(won) / 5)
