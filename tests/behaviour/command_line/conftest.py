"""The command in a process of its own, in an empty folder, with fake stages."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
FAKE = CHECKOUT / "tests" / "support" / "fake_rlhf.py"


class Rlhf:
    """rlhf(*words) runs fake_rlhf.py in `folder`; .start leaves it running."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, *words: str, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self._command(words), cwd=self.folder, env=self._env(env), capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen:
        return subprocess.Popen(
            self._command(words), cwd=self.folder, env=self._env({}), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_accept_interrupts,
        )  # fmt: skip

    def _command(self, words) -> list[str]:
        return [sys.executable, str(FAKE), "tests.support.fake_stage", *words]

    def _env(self, more: dict[str, str]) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if k != "RLHF_TRACEBACK"}
        return {
            **clean,
            "PYTHONPATH": str(CHECKOUT),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "120",
            **more,
        }


def _accept_interrupts() -> None:
    """Enable SIGINT, which is ignored in a process that a shell started in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rlhf(tmp_path):
    return Rlhf(tmp_path)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory) -> Path:
    """Return a folder in which all four stages have run once."""
    folder = tmp_path_factory.mktemp("whole")
    found = Rlhf(folder)("run")
    assert found.returncode == 0, found.stderr
    return folder


@pytest.fixture
def after_a_run(rlhf, whole_run):
    """Return `rlhf` in a folder where all four stages are finished."""
    shutil.copytree(whole_run, rlhf.folder, dirs_exist_ok=True)
    return rlhf
