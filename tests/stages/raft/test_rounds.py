"""RAFT: what a round keeps, what its rounds converge to, and what it is given."""

import itertools
import json
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import pytest
import torch

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Batch, RaftKeep, RaftSource, Schedule, ScheduleKind
from rlhf_cli.data.encode import EncodedComparison, EncodedPrompt
from rlhf_cli.evaluation.kept_samples import distinct_bigrams, keep
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.runtime.world import World
from rlhf_cli.stages import samples
from rlhf_cli.stages.raft.rounds import (
    Models,
    RaftState,
    Rounds,
    collect,
    fit,
    most_steps,
    prompts_of_round,
    steps_of,
    top_ranked,
)
from rlhf_cli.telemetry.timing import Clock
from tests.support.small_stages import changed, little, work
from tests.support.tabular import (
    CPU,
    PARAMS,
    PROMPT,
    Silent,
    arm_probs,
    engine,
    network,
    optim,
    policy_network,
)

REF = torch.tensor([0.1, 0.2, 0.3, 0.4])
REWARDS = torch.tensor([1.0, 0.5, 0.0, -1.0])
BEST_OF_4 = [0.3439, 0.4160, 0.2145, 0.0256]
WINNERS = [0.198894, 0.315155, 0.338422, 0.147529]
BEST_OF_16 = [0.814698, 0.181979, 0.003323, 4e-7]


def answer(name: int, *, finished: bool = True) -> Answer:
    return Answer(prompt_ids=[1], ids=[name], text=str(name), finished=finished)


TRIES = [[answer(0), answer(1), answer(2, finished=False)], [answer(3), answer(4), answer(5)]]
SCORES = [[0.5, 0.1, 9.0], [0.2, 0.9, 0.8]]


def kept(how: RaftKeep, top: float = 0.5, seed: int = 0):
    return keep(TRIES, SCORES, how, top=top, rng=Random(seed))


def test_the_best_finished_answer_of_each_prompt_is_kept():
    found = kept(RaftKeep.best)
    assert [one.ids for one in found.answers] == [[0], [4]]
    assert found.scores == [0.5, 0.9]


def test_the_best_share_of_all_answers_is_kept():
    assert [one.ids for one in kept(RaftKeep.top).answers] == [[4], [5], [0]]
    assert [one.ids for one in kept(RaftKeep.top, top=0.01).answers] == [[4]]


def test_a_random_answer_of_each_prompt_is_kept_whatever_its_score():
    seen = {
        tuple(one.ids[0] for one in kept(RaftKeep.random, seed=seed).answers) for seed in range(40)
    }
    assert seen == {(a, b) for a in (0, 1) for b in (3, 4, 5)}


def test_a_prompt_without_a_finished_answer_is_dropped_and_counted():
    unended = [[replace(one, finished=False) for one in TRIES[0]], TRIES[1]]
    for how in RaftKeep:
        found = keep(unended, SCORES, how, top=1.0, rng=Random(0))
        assert found.num_dropped == 1
        assert {one.ids[0] for one in found.answers} <= {3, 4, 5}


def test_distinct_bigrams_are_the_share_of_different_ones():
    some = [replace(answer(0), ids=ids) for ids in ([1, 2, 3], [1, 2, 1, 2], [7])]
    assert distinct_bigrams(some) == 3 / 5
    assert distinct_bigrams([answer(0)]) == 0.0


def arms(changes=None):
    """Return rounds of the problem with four arms, where every response has ended."""
    many = 6000
    values = {
        "raft.prompts": many,
        "raft.samples": 4,
        "raft.sample_batch": 4 * many,
        "raft.rounds": 2,
        "raft.epochs": 60,
        "raft.batch": Batch(size=many, microbatch=many, max_tokens=None),
        "raft.optim": replace(optim(0.05), grad_clip=None),
    }
    cfg = changed(little(), values | (changes or {}))
    params = replace(PARAMS, end_ids=[0, 1, 2, 3])
    context = SimpleNamespace(
        cfg=cfg,
        world=World(),
        device=CPU,
        clock=Clock(),
        renderer=SimpleNamespace(pad_id=0, end_ids=[0, 1, 2, 3], decode_response=str),
        sampling_params=lambda *, temperature: params,
    )
    reward = SimpleNamespace(
        score_answers=lambda answers: torch.stack([REWARDS[one.ids[0]] for one in answers])
    )
    policy = engine(policy_network(REF), cfg.raft.optim)
    models = Models(policy=policy, reward=reward, reference=network(policy_network(REF)))
    prompt = EncodedPrompt(ids=[PROMPT], messages=(), record=None)
    data = SimpleNamespace(train=[prompt] * many, held_out=[])
    return Rounds(context=context, stage="raft", own=cfg.raft, models=models, data=data)


@pytest.mark.slow
def test_rounds_to_convergence_are_best_of_4_then_best_of_16():
    rounds = arms()
    silent = SimpleNamespace(after_step=lambda *rest: None)
    state, seen = RaftState(), []

    class Watched(Silent):
        def log(self, metrics, step):
            super().log(metrics, step)
            if step in (60, 120):
                seen.append(arm_probs(rounds.models.policy.model).tolist())

    recorder = Watched()
    fit(rounds, state, recorder, silent)
    assert seen[0] == pytest.approx(BEST_OF_4, abs=0.025)
    assert seen[1] == pytest.approx(BEST_OF_16, abs=0.03)
    assert recorder.rows[-1]["objective/kl"] > recorder.rows[0]["objective/kl"] == pytest.approx(0)
    assert recorder.rows[0]["raft/kept_scores"] > recorder.rows[0]["raft/scores"] + 0.3


def test_a_random_kept_sample_gains_nothing():
    _, found = collect(arms({"raft.keep": RaftKeep.random, "raft.prompts": 1000}), 0)
    assert found["raft/kept_scores"] == pytest.approx(found["raft/scores"], abs=0.06)


def test_no_prompt_comes_again_before_all_were_used():
    prompts = [EncodedPrompt(ids=[i], messages=(), record=None) for i in range(12)]
    rounds = [prompts_of_round(prompts, number, size=4, seed=1) for number in range(3)]
    assert sorted(one.ids[0] for some in rounds for one in some) == list(range(12))


def compared(*ended: bool) -> EncodedComparison:
    ids = [[7 + i, 3] if end else [7 + i] for i, end in enumerate(ended)]
    return EncodedComparison(
        prompt_ids=[5], response_ids=ids, better=((0, 1), (0, 2)), ties=(), record=None
    )


def test_the_preferred_responses_of_comparisons_are_learned_from():
    rows = [compared(True, True, False), compared(False, True, True)]
    assert top_ranked(rows) == [([5], [7, 3]), ([5], [7])]
    rounds = arms({"raft.source": RaftSource.comparisons})
    rounds.context.renderer.end_ids = [3]
    rounds.data = SimpleNamespace(train=rows, held_out=[])
    texts, metrics = collect(rounds, 0)
    assert texts == [([5, 7, 3], 1)] and metrics == {}  # one has no end
    assert most_steps(rounds.own, rounds.data) == rounds.own.epochs
    rounds.data = SimpleNamespace(train=rows[1:])
    with pytest.raises(UserError, match="no preferred response that ended"):
        collect(rounds, 0)


def winners(count: int) -> list[EncodedComparison]:
    """Return pairs of different arms drawn from the reference, each won as Bradley-Terry has it."""
    found = []
    for one, other in itertools.permutations(range(4), 2):
        wins = REF[one] * REF[other] * torch.sigmoid(REWARDS[one] - REWARDS[other])
        pair = EncodedComparison(
            prompt_ids=[PROMPT],
            response_ids=[[one], [other]],
            better=((0, 1),),
            ties=(),
            record=None,
        )
        found += [pair] * round(count * float(wins))
    return found


def test_learning_what_was_preferred_gives_the_distribution_of_winners():
    rows = winners(1000)
    size = Batch(size=len(rows), microbatch=len(rows), max_tokens=None)
    rounds = arms({"raft.source": RaftSource.comparisons, "raft.batch": size, "raft.epochs": 80})
    rounds.data = SimpleNamespace(train=rows, held_out=[])
    silent = SimpleNamespace(after_step=lambda *rest: None)
    fit(rounds, RaftState(), Silent(), silent)
    assert arm_probs(rounds.models.policy.model).tolist() == pytest.approx(WINNERS, abs=3e-3)


def test_the_number_of_steps_follows_from_rounds_epochs_size_and_what_is_kept():
    data = arms().data
    values = {"raft.prompts": 20, "raft.samples": 10, "raft.rounds": 3, "raft.epochs": 2}
    values |= {"raft.batch": Batch(size=8, microbatch=8, max_tokens=None)}
    for changes, steps in (
        ({}, 3 * 2 * 3),
        ({"raft.rounds": 1}, 2 * 3),
        ({"raft.epochs": 1}, 3 * 3),
        ({"raft.keep": RaftKeep.top, "raft.top": 0.5}, 3 * 2 * 13),
    ):
        cfg = changed(little(), values | changes)
        assert most_steps(cfg.raft, data) == steps
    context = SimpleNamespace(cfg=cfg, renderer=SimpleNamespace(pad_id=0), world=World())
    kept = [([5, 6, 7, 3], 1)] * 100
    rounds = Rounds(context=context, stage="raft", own=cfg.raft, models=None, data=data)
    found = steps_of(rounds, kept, 0, padded=False)
    assert [sum(len(one.tokens) for one in step) for step in found] == ([8] * 12 + [4]) * 2
    assert found[0][0].loss_mask.sum(1).tolist() == [3] * 8  # of the response


def test_sampling_follows_its_keys(monkeypatch):
    changes = {"raft.prompts": 6, "raft.samples": 3, "raft.sample_batch": 5}
    changes |= {"raft.temperature": 0.6, "raft.keep": RaftKeep.top, "raft.top": 0.5}
    rounds = arms(changes)
    context, asked, respond = rounds.context, {}, samples.respond
    params = context.sampling_params(temperature=None)
    context.sampling_params = lambda *, temperature: asked.update(temperature=temperature) or params

    def recorded(*args, batch, seeds):
        asked.update(batch=batch, seeds=seeds)
        return respond(*args, batch=batch, seeds=seeds)

    monkeypatch.setattr(samples, "respond", recorded)
    texts, found = collect(rounds, 0)
    assert (asked["temperature"], asked["batch"], len(set(asked["seeds"]))) == (0.6, 5, 3)
    assert len(texts) == found["raft/kept"] == 9
    first = asked["seeds"]
    collect(rounds, 1)
    assert not set(first) & set(asked["seeds"])


@pytest.mark.parametrize("source", RaftSource)
def test_the_stage_trains_with_its_own_optimizer_and_schedule(finished_folder, tmp_path, source):
    values = {
        "raft.source": source,
        "raft.prompts": 6,
        "raft.rounds": 2,
        "raft.samples": 4,
        "raft.optim": replace(optim(0.007), weight_decay=0.2),
        "raft.schedule": Schedule(kind=ScheduleKind.linear, warmup=0.0, final=0.5),
        "runs_dir": str(tmp_path / "runs"),
    }
    metrics = work("raft", tmp_path, values, parents=finished_folder)
    lines = (tmp_path / "raft" / "metrics.jsonl").read_text().splitlines()
    rates = [row["raft/lr"] for row in map(json.loads, lines) if "raft/lr" in row]
    assert rates[0] == pytest.approx(0.007) and rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0]
    assert metrics["raft/loss"] > 0
    assert (tmp_path / "raft" / "model" / "model.safetensors").is_file()
