"""A contender as the driver sees it: a process that receives a job (contenders/gate.py)."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Timer

import material
import peers
from roster import Contender, Task

HERE = Path(__file__).resolve().parent
ANSWER_TIMEOUT = 600  # seconds for one answer of a contender


class Runner:
    """The running process of one contender."""

    def __init__(self, name: str, contender: Contender, checkout: Path | None):
        self.name, self.contender, self.failed = name, contender, ""
        self.rounds: list[dict] = []
        self.versions: dict[str, str] = {}
        self.peak_mib: float | None = None
        self.log = HERE / "results" / "logs" / f"{contender.script}-{name.replace(' ', '_')}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        python, packages, self.home = sys.executable, checkout, HERE
        if contender.peers:
            python, packages = peers.python_of(contender.peers), peers.packages_of(contender.peers)
        elif checkout is not None:  # the workloads of that checkout, which use its names
            self.home = checkout / "benchmarks"
        self.process = subprocess.Popen(
            [str(python), str(self.home / "contenders" / f"{contender.script}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
            env=environment(packages),
        )

    def start(self, task: Task, size: str, device: str) -> None:
        """Send the job."""
        folder = material.MATERIAL / size
        job = {
            "task": task.does,
            "device": device,
            "benchmarks": str(self.home),
            "model": str(folder / task.policy),
            "reward": str(folder / "reward"),
            "data": str(folder / "data.json"),
            "batch": task.batch[size],
            "new_tokens": material.SIZES[size].new_tokens,
            "options": self.contender.options,
        }
        self._send(json.dumps(job))

    def wait(self) -> None:
        """Wait until the contender is ready."""
        self.versions = (self._receive() or {}).get("ready", {})
        print(f"  {self.name} {'failed' if self.failed else 'ready'}", file=sys.stderr)

    def round(self, *, keep: bool) -> None:
        if self.failed:
            return
        found = self._request("go")
        if found and keep:
            self.rounds.append(found)

    def stop(self) -> None:
        if not self.failed:
            self.peak_mib = (self._request("stop") or {}).get("peak_mib")
        self.process.kill()
        self.process.wait()

    def _request(self, line: str) -> dict | None:
        self._send(line)
        return self._receive()

    def _send(self, line: str) -> None:
        with suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def _receive(self) -> dict | None:
        limit = Timer(ANSWER_TIMEOUT, self.process.kill)
        limit.start()
        answer = self.process.stdout.readline()
        limit.cancel()
        return json.loads(answer) if answer else self._fail()

    def _fail(self) -> None:
        log = self.log.read_text().strip().splitlines()
        self.failed = log[-1][:300] if log else "no output"
        print(f"  {self.name} failed, see {self.log}: {self.failed}", file=sys.stderr)

    def result(self) -> dict:
        return {
            "name": self.name,
            "settings": self.contender.settings,
            "ours": self.contender.is_ours,
            "versions": self.versions,
            "rounds": self.rounds,
            "peak_mib": self.peak_mib,
            "failed": self.failed,
        }


def environment(packages: Path | None) -> dict[str, str]:
    """Return variables for one thread, no network, and this project or a peer only if measured."""
    others = [x for x in os.environ.get("PYTHONPATH", "").split(os.pathsep) if x]
    others = [x for x in others if not (Path(x) / "rlhf_cli").is_dir()]
    paths = [*([str(packages)] if packages else []), *others]
    return dict(os.environ) | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(paths),
    }
