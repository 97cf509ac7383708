"""TensorBoard, wandb and trackio through accelerate's tracker classes."""

from importlib.util import find_spec
from pathlib import Path

from accelerate.tracking import GeneralTracker, TensorBoardTracker, TrackioTracker, WandBTracker

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Tracker


def open_trackers(
    names: list[Tracker], *, folder: Path, project: str, run_name: str
) -> list[GeneralTracker]:
    """One tracker a name; TensorBoard writes to <folder>/tensorboard."""
    return [_open(name, folder=folder, project=project, run_name=run_name) for name in names]


def _open(name: Tracker, *, folder: Path, project: str, run_name: str) -> GeneralTracker:
    if find_spec(name.value) is None:
        raise UserError(
            f"tracking.trackers names {name.value}, which is not installed: "
            f"pip install 'rlhf-cli[{name.value}]', or leave it out"
        )
    if name is Tracker.tensorboard:
        tracker = TensorBoardTracker("tensorboard", logging_dir=str(folder))
    elif name is Tracker.wandb:
        tracker = WandBTracker(project, name=run_name, dir=str(folder))
    else:
        tracker = TrackioTracker(project, name=run_name)
    tracker.start()
    return tracker
