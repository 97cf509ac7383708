"""The protocol of a contender and the driver: JSON lines over pipes, one round at a time.

in:  the job, then `go` for every round, then nothing
out: {"ready": versions}, {"seconds": s, "cpu": c, "tokens": n} for every round, {"peak_mib": m} at the end;
cpu: processor seconds of all threads, without the time of other programs .
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
        """Return the rows of two batches."""
        return json.loads(Path(self.job["data"]).read_text())[: 2 * self.job["batch"]]

    def wait(self) -> None:
        """Wait for the next round; end the process when there are no more rounds."""
        if self._began is None:
            self._say({"ready": versions()})
        if sys.stdin.readline().strip() != "go":
            self._say({"peak_mib": device_peak_mib() if self.on_gpu else peak_mib()})
            os._exit(0)
        self._began = time.perf_counter(), time.process_time()

    def done(self, tokens: int) -> None:
        """Report the end of a round in which this number of real tokens was processed."""
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
    """Return torch.cuda, imported after the gate has redirected stdout."""
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
    """Return the peak resident memory of this process, not of its parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status")
