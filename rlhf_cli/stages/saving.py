"""Checkpoints of a stage at work: when one is due, what is in it, and how training goes on from it.

A checkpoint holds whole tensors by their names, each written by one of the processes, so that it
does not know how many there were nor how the weights were sharded.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlhf_cli.artifacts import checkpoints
from rlhf_cli.artifacts.store import NotWritten
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Resume, Save
from rlhf_cli.core.finite import not_finite
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.runtime.launch import Stopped, heed
from rlhf_cli.runtime.watchdog import alive, during, unwatched
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.setting import Setting
from rlhf_cli.telemetry.console import line
from rlhf_cli.telemetry.timing import Clock

State = dict[str, Any]
Tensors = dict[str, Tensor]


def nothing() -> Tensors:
    return {}


@dataclass(slots=True)
class Resumed:
    """Where an interrupted stage stands. state: the stage's own. tensors: its own, besides the engines'."""

    step: int
    state: State
    recorder: State
    tensors: Tensors


class Saver:
    """saver.resumed, then saver.after_step(...) after every optimizer step."""

    def __init__(
        self,
        cfg: Save,
        work: Path,
        *,
        engines: dict[str, Engine],
        world: World,
        resume: Resume,
        clock: Clock,
    ):
        self.cfg, self.work, self.engines, self.world = cfg, work, engines, world
        self.clock = clock
        self.recorder_state: Callable[[], State] = dict
        self.signals = heed()
        self.saved_at = time.monotonic()
        if world.is_main:
            require_space(work, engines, keep=cfg.keep)
        self.resumed = self._resume(resume)

    def after_step(
        self, step: int, state: Callable[[], State], tensors: Callable[[], Tensors] = nothing
    ) -> None:
        """Save when it is time or was asked for; a process that was told to stop ends here, saved."""
        alive(f"step {step}")
        stop, save = self._wanted(step)
        if not (stop or save):
            return
        with self.clock.part("save"):
            self._save(step, state(), tensors())
        if stop:
            raise Stopped(f"saved at step {step}")

    def _wanted(self, step: int) -> tuple[bool, bool]:
        """Whether to stop and whether to save; all processes come to the same answer."""
        every, minutes = self.cfg.every_steps, self.cfg.every_minutes
        late = minutes is not None and time.monotonic() - self.saved_at > 60 * minutes
        due = (every is not None and step % every == 0) or (late and self.world.is_main)
        asked = self.world.totals({"stop": self.signals.stop, "save": self.signals.save or due})
        return asked["stop"] > 0, asked["save"] > 0

    def _save(self, step: int, state: State, tensors: Tensors) -> None:
        alive(f"saving step {step}")
        place = str(checkpoints.begin(self.work, step)) if self.world.is_main else None
        place = Path(self.world.agreed(place))
        part = f"{self.world.rank + 1:05}-of-{self.world.size:05}.safetensors"
        for name, engine in self.engines.items():
            held = dict(during(engine.state(), f"saving {name}"))
            self._require_finite(step, f"of the {name} ", held)
            with unwatched(f"writing {name}"):
                write_tensors(place / f"{name}-{part}", held)
        self._require_finite(step, "", tensors)
        if self.world.is_main:
            write_tensors(place / "stage.safetensors", tensors)
        with unwatched("closing a checkpoint"):
            self.world.barrier()
            if self.world.is_main:
                steps = {name: engine.steps for name, engine in self.engines.items()}
                content = {"stage": state, "recorder": self.recorder_state(), "steps": steps}
                checkpoints.commit(self.work, step, content, self.cfg.keep)
            self.world.barrier()
        self.saved_at, self.signals.save = time.monotonic(), False

    def _require_finite(self, step: int, whose: str, tensors: Tensors) -> None:
        """Stop all processes where one of them holds what no training can go on from."""
        found = not_finite(tensors.items())
        if self.world.any(found is not None):
            if self.world.is_main:
                checkpoints.abandon(self.work, step)
            name, held = found or ("a tensor", "NaN or an infinite number, in another process")
            raise UserError(
                f"step {step} is not saved: {name} {whose}holds {held}, and no training goes on from "
                "that; lower optim.lr of this stage, set its optim.grad_clip, or use "
                "runtime.dtype=float32"
            )

    def _resume(self, policy: Resume) -> Resumed | None:
        """Load the engines from the checkpoint that the main process has verified."""
        found = None
        if self.world.is_main:
            latest = checkpoints.latest(self.work, policy.name)
            found = None if latest is None else (str(latest.folder), latest.step, latest.state)
        found = self.world.agreed(found)
        if found is None:
            return None
        folder, step, state = Path(found[0]), found[1], found[2]
        for name, engine in self.engines.items():
            engine.load_state(TensorFiles(folder.glob(f"{name}-*")).find, state["steps"][name])
        own = TensorFiles([folder / "stage.safetensors"])
        return Resumed(
            step=step,
            state=state["stage"],
            recorder=state["recorder"],
            tensors={name: own.find(name) for name in own.places},
        )


def open_saver(setting: Setting, out: Path, engines: dict[str, Engine]) -> Saver:
    """The stage's saver; its engines are already where they were saved, if they were."""
    cfg = setting.cfg
    return Saver(
        cfg.save,
        out,
        engines=engines,
        world=setting.world,
        resume=cfg.resume,
        clock=setting.clock,
    )


def write_tensors(path: Path, tensors: Tensors) -> None:
    """A safetensors file that is on the disk when this returns."""
    with checkpoints.filling(path, SafetensorError):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def require_space(work: Path, engines: dict[str, Engine], *, keep: int) -> None:
    """Refuse a disk without room for the models alone; warn where the checkpoints will not fit."""
    model, checkpoint = (sum(sizes) for sizes in zip(*map(bytes_of, engines.values()), strict=True))
    there = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    free = shutil.disk_usage(work).free + there  # what an earlier attempt holds is replaced
    needed = model + (keep + 1) * checkpoint
    if free < model:
        raise NotWritten(
            f"{work.parent} has room for {gigabytes(free)}, and what this stage exports alone takes "
            f"{gigabytes(model)}: free space there, or choose another runs_dir=..."
        )
    if free < needed:
        line(
            f"  warning: {work.parent} has room for {gigabytes(free)}; the model and "
            f"{keep + 1} checkpoints (save.keep={keep}, and one at work) take {gigabytes(needed)}: "
            "free space there, or lower save.keep",
            style="yellow",
        )


def bytes_of(engine: Engine) -> tuple[int, int]:
    """Return the sizes of an exported model and of a checkpoint (float32, moments, average), in bytes."""
    num = sum(getattr(p, "ds_numel", p.numel()) for p in engine.model.parameters())
    return 4 * num, (12 if engine.ema_decay is None else 16) * num


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"


class TensorFiles:
    """Tensors by name from several safetensors files, read one at a time."""

    def __init__(self, paths: Iterable[Path]):
        opened = [safe_open(path, framework="pt") for path in sorted(paths)]
        self.places = {name: file for file in opened for name in file.keys()}  # noqa: SIM118 - no dict

    def find(self, name: str) -> Tensor:
        return self.places[name].get_tensor(name)
