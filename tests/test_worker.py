"""The worker, run in this process: the files that it writes for its parent, and its watchdog."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from threading import get_ident
from types import ModuleType

import pytest

from rlhf_cli import worker
from rlhf_cli.config.errors import UserError
from rlhf_cli.launch.signals import Stopped, stop_signals_blocked
from rlhf_cli.runtime import watchdog
from rlhf_cli.telemetry import timing
from rlhf_cli.telemetry.console import OutputClosed
from tests.support.configuration import composed


@pytest.fixture(scope="module")
def cfg():
    return composed()


@pytest.fixture
def watched(monkeypatch):
    """Record (folder, rank, timeout, several) of every watch; its thread would outlive the test."""
    found = []

    def watch(folder, rank, timeout, *, several):
        found.append((folder, rank, timeout, several))

    monkeypatch.setattr(watchdog, "watch", watch)
    return found


@pytest.fixture
def work(tmp_path, monkeypatch, cfg, watched):
    """Return work(body, timeout=...), which runs a stage with this body; returns the exit code."""
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in handled}
    monkeypatch.setattr(timing, "_began", None)
    monkeypatch.setattr(worker, "_quiet_libraries", lambda: None)
    monkeypatch.delenv("RANK", raising=False)

    def run(body, stage="sft", **keys) -> int:
        module = ModuleType("stage_of_a_test")
        module.run = body
        monkeypatch.setitem(sys.modules, "stage_of_a_test", module)
        changed = replace(cfg, runtime=replace(cfg.runtime, **keys))
        monkeypatch.setattr(worker, "thaw", {"timeout": changed}.get)  # the real one is slow
        (tmp_path / "config.json").write_text('"timeout"')
        job = {"stage": stage, "module": "stage_of_a_test", "dry_run": False}
        job["inputs"] = {"sft": "there"}
        (tmp_path / "job.json").write_text(json.dumps(job))
        return worker.main(str(tmp_path / "job.json"))

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_stage_gets_its_configuration_and_parents_and_writes_its_result(work, tmp_path):
    given = []

    def body(cfg, inputs, out):
        given.extend((cfg.runtime.timeout, str(inputs["sft"]), out))
        return {"loss": 0.25, "whole": 3}

    assert work(body, timeout=77.0) == 0
    assert given == [77.0, "there", tmp_path]
    assert json.loads((tmp_path / "result.json").read_text()) == {"loss": 0.25, "whole": 3.0}


@pytest.mark.parametrize(
    ("error", "code", "left"),
    [
        (Stopped("saved at step 3"), 130, ("saved at step 3", True, False, True)),
        (KeyboardInterrupt(), 130, ("it was interrupted", True, False, False)),
        (OutputClosed("x"), 130, ("its output was closed", True, False, False)),
        (UserError("no\n such file"), 1, ("no such file", True, False, False)),
        (ValueError("boom"), 1, ("ValueError: boom", False, False, False)),
        (RuntimeError("gloo: peer"), 1, ("RuntimeError: gloo: peer", False, True, False)),
        (UserError("gloo"), 1, ("gloo", True, False, False)),
    ],
)
def test_the_reason_of_a_failure_is_written_for_the_parent(error, code, left, work, tmp_path):
    """`left` is (reason, expected, broken, saved); broken: a connection to another rank broke."""

    def body(cfg, inputs, out):
        raise error

    assert work(body) == code
    found = json.loads((tmp_path / "failure.json").read_text())
    assert tuple(found[name] for name in ("reason", "expected", "broken", "saved")) == left
    assert not (tmp_path / "result.json").exists()


def test_a_stop_during_the_start_of_a_worker_ends_it_with_its_reason(work, tmp_path):
    """The parent blocks signals until the handlers are installed, so none prints a traceback."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    started = []
    with stop_signals_blocked():
        signal.pthread_kill(get_ident(), signal.SIGINT)  # another thread would receive it at once
        code = work(lambda cfg, inputs, out: started.append(True))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # discards a pending one
    assert code == 130
    found = json.loads((tmp_path / "failure.json").read_text())
    assert (found["reason"], started) == ("it was interrupted", [])


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: out of memory")])
def test_out_of_memory_names_the_keys_to_lower(error, work, tmp_path):
    def body(cfg, inputs, out):
        raise error

    assert work(body, stage="rm") == 1
    found = json.loads((tmp_path / "failure.json").read_text())
    assert found["expected"]
    assert found["reason"].startswith(f"memory ran out ({type(error).__name__}")
    assert "lower rm.batch.microbatch or rm.batch.max_tokens" in found["reason"]


def test_a_result_that_cannot_be_written_is_reported_in_one_line(work, tmp_path):
    (tmp_path / ".result.json.tmp").mkdir()
    assert work(lambda cfg, inputs, out: {"loss": 0.25}) == 1
    found = json.loads((tmp_path / "failure.json").read_text())
    assert "result.json cannot be written (Is a directory); free space there" in found["reason"]
    assert found["expected"]


def test_signals_during_the_exit_of_a_worker_are_ignored():
    """Python removes its handlers before the process ends, and libraries may delay the end."""
    late = "atexit.register(lambda: [os.kill(os.getpid(), n) for n in (10, 15, 2, 1)])"
    code = f"""
import atexit, os, signal
from rlhf_cli import worker
from rlhf_cli.launch.signals import install_stop_handlers
install_stop_handlers()
class Late:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        for number in (10, 15, 2, 1):
            kill(pid, number)
worker.late = Late()  # goes with the module, after the handlers
{late}
worker._exit(0)
"""
    environment = {k: v for k, v in os.environ.items() if k != "RANK"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("timeout", [0.1, 77.0])
def test_a_worker_is_watched_with_the_configured_timeout(timeout, work, watched, tmp_path):
    assert work(lambda cfg, inputs, out: {}, timeout=timeout) == 0
    assert watched == [(tmp_path, 0, timeout, False)]
