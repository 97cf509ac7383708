"""Means of known values and of sets of items, against means taken by hand."""

from statistics import fmean

import pytest

from rlhf_cli.core.means import mean_of_known, mean_weights, members

SETS_OF = {"a": ["x"], "b": ["x", "y"], "c": ["z", "y"]}
VALUES = {"a": 1.0, "b": 2.0, "c": 5.0}


@pytest.mark.parametrize(("values", "mean"), [([0.0, None, 3.0], 1.5), ([None], None), ([], None)])
def test_the_mean_of_known_values(values, mean):
    assert mean_of_known(iter(values)) == mean


def test_the_members_of_sets():
    assert members(iter(SETS_OF), SETS_OF) == {"x": ["a", "b"], "y": ["b", "c"], "z": ["c"]}
    assert members(["c"], SETS_OF) == {"z": ["c"], "y": ["c"]}


def test_weights_of_a_mean_of_means():
    sets = list(members(VALUES, SETS_OF).values())
    expected = fmean(fmean(VALUES[item] for item in some) for some in sets)
    weights = mean_weights(sets)
    assert sum(weight * VALUES[item] for item, weight in weights.items()) == pytest.approx(expected)
    assert sum(weights.values()) == pytest.approx(1)
