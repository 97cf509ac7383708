"""The run with which those of several processes are compared."""

from pathlib import Path

import pytest

from tests.support.stage_runs import COMPARED, RATIONALES, SAME_EVERYWHERE, work


@pytest.fixture(scope="session")
def plain(tmp_path_factory) -> Path:
    """Run the default pipeline, rationales and other methods in one process with plain torch.

    Return the folder.
    """
    folder = tmp_path_factory.mktemp("plain")
    for stage in COMPARED:
        work(stage, folder, folder, *SAME_EVERYWHERE)
    work("rationales", folder, folder, *SAME_EVERYWHERE, *RATIONALES)
    return folder
