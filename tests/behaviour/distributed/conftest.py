"""The run that those of several processes are compared with."""

from pathlib import Path

import pytest

from rlhf_cli.config.stage_table import STAGES
from tests.support.stage_runs import SAME_EVERYWHERE, work


@pytest.fixture(scope="session")
def plain(tmp_path_factory) -> Path:
    """All stages of the default pipeline in one process, plain torch, without an interruption."""
    folder = tmp_path_factory.mktemp("plain")
    for stage in (name for name, spec in STAGES.items() if spec.default):
        work(stage, folder, folder, *SAME_EVERYWHERE)
    return folder
