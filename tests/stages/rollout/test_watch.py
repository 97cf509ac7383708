"""The watch over a policy: when it looks, which weights are best, and what is resumed."""

import json
from dataclasses import replace

import pytest

from rlhf_cli.config.schema import WatchBy
from rlhf_cli.stages.rollout import watch as watching
from rlhf_cli.stages.rollout.watch import PolicyWatch, watched_prompts
from tests.support.small_stages import little


class Watched(PolicyWatch):
    """A watch whose looks find what a test gives."""

    found: dict[int, dict]

    def _row(self, policy, done):
        row = {"iteration": done, "score": 0.0, "symptoms": [], "kl": 0.0} | self.found[done]
        return row | {"best": self._is_best(row)}

    def _export(self, policy, done):
        (self.out / "best").mkdir(exist_ok=True)
        self.exported = done


class Lines(list):
    def note(self, text):
        self.append(text)

    warn = note


class Alone:
    is_main = True

    def broadcast(self, value):
        return value

    def barrier(self):
        pass


@pytest.fixture
def told(tmp_path):
    """Return a function that makes a watch of rows that are given."""

    def make(found, check=None, **settings):
        context = type("Context", (), {"world": Alone()})()
        own = replace(little().ppo.watch, **({"every": 1} | settings))
        made = Watched(
            context=context, settings=own, prompts=[None], reward=None, check=check,
            reference=None, score_limit=None, out=tmp_path, recorder=Lines(),
        )  # fmt: skip
        made.found = found
        return made

    Watched.__slots__ = ()
    return make


def test_symptoms_and_the_budget_rule_weights_out_and_the_first_look_too(told):
    found = {
        0: {"score": 9.0},
        1: {"score": 1.0},
        2: {"score": 5.0, "symptoms": ["length"]},
        3: {"score": 4.0, "kl": 11.0},
        4: {"score": 2.0, "kl": 10.0},
        5: {"score": 2.0},
    }
    watch = told(found, kl_budget=10.0)
    for done in found:
        watch.look(None, done)
    assert [row["iteration"] for row in watch.rows if row["best"]] == [1, 4]
    assert watch.exported == 4
    assert watch.finish() == {"watch/best_iteration": 4.0, "watch/best_score": 2.0}
    assert watch.recorder == [
        "watch after iteration 2: length",
        "best weights: after iteration 4 of 5, by score +2.000: best/",
    ]
    assert [json.loads(text)["score"] for text in (watch.out / "watch.jsonl").open()] == [
        9.0, 1.0, 5.0, 4.0, 2.0, 2.0,
    ]  # fmt: skip


def test_with_a_check_that_chooses(told):
    found = {done: {"score": float(done), "check": -float(done)} for done in range(4)}
    watch = told(found, check=object())
    for done in found:
        watch.look(None, done)
    assert watch.finish()["watch/best_iteration"] == 1.0


def test_looks_come_every_so_many_iterations_and_after_the_last(told):
    watch = told({done: {} for done in range(8)}, every=3)
    for done in range(8):
        watch.look(None, done, last=done == 7)
    assert [row["iteration"] for row in watch.rows] == [0, 3, 6, 7]


@pytest.mark.parametrize(("done", "exported", "is_there"), [(3, 2, True), (1, None, False)])
def test_an_interrupted_watch_forgets_what_comes_again(told, done, exported, is_there):
    """Of weights that are trained again best/ is removed; of a line torn by the crash nothing is read."""
    found = {0: {}, 1: {"score": 1.0}, 2: {"score": 3.0}, 3: {"score": 2.0}}
    before = told(found)
    for number in found:
        before.look(None, number)
    with (before.out / "watch.jsonl").open("a") as stream:
        stream.write('{"iteration": 4, "sco')
    watch = told(found)
    watch.resume(done)
    assert [row["iteration"] for row in watch.rows] == list(range(done + 1))
    assert watch.exported == exported and (watch.out / "best").exists() == is_there
    for number in found:
        watch.look(None, number)
    assert watch.rows == before.rows and watch.exported == 2
    assert watch.finish()["watch/best_iteration"] == 2.0


def test_weights_that_were_lost_are_not_named_best(told):
    watch = told({0: {}, 1: {"score": 1.0}})
    for done in (0, 1):
        watch.look(None, done)
    watch.exported = None
    assert watch.finish() == {} and "were lost" in watch.recorder[-1]
    silent = told({0: {}, 1: {"symptoms": ["length"]}})
    for done in (0, 1):
        silent.look(None, done)
    assert silent.finish() == {} and "there is no best/" in silent.recorder[-1]


def test_the_prompts_are_held_out_ones_drawn_by_the_seed(monkeypatch):
    context = type("Context", (), {"cfg": little()})()
    held_out = list(range(50))
    some = watched_prompts(context, replace(little().ppo.watch, prompts=8), held_out)
    assert len(set(some)) == 8 and some != sorted(some)
    assert watched_prompts(context, replace(little().ppo.watch, every=None), held_out) == []
    few = watched_prompts(context, replace(little().ppo.watch, prompts=99), held_out)
    assert sorted(few) == held_out


def test_a_check_is_opened_unless_the_score_chooses(monkeypatch):
    opened = []
    monkeypatch.setattr(
        watching, "open_judge", lambda context, place, prompts: opened.append(place)
    )
    for by in WatchBy:
        cfg = replace(little(), parents=replace(little().parents, check="folder"))
        context = type("Context", (), {"cfg": cfg})()
        settings = replace(little().ppo.watch, by=by)
        watching.open_watch(
            context, settings, ["x"], reward=None, reference=None, rm=watching.Path("none"),
            out=None, recorder=None,
        )  # fmt: skip
    assert opened == ["folder", "folder"]
