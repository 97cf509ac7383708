"""TensorBoard, wandb and trackio through accelerate's tracker classes."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Tracker


def require_installed(names: list[Tracker]) -> None:
    """Refuse a tracker that is not installed, without importing it."""
    for name in names:
        if find_spec(name.value) is None:
            raise UserError(
                f"tracking.trackers names {name.value}, which is not installed: "
                f"pip install 'rlhf-cli[{name.value}]', or leave it out"
            )


def open_trackers(
    names: list[Tracker],
    *,
    folder: Path,
    project: str,
    run_name: str,
    run_ids: dict[str, str] | None = None,
    step: int | None = None,
) -> list["StartedTracker"]:
    """Return one started tracker per name; TensorBoard writes to <folder>/tensorboard.

    run_ids: name -> `StartedTracker.run_id` of the run to resume; None: new runs.
    step: the last step before the interruption; TensorBoard hides what was logged after it.
    """
    require_installed(names)
    where = {"folder": folder, "project": project, "run_name": run_name}
    return [_open(name, run_ids, step, **where) for name in names]


@dataclass(slots=True, kw_only=True)
class StartedTracker:
    """One of accelerate's trackers. run_id: the id under which its service resumes the run."""

    name: str
    run_id: str | None
    tracker: Any

    def store_init_configuration(self, values: dict) -> None:
        self.tracker.store_init_configuration(values)

    def log(self, values: dict, step: int | None) -> None:
        self.tracker.log(values, step=step)

    def finish(self) -> None:
        self.tracker.finish()


def _open(
    name: Tracker, run_ids, step, *, folder: Path, project: str, run_name: str
) -> StartedTracker:
    from accelerate import PartialState, tracking

    PartialState()  # their loggers raise before it exists
    run_id = (run_ids or {}).get(name.value)
    if name is Tracker.tensorboard:
        purge = {} if step is None else {"purge_step": step + 1}
        tracker = tracking.TensorBoardTracker("tensorboard", logging_dir=str(folder), **purge)
    elif name is Tracker.wandb:
        resume = {"id": run_id, "resume": "allow"} if run_id else {}
        tracker = tracking.WandBTracker(project, name=run_name, dir=str(folder), **resume)
    else:
        resume = {"resume": "allow"} if run_id else {}
        tracker = tracking.TrackioTracker(project, name=run_id or run_name, **resume)
    tracker.start()
    return StartedTracker(name=name.value, run_id=_run_id(name, tracker), tracker=tracker)


def _run_id(name: Tracker, tracker) -> str | None:
    """Return the id that resumes a run: wandb's id, trackio's name, none for TensorBoard's folder."""
    if name is Tracker.tensorboard:
        return None
    return str(tracker.run.id if name is Tracker.wandb else tracker.run.name)
