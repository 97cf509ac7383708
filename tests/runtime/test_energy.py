"""Counters of energy: a folder as Linux lays it out, and a library as NVIDIA's driver has it."""

import ctypes
from types import SimpleNamespace

import pytest
import torch

from rlhf_cli.core.microbatches import Share
from rlhf_cli.runtime import energy
from rlhf_cli.runtime.world import World

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
FULL = 1_000_000_000  # microjoules until a package's counter begins again


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A processor with two packages, of which the first has a part that counts for itself."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    monkeypatch.setattr(energy.package_counters, "__defaults__", (tmp_path,))

    def write(name: str, microjoules: int) -> None:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "energy_uj").write_text(f"{microjoules}\n")
        (folder / "max_energy_range_uj").write_text(f"{FULL}\n")

    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        write(name, 0)
    return write


def test_the_energy_of_a_processor_is_that_of_its_packages_since_the_last_call(packages):
    meter = energy.energy_meter(CPU, World())
    packages("intel-rapl:0", 300_000_000)  # 300 J
    packages("intel-rapl:1", 60_000_000)
    packages("intel-rapl:0:0", 200_000_000)
    assert meter() == pytest.approx(360 / 3.6e6)
    assert meter() == 0


def test_a_counter_that_has_begun_again_at_zero_goes_on(packages):
    packages("intel-rapl:0", FULL - 1_000_000)
    meter = energy.energy_meter(CPU, World())
    packages("intel-rapl:0", 2_000_000)
    assert meter() == pytest.approx(3 / 3.6e6)


def test_where_a_counter_is_missing_the_energy_is_not_known(packages, tmp_path, monkeypatch):
    assert energy.energy_meter(torch.device("mps"), World()) is None
    monkeypatch.setattr(energy, "NVML", "libnone.so")
    assert energy.energy_meter(GPU, World()) is None
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert energy.energy_meter(CPU, World()) is None
    monkeypatch.setattr(energy.package_counters, "__defaults__", (tmp_path / "none",))
    assert energy.energy_meter(CPU, World()) is None


def test_the_main_process_counts_for_its_machine_if_there_is_one_machine(packages, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert energy.energy_meter(CPU, World(Share(rank=0, size=2))) is not None
    assert energy.energy_meter(CPU, World(Share(rank=1, size=2))) is None
    assert energy.energy_meter(CPU, World(Share(rank=0, size=4))) is None


@pytest.fixture
def driver(monkeypatch):
    """NVML with GPUs a and b, whose counters in millijoules are the values of the dict."""
    counted = {b"GPU-a": 1000, b"GPU-b": 5000}
    names = list(counted)

    def by_uuid(uuid, handle) -> int:
        ctypes.cast(handle, ctypes.POINTER(ctypes.c_void_p))[0] = names.index(uuid) + 1
        return 0

    def total(handle, found) -> int:
        value = counted[names[handle.value - 1]]
        ctypes.cast(found, ctypes.POINTER(ctypes.c_ulonglong))[0] = value or 0
        return 0 if value is not None else 3  # NVML_ERROR_NOT_SUPPORTED

    library = SimpleNamespace(
        nvmlInit_v2=lambda: 0,
        nvmlDeviceGetHandleByUUID=by_uuid,
        nvmlDeviceGetTotalEnergyConsumption=total,
    )
    monkeypatch.setattr(energy.ctypes, "CDLL", lambda name: library)
    of_torch = [SimpleNamespace(uuid="a"), SimpleNamespace(uuid="b")]
    monkeypatch.setattr(torch.cuda, "get_device_properties", of_torch.__getitem__)
    return counted


def test_the_energy_of_gpus_is_that_of_all_processes_of_the_machine(driver, monkeypatch):
    alone = energy.energy_meter(torch.device("cuda", 1), World())
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    both = energy.energy_meter(GPU, World(Share(rank=0, size=2)))
    driver |= {b"GPU-a": 3000, b"GPU-b": 12_000}
    assert alone() == pytest.approx(7 / 3.6e6)
    assert both() == pytest.approx(9 / 3.6e6)


def test_a_gpu_that_does_not_count_is_not_known(driver):
    driver[b"GPU-a"] = None
    assert energy.energy_meter(GPU, World()) is None
