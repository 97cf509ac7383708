"""The tasks that are left out of the mixture because of those held out."""

import pytest

from rlhf_cli.data.records import DataError
from rlhf_cli.data.tasks.holdout import held_out, left_out, trained_on
from tests.support.tasks import make, one_task

PAIRS = [["nli", "paraphrase"]]


@pytest.fixture
def tasks(tmp_path):
    clusters = {
        "rte": ["nli"], "cb": ["nli"], "mrpc": ["paraphrase"], "both": ["reading", "commonsense"],
        "piqa": ["commonsense"], "squad": ["reading"], "boolq": ["qa"], "mixed": ["paraphrase", "qa"],
    }  # fmt: skip
    return [one_task(make(tmp_path, name=n, clusters=c)) for n, c in clusters.items()]


def test_a_held_out_cluster_leaves_out_the_clusters_exclusive_with_it(tasks):
    reasons = left_out(tasks, ["nli"], PAIRS)
    assert reasons["rte"] == reasons["cb"] == "held out"
    assert reasons["mrpc"] == "of cluster paraphrase, exclusive with nli, which is held out"
    assert reasons.keys() == {"rte", "cb", "mrpc", "mixed"}
    assert left_out(tasks, ["paraphrase"], PAIRS).keys() == {"mrpc", "mixed", "rte", "cb", "boolq"}
    assert left_out(tasks, ["nli"], []).keys() == {"rte", "cb"}


def test_a_held_out_task_of_two_clusters_leaves_out_both(tasks):
    reasons = left_out(tasks, ["both"], PAIRS)
    assert reasons == {
        "both": "held out",
        "piqa": "of cluster commonsense, as both, which is held out",
        "squad": "of cluster reading, as both, which is held out",
    }
    assert left_out(tasks, ["reading"], PAIRS).keys() == {"both", "squad", "piqa"}


def test_a_task_that_is_only_left_out_leaves_out_no_others(tasks):
    """piqa, left out because of `both`, is not evaluated; mixed does not leave out qa."""
    assert [task.name for task in held_out(tasks, ["both"])] == ["both"]
    assert "boolq" not in left_out(tasks, ["nli"], PAIRS)


def test_a_task_whose_file_sets_held_out_is_not_trained_on(tasks, tmp_path):
    bench = one_task(make(tmp_path, name="bench", clusters=["qa"], held_out=True))
    reasons = left_out([*tasks, bench], [], PAIRS)
    assert reasons.keys() == {"bench", "boolq", "mixed"}


def test_a_mixture_without_remaining_tasks_is_refused(tasks):
    with pytest.raises(DataError, match=r"leaves none of 2 tasks to train on \(rte: held out\)"):
        trained_on(tasks[:2], ["nli"], PAIRS)
    with pytest.raises(DataError, match=r"no tasks: name task files or presets in tasks.files"):
        trained_on([], [], PAIRS)
    assert len(trained_on(tasks, ["nli"], PAIRS)) == 4


def test_an_unknown_name_in_hold_out_is_refused_with_the_nearest(tasks):
    with pytest.raises(
        DataError, match=r"tasks.hold_out: .* named paraphrse: did you mean paraphrase"
    ):
        left_out(tasks, ["paraphrse"], PAIRS)
