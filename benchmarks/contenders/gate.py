"""How a contender and the driver talk: JSON lines over pipes, one round at a time.

in:  the job, then `go` for every round, then nothing
out: {"ready": versions}, {"seconds": s, "cpu": c, "tokens": n} for every round, {"peak_mib": m} at the end;
cpu: processor seconds of all threads, which do not count the time that other programs took .
peak_mib: of the process, on a GPU of the device
What libraries print goes to stderr.
"""

import json
import os
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path


class Gate:
    def __init__(self):
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self.job = json.loads(sys.stdin.readline())
        self.on_gpu = self.job["device"] == "cuda"
        self._began: tuple[float, float] | None = None
        sys.path[:0] = [self.job["benchmarks"]]

    def rows(self) -> list[dict]:
        """As many as two batches."""
        return json.loads(Path(self.job["data"]).read_text())[: 2 * self.job["batch"]]

    def wait(self) -> None:
        """Until the driver says go; ends the process when there are no more rounds."""
        if self._began is None:
            self._say({"ready": versions()})
        if sys.stdin.readline().strip() != "go":
            self._say({"peak_mib": device_peak_mib() if self.on_gpu else peak_mib()})
            os._exit(0)
        self._began = time.perf_counter(), time.process_time()

    def done(self, tokens: int) -> None:
        """The round is over: so many real tokens went through."""
        assert self._began is not None
        if self.on_gpu:
            _cuda().synchronize()
        wall, cpu = self._began
        spent = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        self._say(spent | {"tokens": int(tokens)})

    def _say(self, message: dict) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()


def _cuda():
    """torch is imported after the gate has taken hold of stdout."""
    import torch

    return torch.cuda


def device_peak_mib() -> float:
    return _cuda().max_memory_allocated() / 2**20


def versions() -> dict[str, str]:
    found = {}
    for name in ("torch", "transformers", "trl"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def peak_mib() -> float:
    """Largest resident memory of this process (not of the one it was forked from)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status")
