"""TensorBoard, wandb and trackio through accelerate's tracker classes."""

from importlib.util import find_spec
from pathlib import Path

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


def open_trackers(names: list[Tracker], *, folder: Path, project: str, run_name: str) -> list:
    """One started tracker a name; TensorBoard writes to <folder>/tensorboard."""
    require_installed(names)
    return [_open(name, folder=folder, project=project, run_name=run_name) for name in names]


def _open(name: Tracker, *, folder: Path, project: str, run_name: str):
    from accelerate import PartialState, tracking

    PartialState()  # their loggers refuse to speak before it exists
    if name is Tracker.tensorboard:
        tracker = tracking.TensorBoardTracker("tensorboard", logging_dir=str(folder))
    elif name is Tracker.wandb:
        tracker = tracking.WandBTracker(project, name=run_name, dir=str(folder))
    else:
        tracker = tracking.TrackioTracker(project, name=run_name)
    tracker.start()
    return tracker
