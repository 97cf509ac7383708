"""The energy that the devices of a stage use, by counters of their own.

An NVIDIA GPU counts its energy since Volta (read through NVML), a processor with RAPL that of its
packages, which Linux shows to root alone. What else runs on these devices counts too. The main process
reads the counters of its machine; of a stage on several machines the energy is not known.
"""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import torch

from rlhf_cli.runtime.world import World

POWERCAP = Path("/sys/class/powercap")
NVML = "libnvidia-ml.so.1"
JOULES_PER_KWH = 3.6e6
Counter = Callable[[], float]  # returns the joules since its last call


def energy_meter(device: torch.device, world: World) -> Callable[[], float] | None:
    """Return a function that returns the kWh since its last call; None where a counter is missing."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if not world.is_main or world.size > local or device.type not in ("cpu", "cuda"):
        return None
    try:
        counters = gpu_counters(device, local) if device.type == "cuda" else package_counters()
    except (OSError, ValueError):  # no library, no right to read, another unit
        return None
    return (lambda: sum(used() for used in counters) / JOULES_PER_KWH) if counters else None


def package_counters(folder: Path = POWERCAP) -> list[Counter]:
    """Return a counter per package of the processor; OSError where it may not be read."""
    return [_package(one) for one in sorted(folder.glob("intel-rapl:[0-9]*")) if _is_package(one)]


def _is_package(folder: Path) -> bool:
    return folder.name.count(":") == 1  # intel-rapl:0:1 is a part of one


def _package(folder: Path) -> Counter:
    size = int((folder / "max_energy_range_uj").read_text())
    return _since(lambda: int((folder / "energy_uj").read_text()), 1e6, size)


def gpu_counters(device: torch.device, processes: int) -> list[Counter]:
    """Return a counter per GPU of the processes of this machine; OSError where one has none."""
    nvml = ctypes.CDLL(NVML)
    _require(nvml.nvmlInit_v2())
    index = range(processes) if processes > 1 else [device.index or 0]
    return [_gpu(nvml, f"GPU-{torch.cuda.get_device_properties(i).uuid}") for i in index]


def _gpu(nvml: ctypes.CDLL, uuid: str) -> Counter:
    handle = ctypes.c_void_p()
    _require(nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)))

    def millijoules() -> int:
        found = ctypes.c_ulonglong()
        _require(nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(found)))
        return found.value

    return _since(millijoules, 1e3, 2**64)


def _require(code: int) -> None:
    if code:
        raise OSError(code, "of NVML")


def _since(read: Callable[[], int], unit: float, size: int) -> Counter:
    """Return a counter of joules. unit: of `read`, per joule; size: where it begins again at 0."""
    last = read()

    def used() -> float:
        nonlocal last
        before, last = last, read()
        return (last - before) % size / unit

    return used
