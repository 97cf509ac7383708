"""The tasks that are left out of the mixture because of those held out."""

import pytest

from rlhf_cli.data.records import DataError
from rlhf_cli.data.tasks.holdout import held_out, left_out, trained_on
from tests.support.tasks import make, one_task, settings


@pytest.fixture
def tasks(tmp_path):
    clusters = {
        "rte": ["nli"], "cb": ["nli"], "mrpc": ["paraphrase"], "both": ["reading", "commonsense"],
        "piqa": ["commonsense"], "squad": ["reading"], "boolq": ["qa"], "mixed": ["paraphrase", "qa"],
    }  # fmt: skip
    return [one_task(make(tmp_path, name=n, clusters=c)) for n, c in clusters.items()]


def test_a_held_out_cluster_leaves_out_the_clusters_exclusive_with_it(tasks):
    reasons = left_out(tasks, settings(hold_out=["nli"]))
    assert reasons["rte"] == reasons["cb"] == "held out"
    assert reasons["mrpc"] == "of cluster paraphrase, exclusive with nli, which is held out"
    assert reasons.keys() == {"rte", "cb", "mrpc", "mixed"}
    assert left_out(tasks, settings(hold_out=["paraphrase"])).keys() == {
        "mrpc",
        "mixed",
        "rte",
        "cb",
        "boolq",
    }
    assert left_out(tasks, settings(hold_out=["nli"], exclusive=[])).keys() == {"rte", "cb"}


def test_a_held_out_task_of_two_clusters_leaves_out_both(tasks):
    reasons = left_out(tasks, settings(hold_out=["both"]))
    assert reasons == {
        "both": "held out",
        "piqa": "of cluster commonsense, as both, which is held out",
        "squad": "of cluster reading, as both, which is held out",
    }
    assert left_out(tasks, settings(hold_out=["reading"])).keys() == {"both", "squad", "piqa"}


def test_a_task_that_is_only_left_out_leaves_out_no_others(tasks):
    """piqa, left out because of `both`, is not evaluated; mixed does not leave out qa."""
    assert [task.name for task in held_out(tasks, ["both"])] == ["both"]
    assert "boolq" not in left_out(tasks, settings(hold_out=["nli"]))


def test_a_task_whose_file_sets_held_out_is_not_trained_on(tasks, tmp_path):
    bench = one_task(make(tmp_path, name="bench", clusters=["qa"], held_out=True))
    reasons = left_out([*tasks, bench], settings(hold_out=[]))
    assert reasons.keys() == {"bench", "boolq", "mixed"}


def test_a_mixture_without_remaining_tasks_is_refused(tasks):
    with pytest.raises(
        DataError, match=r"leaves none of 2 tasks to train on \(rte: held out, and 1 more\)"
    ):
        trained_on(tasks[:2], settings(hold_out=["nli"]))
    with pytest.raises(DataError, match=r"no tasks: name task files or presets in tasks.files"):
        trained_on([], settings(hold_out=[]))
    assert len(trained_on(tasks, settings(hold_out=["nli"]))) == 4


def test_an_unknown_name_in_hold_out_is_refused_with_the_nearest(tasks):
    with pytest.raises(
        DataError, match=r"tasks.hold_out: .* named paraphrse: did you mean paraphrase"
    ):
        left_out(tasks, settings(hold_out=["paraphrse"]))
    with pytest.raises(
        DataError, match=r"tasks.train: no task and no cluster is named x: boolq, both"
    ):
        left_out(tasks, settings(train=["rte", "x"]))


def test_a_task_with_the_name_of_a_cluster_can_be_named_alone(tmp_path):
    files = [make(tmp_path, name=n, clusters=["reading"]) for n in ("reading", "squad")]
    tasks = [one_task(file) for file in files]
    for names, expected in (
        (["reading"], ["reading", "squad"]),
        (["reading/reading"], ["reading"]),
    ):
        assert [task.name for task in held_out(tasks, names)] == expected
        assert [task.name for task in trained_on(tasks, settings(train=names))] == expected
    with pytest.raises(DataError, match="no cluster is named squad/reading: did you mean reading"):
        held_out(tasks, ["squad/reading"])


def test_only_what_is_named_is_trained_on_if_anything_is(tasks):
    """By task or by cluster; what is held out is not, whatever is named."""

    def names(**changes):
        return [task.name for task in trained_on(tasks, settings(**changes))]

    assert names(train=["cb"]) == ["cb"]
    assert names(train=["nli", "qa"]) == ["rte", "cb", "boolq", "mixed"]
    assert names(train=["nli", "qa"], hold_out=["rte"]) == ["boolq"]
    reasons = left_out(tasks, settings(train=["commonsense"], hold_out=["squad"]))
    assert reasons["both"] == "of cluster reading, as squad, which is held out"
    assert reasons["rte"] == "not in tasks.train" and "piqa" not in reasons
    why = (
        r"tasks.train and tasks.hold_out leave none of 8 tasks to train on \(mrpc: held out, and 7"
    )
    with pytest.raises(DataError, match=why):
        names(train=["nli"], hold_out=["mrpc"])
