"""The draw of an epoch: sizes, templates, rows and exemplars, the same on any machine."""

from collections import Counter

import pytest

from rlhf_cli.data.records import DataError
from rlhf_cli.data.tasks.mixture import Draw, chosen_templates, hashed, quotas, weights
from rlhf_cli.data.tasks.rows import task_rows
from rlhf_cli.data.tasks.task import Template
from tests.support.tasks import make, one_task, rows, settings

SIZES = {"a": 200, "b": 3000, "c": 30000, "d": 1000}


def test_weights_equal_the_published_ones_with_the_maximal_rate():
    found = weights(SIZES, rate=3000)
    assert [round(share, 4) for share in found.values()] == [0.0278, 0.4167, 0.4167, 0.1389]


def test_quotas_sum_to_the_requested_examples_without_repeating_rows():
    assert quotas(SIZES, examples=20000, rate=3000) == {"a": 200, "b": 3000, "c": 3000, "d": 1000}
    assert quotas(SIZES, examples=720, rate=3000) == {"a": 20, "b": 300, "c": 300, "d": 100}
    assert quotas({"a": 30000, "b": 6000}, examples=20000, rate=3000) == {"a": 6000, "b": 6000}
    assert quotas({"a": 7}, examples=3, rate=3000) == {"a": 3}


def templates(plain: int, around: int) -> list[Template]:
    listed = [Template(name=f"p{i}", input="", target="") for i in range(plain)]
    turned = [
        Template(name=f"t{i}", input="", target="", turned_around=True) for i in range(around)
    ]
    return turned + listed


def test_at_most_three_templates_are_inverted_and_never_all():
    for seed in range(30):
        chosen = chosen_templates(templates(9, 9), task="a", num=10, seed=seed)
        assert len(chosen) == len(set(chosen)) == 10
        assert sum(t.turned_around for t in chosen) <= 3
        assert not chosen_templates(templates(2, 9), task="a", num=1, seed=seed)[0].turned_around
    assert len(chosen_templates(templates(1, 9), task="a", num=10, seed=0)) == 4


def test_the_choice_of_templates_depends_on_the_seed_and_the_task():
    drawn = {
        chosen_templates(templates(9, 0), task=task, num=2, seed=seed)
        for seed in range(4)
        for task in "ab"
    }
    assert len(drawn) > 4


@pytest.fixture
def draw(tmp_path):
    """Return draw(num rows, **settings) -> (the draw from a task, its training rows)."""

    def make_draw(num: int = 60, seed: int = 1, **changes):
        path = make(tmp_path, num)
        rows = task_rows(one_task(path), seed=seed, eval_fraction=0.2, select_fraction=0.1)
        found = Draw.of(rows, settings(path, **changes), seed)
        return found, found.usable()

    return make_draw


def test_a_row_uses_each_template_once_in_as_many_epochs(draw):
    found, rows = draw()
    for row in rows[:10]:
        names = [found.template(row, epoch).name for epoch in range(6)]
        assert set(names[:3]) == {"conclude", "true", "invent"} and names[:3] == names[3:]
    first = Counter(found.template(row, 0).name for row in rows)
    assert min(first.values()) > len(rows) / 6


def test_the_template_of_a_row_is_the_same_on_any_machine(draw):
    found, rows = draw()
    assert hashed(1, "rte", 3, "template") == 4170003833419866541
    names = [t.name for t in found.templates]
    row = next(row for row in rows if row.number == 3)
    assert found.template(row, 2).name == names[(4170003833419866541 + 2) % 3]


def test_epochs_use_all_rows_before_any_row_is_repeated(draw):
    found, _ = draw()
    epochs = [found.order(10, 4, epoch) for epoch in range(5)]
    assert all(len(set(rows)) == 4 for rows in epochs)
    assert sorted(row for rows in epochs for row in rows) == sorted(list(range(10)) * 2)


def test_exemplars_have_the_template_of_the_row_and_are_never_the_row_itself(draw):
    found, rows = draw(shots=[0, 2, 3], options=0.5, cot=0.5)
    pools = found.pools(rows)
    counts, chains = Counter(), Counter()
    trained = {row.origin for row in rows}
    for row in rows:
        for epoch in range(3):
            drawn = found.drawn(row, epoch, pools)
            counts[len(drawn.exemplars)] += 1
            chains[drawn.example.chain] += 1
            places = [one.origin for one in drawn.exemplars]
            assert row.origin not in places and len(set(places)) == len(places)
            assert set(places) <= trained and drawn.lacking == 0
            for one in drawn.exemplars:
                assert one.template == drawn.example.template
                assert one.chain == drawn.example.chain
                assert ("OPTIONS" in one.input) == ("OPTIONS" in drawn.example.input)
    assert counts.keys() == {0, 2, 3} and min(counts.values()) > 20
    assert chains[True] > 20


def test_whether_options_are_shown_depends_on_the_row(draw):
    found, rows = draw(200, options=0.3)
    pools = found.pools(rows)
    shown = {
        row.number: {
            "OPTIONS" in one.input
            for epoch in range(3)
            if (one := found.drawn(row, epoch, pools).example).template != "invent"
        }
        for row in rows
    }
    assert all(len(values) == 1 for values in shown.values())
    assert 0.15 < sum(True in values for values in shown.values()) / len(shown) < 0.45


def test_another_seed_gives_another_draw(draw):
    (one, rows), (other, _) = draw(seed=1, shots=[0, 2]), draw(seed=2, shots=[0, 2])
    row = rows[0]
    first = [len(one.drawn(row, e, one.pools(rows)).exemplars) for e in range(20)]
    second = [len(other.drawn(row, e, other.pools(rows)).exemplars) for e in range(20)]
    assert first != second


def test_a_task_with_too_few_rows_for_its_exemplars_is_refused(tmp_path):
    from tests.support.tasks import mixture, records

    path = make(tmp_path, 6)
    with pytest.raises(DataError, match=r"rte.yaml: tasks.shots=\[0, 9\] needs 10 rows .* has \d"):
        records(mixture(path, shots=[0, 9]))


def test_exemplars_of_a_chain_of_thought_have_chains_of_thought(tmp_path):
    """Rows without a rationale are skipped where the example has one."""
    listed = [{**row, "why": None if i % 2 else "so"} for i, row in enumerate(rows(60))]
    path = make(tmp_path, rows=listed)
    read = task_rows(one_task(path), seed=1, eval_fraction=0.2, select_fraction=0.1)
    found = Draw.of(read, settings(path, shots=[2], cot=1.0, templates=1), 1)
    pools = found.pools(found.usable())
    drawn = [found.drawn(row, 0, pools) for row in found.usable()]
    forms = [{one.example.chain, *(e.chain for e in one.exemplars)} for one in drawn]
    assert all(len(form) == 1 for form in forms) and {True} in forms and {False} in forms
    assert all(one.lacking == 0 for one in drawn)
