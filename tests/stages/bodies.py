"""What runs in the processes of test_sharding.py and test_topologies.py: stages, whole or interrupted."""

from pathlib import Path

from rlhf_cli.launch.signals import Stopped
from rlhf_cli.stages import STAGES
from rlhf_cli.stages.saving import Saver
from tests.stages.test_resume import work


def stopped_work(stage: str, parents: str, folder: str, step: int, words: list[str]) -> None:
    """Work until `step`, save, stop."""
    Saver._wanted = lambda self, now: (now == step, now == step)
    try:
        work(stage, Path(parents), Path(folder), *words)
    except Stopped:
        return
    raise AssertionError("it was not stopped")


def every_stage(parents: str, folder: str, words: list[str]) -> None:
    """All stages, each on the parents of another run."""
    for stage in STAGES:
        work(stage, Path(parents), Path(folder), *words)


def finished_work(stage: str, parents: str, folder: str, words: list[str]) -> None:
    """Work, or go on, to the end."""
    work(stage, Path(parents), Path(folder), *words)
