"""SFT on tasks: its fingerprint covers what it reads, and its epochs are those of the mixture."""

from dataclasses import replace

import pytest

from rlhf_cli.config.keys import covers
from rlhf_cli.config.schema import Source
from rlhf_cli.config.stage_table import BY_CONTENT, NOT_RESULTS
from rlhf_cli.stages import sft
from tests.data.tasks.made import make, settings
from tests.stages.little import changed, little
from tests.stages.test_reads import SOURCES, covered_by, recording


@pytest.fixture
def cfg(tmp_path):
    """The little set-up on two tasks, one of which is held out, with a use for every key."""
    files = [make(tmp_path, 30, name="rte"), make(tmp_path, 30, name="sst", clusters=["sentiment"])]
    tasks = settings(*files, hold_out=["nli"], shots=[0, 1], cot=0.5, options=0.5)
    return changed(
        little(),
        {
            "runs_dir": str(tmp_path / "runs"),
            "tasks": tasks,
            "data.demonstrations": [Source(path="tasks:train")],
            "data.max_prompt_tokens": 64,
            "sft.epochs": 2,
            "sft.schedule.final": 0.1,
            "samples": 1,
        },
    )


def test_a_run_on_tasks_reads_what_its_fingerprint_covers(cfg, tmp_path):
    (tmp_path / "sft").mkdir()
    with recording(cfg) as read:
        metrics = sft.run(cfg, {}, tmp_path / "sft")
    covered = covered_by(cfg, "sft")
    tasks = {key for key in covered | read if key.startswith("tasks.")}
    allowed = (*NOT_RESULTS, *BY_CONTENT, *SOURCES)
    assert not [k for k in read - covered if not any(covers(section, k) for section in allowed)]
    assert not {key for key in covered if key.startswith("tasks.")} - read
    assert tasks - covered == {"tasks.files", "tasks.folder", "tasks.hold_out", "tasks.exclusive"}
    assert metrics["sft/epoch"] == 2


def test_what_is_held_out_is_a_change_by_the_tasks_that_are_left(cfg):
    def contents(**changes):
        from rlhf_cli.stages.reading import spec_of

        return spec_of(
            replace(cfg, tasks=replace(cfg.tasks, **changes)), "demonstrations"
        ).contents()

    assert list(contents()["demonstrations"]) == ["tasks:train sst"]
    assert contents() == contents(hold_out=["rte"])
    both = contents(hold_out=[])["demonstrations"]
    assert list(both) == ["tasks:train rte", "tasks:train sst"]
