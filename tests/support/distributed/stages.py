"""Code that runs in the processes of test_sharding.py, test_topologies.py and test_saving.py."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Save
from rlhf_cli.launch.signals import Stopped
from rlhf_cli.stages.saving import Saver
from rlhf_cli.telemetry.timing import Clock
from tests.support.engines import odd, runtime, trained, world_of
from tests.support.stage_runs import COMPARED, RATIONALES, work


def stopped_work(stage: str, parents: str, folder: str, step: int, words: list[str]) -> None:
    """Run a stage until `step`, save, and stop."""
    Saver._wanted = lambda self, now: (now == step, now == step)
    try:
        work(stage, Path(parents), Path(folder), *words)
    except Stopped:
        return
    raise AssertionError("it was not stopped")


def every_stage(parents: str, folder: str, words: list[str]) -> None:
    """Run the default pipeline, each stage on the parents of another run, rationales, other methods."""
    for stage in COMPARED:
        work(stage, Path(parents), Path(folder), *words)
    work("rationales", Path(parents), Path(folder), *words, *RATIONALES)


def finished_work(stage: str, parents: str, folder: str, words: list[str]) -> None:
    """Run a stage, or resume it, to its end."""
    work(stage, Path(parents), Path(folder), *words)


def broken_on_one_process(folder: str) -> None:
    """Check that a NaN on process 1 alone is saved by no process, and that each raises."""
    given, work = runtime(None), Path(folder)
    world = world_of(given)
    engine = trained(given, world, odd())
    save = Save(every_steps=1, every_minutes=None, keep=9, keep_replaced=1)
    context = SimpleNamespace(cfg=SimpleNamespace(save=save), world=world, clock=Clock())
    recorder = SimpleNamespace(state=dict)
    saver = Saver(context, work, engines={"policy": engine}, recorder=recorder)
    saver.after_step(1)
    if world.rank == 1:
        for _, master in engine._named():
            master.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"step 2 is not saved: .* holds NaN") as refused:
        saver.after_step(2)
    assert "\n" not in str(refused.value)
    assert ("in another process" in str(refused.value)) == (world.rank == 0)
    world.barrier()
    assert [path.name for path in (work / "resume").iterdir()] == ["step-00000001"]
    saver.world.barrier()
    if world.rank == 1:
        for _, master in engine._named():
            master.data.fill_(0.5)
    saver.after_step(3)
    assert len(list((work / "resume").iterdir())) == 2
