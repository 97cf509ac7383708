"""The place of a trial: a folder of its own, commands in this process or in a subprocess."""

import contextlib
import io
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

from tests.trials.row import Came

CHECKOUT = Path(__file__).resolve().parents[2]
SMALL = (
    "experiment=smoke", "runtime=cpu", "runtime.num_threads=1", "tiny_world.demonstrations=48",
    "tiny_world.comparisons=30", "tiny_world.prompts=48", "tiny_world.pretraining=60", "samples=0",
    "sft.batch.size=8", "rm.batch.size=4", "ppo.total_episodes=32", "ppo.batch.rollout=16",
    "ppo.batch.minibatch=8", "ppo.batch.microbatch=8", "evaluation.prompts=8",
)  # fmt: skip
PATIENCE = 600.0
OVERWRITTEN = re.compile(r"[^\n]*(?:\r(?!\n)|\x1b\[2K)")  # earlier frames of a live line
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)|\r")
COMMAND = [sys.executable, "-m", "rlhf_cli"]
ONLINE = {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_ENDPOINT": "https://hub.invalid"}


@dataclass(slots=True)
class Shared:
    """A finished run that many rows use and none changes, made at its first use."""

    root: Path
    data: Path | None
    runs: dict[str, Path] = field(default_factory=dict)

    def finished(self, *words: str) -> Path:
        """Return a folder whose runs/small is finished, made with SMALL and `words`."""
        key = " ".join(words)
        if key not in self.runs:
            place = Place(folder=self.root / f"finished{len(self.runs)}", shared=self)
            place.folder.mkdir()
            came = place.command("run", *SMALL, "name=small", *words)
            if came.code:
                raise RuntimeError(f"the run that the trials share failed:\n{came.text}")
            self.runs[key] = place.folder
        return self.runs[key]


@dataclass(slots=True)
class Place:
    """The folder of one row."""

    folder: Path
    shared: Shared

    def write(self, name: str, content: "str | bytes | Callable[[Path], object]") -> Path:
        """Write a file: text, bytes, or the result of a function of its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def finished(self, *words: str) -> Path:
        """Copy the finished run to runs/small; return it."""
        shutil.copytree(self.shared.finished(*words) / "runs", self.folder / "runs")
        return self.folder / "runs" / "small"

    def rlhf(self, *words: str) -> Came:
        """Run a command in this process."""
        from rlhf_cli.cli import main

        out, err = io.StringIO(), io.StringIO()
        with inside(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(list(words))
            except SystemExit as left:  # argparse and Hydra leave so
                code = left.code if isinstance(left.code, int) else 0
        return Came(
            code=code, text=self._plain(out.getvalue() + err.getvalue()), errors=err.getvalue()
        )

    def command(self, *words: str, patience: float = PATIENCE, **env: str) -> Came:
        """Run a command in a subprocess; return 124 and a word after the time limit."""
        process = self.start(*words, **env)
        try:
            out, err = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
            return Came(code=124, text=self._plain(out + err) + "\n[took too long]\n", errors=err)
        return Came(code=process.returncode, text=self._plain(out + err), errors=err)

    def start(self, *words: str, **env: str) -> subprocess.Popen:
        """Start a command, and leave it running."""
        return subprocess.Popen(
            [*COMMAND, *words], cwd=self.folder, env=_environment(env), text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=_accept_interrupts,
        )  # fmt: skip

    def shell(self, line: str, **env: str) -> Came:
        """Run a line of bash in which `rlhf` is the tested command."""
        rlhf = f'rlhf() {{ "{sys.executable}" -m rlhf_cli "$@"; }}\n'
        found = subprocess.run(
            ["bash", "-c", rlhf + line], cwd=self.folder, env=_environment(env), text=True,
            capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        text = self._plain(found.stdout + found.stderr)
        return Came(code=found.returncode, text=text, errors=found.stderr)

    def screen(self, *words: str, columns: int) -> Came:
        """Run a command on a terminal of this width; return the screen without escape codes."""
        master, slave = pty.openpty()
        ioctl(slave, TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        process = subprocess.Popen(
            [*COMMAND, *words], cwd=self.folder, stdin=slave, stdout=slave, stderr=slave,
            env=_environment({"TERM": "xterm-256color", "COLUMNS": ""}), close_fds=True,
        )  # fmt: skip
        os.close(slave)
        text = b"".join(_read(master)).decode(errors="replace")
        text = ESCAPES.sub("", OVERWRITTEN.sub("", text))
        return Came(code=process.wait(timeout=PATIENCE), text=self._plain(text))

    def _plain(self, text: str) -> str:
        """Return the text without paths of this machine."""
        for path, name in (
            (self.folder, "folder"),
            (CHECKOUT, "checkout"),
            (self.shared.data, "data"),
        ):
            text = text.replace(str(path), f"({name})") if path else text
        return text


def until(condition: Callable[[], bool], seconds: float = 120) -> bool:
    """Wait for a condition; return False at the time limit."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def working_in(folder: Path) -> list[str]:
    """Return the ids of the processes with this working folder (Linux)."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if link.readlink() == folder:
                found.append(link.parent.name)
    return found


def _read(master: int) -> Iterator[bytes]:
    with contextlib.suppress(OSError):  # the other end is closed
        while found := os.read(master, 65536):
            yield found
    os.close(master)


def _environment(more: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "RLHF_TRACEBACK"}
    fixed = {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    merged = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **kept, **fixed, **more}
    return {name: value for name, value in merged.items() if value}


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    kept, here = dict(os.environ), Path.cwd()
    os.environ.update(_environment({}))
    os.environ.pop("RLHF_TRACEBACK", None)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(kept)


def _accept_interrupts() -> None:
    """Enable SIGINT, which is ignored in a process that a shell started in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def real_data() -> Path | None:
    """Return the folder of real data if any: $RLHF_TEST_DATA, or beside the checkout."""
    given = Path(os.environ.get("RLHF_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    return given if (given / "comparisons").is_dir() else None


@contextlib.contextmanager
def shared_place() -> Iterator[Shared]:
    """Yield a temporary folder, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="trials-") as folder:
        yield Shared(root=Path(folder), data=real_data())
