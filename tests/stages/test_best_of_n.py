"""Best-of-n: what is kept as demonstrations, and the curve of what n gains."""

import json
import math
from types import SimpleNamespace

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.stages import best_of_n, samples
from rlhf_cli.stages.best_of_n import curve, demonstrations, powers_of_two
from tests.support.configuration import composed
from tests.support.small_stages import changed, little, work


def row(scores, *, finished=None, utility=None):
    return {
        "messages": [{"role": "user", "content": "q"}],
        "responses": [f"r{i}" for i in range(len(scores))],
        "finished": finished or [True] * len(scores),
        "scores": scores,
        "utility": utility,
    }


def test_the_best_finished_response_of_the_first_n_is_kept():
    rows = [
        row([0.1, 0.7, 0.3, 9.0]),
        row([0.5, 0.2, 0.4, 9.0], finished=[False, True, True, True]),
        row([0.5, 0.2, 0.4, 9.0], finished=[False, False, False, True]),
    ]
    found, metrics = demonstrations(rows, 3)
    assert [one["messages"][-1] for one in found] == [
        {"role": "assistant", "content": "r1"},
        {"role": "assistant", "content": "r2"},
    ]
    assert metrics["best_of_n/prompts"] == 3 and metrics["best_of_n/kept"] == 2
    assert metrics["best_of_n/kept_score"] == pytest.approx(0.55)
    assert metrics["best_of_n/score"] == pytest.approx(3.3 / 9)


def test_the_curve_chooses_by_the_score_and_shows_what_is_gained():
    """Gold falls where the score rises: the more is chosen from, the worse it gets."""
    rows = [
        row([float(i + k) for i in range(8)], utility=[-float(i) for i in range(8)]) for k in (0, 1)
    ]
    task = SimpleNamespace(UTILITY="worth")
    points = curve(rows, 8, task)
    assert [point["n"] for point in points] == [1, 2, 4, 8]
    assert points[0]["score"][0] == pytest.approx(4.0)
    assert points[-1]["score"][0] == pytest.approx(7.5)
    assert points[0]["worth"][0] == pytest.approx(-3.5) and points[-1]["worth"][0] == -7.0
    assert points[2]["kl"] == pytest.approx(math.log(4) - 3 / 4)
    assert "worth" not in curve([row([1.0, 2.0]), row([2.0, 3.0])], 2, None)[0]
    assert curve([], 8, task) == []


def test_the_curve_ends_at_the_number_of_samples():
    assert powers_of_two(1) == [1]
    assert powers_of_two(8) == [1, 2, 4, 8]
    assert powers_of_two(12) == [1, 2, 4, 8, 12]


def test_prompts_of_both_sides_get_their_numbers_of_responses(finished_folder, tmp_path):
    values = {
        "best_of_n.prompts": 3,
        "best_of_n.n": 2,
        "best_of_n.samples": 4,
        "runs_dir": str(tmp_path / "runs"),
    }
    metrics = work("best_of_n", tmp_path, values, parents=finished_folder)
    folder = tmp_path / "best_of_n"
    drawn = [json.loads(line) for line in (folder / "drawn.jsonl").read_text().splitlines()]
    assert [len(one["scores"]) for one in drawn] == [2, 2, 2, 4, 4, 4]
    kept = [
        json.loads(line)
        for line in (folder / "data" / "demonstrations.jsonl").read_text().splitlines()
    ]
    assert len(kept) == metrics["best_of_n/kept"] <= metrics["best_of_n/prompts"] == 3
    for one in kept:
        source = next(row for row in drawn if row["messages"] == one["messages"][:-1])
        ended = [s for s, end in zip(source["scores"], source["finished"], strict=True) if end]
        assert one["score"] == max(ended)
    assert [point["n"] for point in json.loads((folder / "curve.json").read_text())] == [1, 2, 4]


def test_sampling_follows_its_keys(finished_folder, tmp_path, monkeypatch):
    """Also of another model of the run, here the base model."""
    asked, respond = [], samples.respond

    def recorded(network, prompts, renderer, params, *rest, batch, seeds):
        asked.append((params.temperature, batch, len(seeds)))
        return respond(network, prompts, renderer, params, *rest, batch=batch, seeds=seeds)

    monkeypatch.setattr(samples, "respond", recorded)
    values = {"best_of_n.prompts": 2, "best_of_n.n": 1, "best_of_n.samples": 2}
    values |= {"best_of_n.temperature": 0.7, "best_of_n.batch": 3, "best_of_n.of": "base"}
    values |= {"runs_dir": str(tmp_path / "runs")}
    work("best_of_n", tmp_path, values, parents=finished_folder)
    assert asked == [(0.7, 3, 1), (0.7, 3, 2)]


@pytest.mark.parametrize("of", ["base", "sft", "ppo", "rloo"])
def test_the_model_that_is_sampled_is_a_parent(of):
    parents = STAGES["best_of_n"].parents(composed(f"best_of_n.of={of}"))
    assert parents == (("rm",) if of == "base" else (of, "rm"))
    with pytest.raises(UserError, match=r"best_of_n\.of=rm is none of base, sft, ppo"):
        STAGES["best_of_n"].parents(composed("best_of_n.of=rm"))


def test_a_dry_run_counts_prompts_and_responses():
    values = {"best_of_n.prompts": 2, "best_of_n.samples": 64, "best_of_n.n": 16}
    facts = best_of_n.preview(changed(little(), values), {}).facts
    assert facts["demonstrations"] == "the best of 16 responses to 2 prompts"
    assert facts["curve"] == "64 responses to each of 2 held-out prompts"
