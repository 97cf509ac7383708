"""Fixtures: a cache of read data, a renderer of the plain template, and finished parents."""

import pytest

from tests.support.data_cache import data_cache  # noqa: F401
from tests.support.data_fixtures import plain_renderer  # noqa: F401
from tests.support.small_stages import work


@pytest.fixture(scope="module")
def finished_folder(tmp_path_factory):
    """Return a folder with the stages sft and rm."""
    folder = tmp_path_factory.mktemp("finished")
    for stage in ("sft", "rm"):
        work(stage, folder, {"runs_dir": str(folder / "runs")})
    return folder
