"""TensorBoard, wandb and trackio through accelerate's tracker classes."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Tracker


def require_installed(names: list[Tracker]) -> None:
    """Refuse a tracker that is not installed, before anything starts; imports none of them."""
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
) -> list["Opened"]:
    """One started tracker a name; TensorBoard writes to <folder>/tensorboard.

    run_ids: name -> run to go on with, after an interruption (`Opened.run_id` gave it); None: new runs.
    step: where it goes on; what TensorBoard was told beyond it is hidden.
    """
    require_installed(names)
    place = {"folder": folder, "project": project, "run_name": run_name}
    return [_open(name, run_ids, step, **place) for name in names]


@dataclass(slots=True, kw_only=True)
class Opened:
    """One of accelerate's trackers. run_id: by what its service finds the run again."""

    name: str
    run_id: str | None
    tracker: Any

    def store_init_configuration(self, values: dict) -> None:
        self.tracker.store_init_configuration(values)

    def log(self, values: dict, step: int | None) -> None:
        self.tracker.log(values, step=step)

    def finish(self) -> None:
        self.tracker.finish()


def _open(name: Tracker, run_ids, step, *, folder: Path, project: str, run_name: str) -> Opened:
    from accelerate import PartialState, tracking

    PartialState()  # their loggers refuse to speak before it exists
    known = (run_ids or {}).get(name.value)
    if name is Tracker.tensorboard:
        beyond = {} if step is None else {"purge_step": step + 1}
        tracker = tracking.TensorBoardTracker("tensorboard", logging_dir=str(folder), **beyond)
    elif name is Tracker.wandb:
        same = {"id": known, "resume": "allow"} if known else {}
        tracker = tracking.WandBTracker(project, name=run_name, dir=str(folder), **same)
    else:
        same = {"resume": "allow"} if known else {}
        tracker = tracking.TrackioTracker(project, name=known or run_name, **same)
    tracker.start()
    return Opened(name=name.value, run_id=_run_id(name, tracker), tracker=tracker)


def _run_id(name: Tracker, tracker) -> str | None:
    """wandb knows a run by its id, trackio by its name; TensorBoard goes on in its folder."""
    if name is Tracker.tensorboard:
        return None
    return str(tracker.run.id if name is Tracker.wandb else tracker.run.name)
