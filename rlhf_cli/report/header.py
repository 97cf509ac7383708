"""The first lines of a run: model, data, device, stages."""

import os
import platform
import sys
from pathlib import Path

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rlhf_cli.config.hub import LOCAL_MODELS
from rlhf_cli.config.schema import Data, Model, Runtime, Source, Tasks
from rlhf_cli.data.embedded import MIXTURE, scheme_of, task_of
from rlhf_cli.launch.local_world import local_world_size
from rlhf_cli.telemetry.console import console, plain_name

GPUS = Path("/proc/driver/nvidia/gpus")
CPUINFO = Path("/proc/cpuinfo")


def print_header(
    name: str,
    plan: list[tuple[str, str, str]],
    *,
    model: Model,
    data: Data,
    runtime: Runtime,
    tasks: Tasks,
    num_nodes: int = 1,
) -> None:
    """Print the header of the run `name`. plan: (stage, title, what will happen)."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    grid.add_row("model", plain_name(describe_model(model)))
    grid.add_row("data", plain_name(describe_data(data)))
    if any(scheme_of(source.path) == MIXTURE for source in data.demonstrations):
        grid.add_row("tasks", Text("\n").join(map(plain_name, describe_tasks(tasks))))
    grid.add_row("device", plain_name(describe_device(runtime, num_nodes)))
    grid.add_row("stages", _plan_grid(plan))
    title = plain_name(f"rlhf run: {name}")
    console().print(Panel(grid, title=title, title_align="left"))


def _plan_grid(plan: list[tuple[str, str, str]]) -> Table:
    steps = Table.grid(padding=(0, 2))
    for stage, title, action in plan:
        steps.add_row(Text(stage, style="bold"), Text(title), plain_name(action, "dim"))
    return steps


def describe_model(model: Model) -> str:
    """Return the base model, and what replaces stages of this run."""
    if model.path in LOCAL_MODELS:
        return f"{model.path} (embedded, about {LOCAL_MODELS[model.path]} parameters)"
    revision = f" at {model.revision}" if model.revision else ""
    return f"{model.path}{revision}"


def describe_data(data: Data) -> str:
    """Return the sources in the order of the stages, each once."""
    roles = (data.demonstrations, data.comparisons, data.prompts)
    names = list(dict.fromkeys(_source(source) for role in roles for source in role))
    return ", ".join(names) or "none"


def describe_tasks(tasks: Tasks) -> list[str]:
    """Return which tasks are trained on, and one line per task that is not, with the reason."""
    from rlhf_cli.data.tasks.files import read_tasks
    from rlhf_cli.data.tasks.holdout import UNNAMED, left_out

    found = read_tasks(tasks.files, folder=tasks.folder)
    because = left_out(found, tasks)
    trained = [task.name for task in found if task.name not in because]
    first = f"{len(trained)} trained on: {', '.join(trained)}"
    unnamed = sum(why == UNNAMED for why in because.values())
    return [
        first,
        *(f"without {name}: {why}" for name, why in because.items() if why != UNNAMED),
        *([f"without {unnamed} others, which are {UNNAMED}"] if unnamed else []),
    ]


def _source(source: Source) -> str:
    if (scheme := scheme_of(source.path)) and task_of(source.path):
        return f"the embedded {scheme.replace('_', ' ')}"
    parts = [source.path, source.config, source.split]
    return ":".join(part for part in parts if part)


def describe_device(runtime: Runtime, num_nodes: int = 1) -> str:
    """Return what `auto` will find, without importing torch; the stage itself decides."""
    name = runtime.device if runtime.device != "auto" else _found()
    threads = f"{runtime.num_threads or f'up to {_cores()}'} threads"
    threads = f", {threads}" if name == "cpu" else ""
    precision = describe_precision(runtime.dtype, name)
    return f"{name}{threads}, {precision}{describe_processes(runtime, num_nodes)}"


def describe_precision(dtype: str, device: str) -> str:
    """Return the activations' precision, and on a CPU whether the other one is faster."""
    automatic = "bfloat16" if device.startswith("cuda") else "float32"
    unit = _bfloat16_unit() if device == "cpu" else None
    if dtype == "bfloat16" and unit == "":
        return "bfloat16 (not a unit of this processor: runtime.dtype=float32 is many times faster)"
    if dtype == "auto" and unit:
        return f"float32 ({unit}: runtime.dtype=bfloat16 is faster, coarser)"
    return automatic if dtype == "auto" else dtype


def _bfloat16_unit() -> str | None:
    """Return the unit of this processor that multiplies bfloat16; "" where it has none, None: unknown."""
    words = CPUINFO.read_text().split() if CPUINFO.exists() else []
    if "flags" not in words:  # of x86 processors alone
        return None
    units = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
    return next((name for flag, name in units.items() if flag in words), "")


def describe_processes(runtime: Runtime, num_nodes: int) -> str:
    """Return how many workers this machine starts, and what they divide among themselves."""
    processes = local_world_size(runtime)
    stage = (runtime.deepspeed or {}).get("zero_optimization", {}).get("stage")
    words = [f"{processes} processes"] if processes > 1 else []
    words += [f"on each of {num_nodes} nodes"] if num_nodes > 1 else []
    return "".join(f", {word}" for word in [*words, *([f"ZeRO-{stage}"] if stage else [])])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _found() -> str:
    gpus = [_gpu_name(folder) for folder in sorted(GPUS.iterdir())] if GPUS.is_dir() else []
    if gpus:
        return f"cuda ({gpus[0]})"
    return "mps" if platform.system() == "Darwin" and platform.machine() == "arm64" else "cpu"


def _gpu_name(folder: Path) -> str:
    lines = (folder / "information").read_text().splitlines()
    models = [entry.split(":", 1)[1].strip() for entry in lines if entry.startswith("Model:")]
    return models[0] if models else "unknown GPU"
