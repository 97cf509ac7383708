"""A stage at work: its recorder, its checkpoints, and what it resumes from, opened together."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.config.compose import freeze
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.samples import BeforeAfter
from rlhf_cli.stages.saving import Resumed, Saver, load_checkpoint, require_space
from rlhf_cli.telemetry.recorder import RecordedStage, Recorder


@dataclass(slots=True, kw_only=True)
class StageRun:
    """resumed: what the checkpoint holds that the stage continues from; None where it starts."""

    recorder: Recorder
    saver: Saver
    resumed: Resumed | None


@contextmanager
def open_run(
    context: StageContext,
    out: Path,
    *,
    stage: str,
    engines: dict[str, Engine],
    total_steps: int,
    samples: BeforeAfter | None = None,
) -> Iterator[StageRun]:
    """Yield the run of a stage; its engines and samples are as they were saved, where they were.

    samples: answers shown before and after the training.
    """
    if context.world.is_main and engines:
        require_space(out, engines, keep=context.cfg.save.keep)
    resumed = load_checkpoint(context, out, engines)
    if resumed and samples:
        samples.texts = resumed.samples
    with open_recorder(
        context,
        out,
        stage=stage,
        total_steps=total_steps,
        resumed=resumed.recorder if resumed else None,
    ) as recorder:
        saver = Saver(context, out, engines=engines, recorder=recorder, samples=samples)
        yield StageRun(recorder=recorder, saver=saver, resumed=resumed)


def open_recorder(
    context: StageContext, out: Path, *, stage: str, total_steps: int, resumed: dict | None = None
) -> Recorder:
    """Return the recorder of a stage with the trackers of tracking.trackers; it is silent off rank 0.

    resumed: what `Recorder.state` gave when the stage was saved.
    """
    cfg, silent = context.cfg, not context.world.is_main
    price = cfg.tracking.price_per_hour
    return Recorder(
        out,
        RecordedStage(
            name=stage,
            total_steps=total_steps,
            headline=STAGES[stage].headline,
            every=cfg.tracking.every,
            config=freeze(cfg),
            price=None if price is None else price * context.world.size,
        ),
        trackers=[] if silent else trackers_of(cfg, out, stage, resumed or {}),
        clock=context.clock,
        silent=silent,
        resumed=resumed,
    )


def trackers_of(cfg: Config, out: Path, stage: str, resumed: dict) -> list:
    """Open the trackers that the configuration names; their libraries are imported only then."""
    if not cfg.tracking.trackers:
        return []
    from rlhf_cli.runtime.trackers import open_trackers

    return open_trackers(
        cfg.tracking.trackers,
        folder=out,
        project=cfg.tracking.project,
        run_name=f"{cfg.name}-{stage}",
        run_ids=resumed.get("run_ids"),
        step=resumed.get("step"),
    )
