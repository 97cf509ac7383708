"""Checkpoints of a stage: when one is due, what it holds, and how training resumes from it.

A checkpoint holds complete tensors by their names, each written by one of the processes, so that it
depends neither on their number nor on how the weights were sharded.
"""

import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlhf_cli.artifacts import checkpoints
from rlhf_cli.artifacts.store import WriteError
from rlhf_cli.config.errors import UserError
from rlhf_cli.core.finite import not_finite
from rlhf_cli.launch.signals import Stopped, install_stop_handlers
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.runtime.watchdog import heartbeat, paused, with_heartbeat
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.samples import BeforeAfter
from rlhf_cli.telemetry.console import line
from rlhf_cli.telemetry.recorder import Recorder

State = dict[str, Any]
Tensors = dict[str, Tensor]


class TrainState(Protocol):
    """Where a stage is in its training, besides its engines: numbers and lists, and tensors.

    SFT and PPO have one; the reward model needs no more than the step of its engine.
    """

    def state_dict(self) -> State: ...
    def tensors(self) -> Tensors: ...


@dataclass(slots=True)
class Resumed:
    """What a checkpoint holds besides the engines: the stage's own state and tensors, and others' state."""

    step: int
    state: State
    tensors: Tensors
    recorder: State
    samples: State


class Saver:
    """Saves a stage at work: `after_step` follows every optimizer step.

    samples: those shown before and after the training, where the stage has them.
    """

    def __init__(
        self,
        context: StageContext,
        work: Path,
        *,
        engines: dict[str, Engine],
        recorder: Recorder,
        samples: BeforeAfter | None = None,
    ):
        self.cfg, self.world, self.clock = context.cfg.save, context.world, context.clock
        self.work, self.engines, self.recorder, self.samples = work, engines, recorder, samples
        self.signals = install_stop_handlers()
        self.saved_at = time.monotonic()

    def after_step(
        self, step: int, state: TrainState | None = None, *, always: bool = False
    ) -> None:
        """Save when it is due or was asked for; raise Stopped, saved, where the process is to stop.

        always: every step is saved.
        """
        heartbeat(f"step {step}")
        stop, save = self._wanted(step)
        if not (stop or save or always):
            return
        with self.clock.phase("save"):
            self._save(step, state)
        if stop:
            raise Stopped(f"saved at step {step}")

    def _wanted(self, step: int) -> tuple[bool, bool]:
        """Return whether to stop and whether to save, the same on all processes."""
        every, minutes = self.cfg.every_steps, self.cfg.every_minutes
        late = minutes is not None and time.monotonic() - self.saved_at > 60 * minutes
        due = (every is not None and step % every == 0) or (late and self.world.is_main)
        asked = self.world.sum_scalars(
            {"stop": self.signals.stop, "save": self.signals.save or due}
        )
        return asked["stop"] > 0, asked["save"] > 0

    def _save(self, step: int, state: TrainState | None) -> None:
        heartbeat(f"saving step {step}")
        place = str(checkpoints.create(self.work, step)) if self.world.is_main else None
        place = Path(self.world.broadcast(place))
        part = f"{self.world.rank + 1:05}-of-{self.world.size:05}.safetensors"
        for name, engine in self.engines.items():
            held = dict(with_heartbeat(engine.state(), f"saving {name}"))
            self._require_finite(step, f"of the {name} ", held)
            with paused(f"writing {name}"):
                write_tensors(place / f"{name}-{part}", held)
        tensors = state.tensors() if state else {}
        self._require_finite(step, "", tensors)
        if self.world.is_main:
            write_tensors(place / "stage.safetensors", tensors)
        with paused("closing a checkpoint"):
            self.world.barrier()
            if self.world.is_main:
                content = {
                    "stage": state.state_dict() if state else {},
                    "recorder": self.recorder.state(),
                    "samples": self.samples.texts if self.samples else {},
                    "steps": {name: engine.steps for name, engine in self.engines.items()},
                }
                checkpoints.commit(self.work, step, content, self.cfg.keep)
            self.world.barrier()
        self.saved_at, self.signals.save = time.monotonic(), False

    def _require_finite(self, step: int, whose: str, tensors: Tensors) -> None:
        """Stop all processes where one of them holds a value that training cannot continue from."""
        found = not_finite(tensors.items())
        if self.world.any(found is not None):
            if self.world.is_main:
                checkpoints.abandon(self.work, step)
            name, held = found or ("a tensor", "NaN or an infinite number, in another process")
            raise UserError(
                f"step {step} is not saved: {name} {whose}holds {held}, and training cannot "
                "continue from that; lower optim.lr of this stage, set its optim.grad_clip, or use "
                "runtime.dtype=float32"
            )


def load_checkpoint(
    context: StageContext, work: Path, engines: dict[str, Engine]
) -> Resumed | None:
    """Load the engines from the latest checkpoint that the main process has verified, if there is one."""
    world, found = context.world, None
    if world.is_main:
        latest = checkpoints.latest(work, context.cfg.resume.name)
        found = None if latest is None else (str(latest.folder), latest.step, latest.state)
    found = world.broadcast(found)
    if found is None:
        return None
    folder, step, state = Path(found[0]), found[1], found[2]
    for name, engine in engines.items():
        engine.load_state(TensorFiles(folder.glob(f"{name}-*")).find, state["steps"][name])
    own = TensorFiles([folder / "stage.safetensors"])
    return Resumed(
        step=step,
        state=state["stage"],
        tensors={name: own.find(name) for name in own.places},
        recorder=state["recorder"],
        samples=state["samples"],
    )


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file; it is on the disk when this returns."""
    with checkpoints.writing_file(path, SafetensorError):
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
        raise WriteError(
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
