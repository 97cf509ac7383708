"""results.json: what is written is read, and what another version wrote is refused."""

import json

import pytest

from rlhf_cli.artifacts.manifest import ArtifactError
from rlhf_cli.artifacts.results import RESULTS, Figure, Results, read_results, select, write_results

ONE = Figure(
    part="win_rates", measure="win_rate", value=0.5, low=0.4, high=0.6, count=9, policy="PPO"
)
OTHER = Figure.of((1.0, 1.0, 1.0), part="win_rates", measure="length", count=3, judge="gold")


def test_what_is_written_is_read(tmp_path):
    results = Results(
        figures=[ONE, OTHER],
        verdicts=[{"policy": "PPO", "verdict": "gained"}],
        curves={"watch": [{"iteration": 0, "score": 1.5}]},
        missing=["the judge does not answer"],
    )
    write_results(tmp_path, results)
    assert read_results(tmp_path) == results
    assert "judge" not in json.loads((tmp_path / RESULTS).read_text())["figures"][0]


def test_no_file_is_no_results(tmp_path):
    assert read_results(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"version": 0, "figures": []}', "version 0, and this program reads version 1; run the"),
        ('{"figures": []}', "holds no results of this program; run the stage evaluate again"),
        ('{"version": 1, "figures": [{"x": 1}]}', "holds no results of this program"),
        ("[]", "holds no results of this program"),
        ("{", "holds no results of this program"),
    ],
)
def test_what_cannot_be_read_is_refused(text, expected, tmp_path):
    (tmp_path / RESULTS).write_text(text)
    with pytest.raises(ArtifactError, match=expected):
        read_results(tmp_path)


def test_figures_are_selected_by_what_they_are_of():
    assert select([ONE, OTHER], part="win_rates", policy="PPO") == [ONE]
    assert select([ONE, OTHER], judge=None) == [ONE]
