"""A stage of several processes whose behaviour is chosen by `tracking.project`.

Each rank writes its process id to ready-<rank> when it reaches the tested point.
"""

import json
import os
import sys
import time
from pathlib import Path

from rlhf_cli.config.errors import UserError
from rlhf_cli.launch.signals import Stopped, install_stop_handlers
from rlhf_cli.runtime.watchdog import heartbeat

RANK = int(os.environ.get("RANK", "0"))
PLACED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS")


def run(cfg, inputs, out: Path) -> dict[str, float]:
    MODES[cfg.tracking.project](out, cfg.runtime.timeout)
    if RANK == 0:
        (out / "model").mkdir()
        (out / "model" / "config.json").write_text("{}")
        (out / "model" / "tokenizer.json").write_text("{}")
        (out / "metrics.jsonl").write_text('{"step": 7, "x": 2.0}\n')
    return {"ranked/rank": RANK}


def ready(out: Path) -> None:
    beside = out / f".ready-{RANK}"
    beside.write_text(str(os.getpid()))
    beside.rename(out / f"ready-{RANK}")


def wait_for_all(out: Path) -> None:
    while not all((out / f"ready-{r}").exists() for r in range(int(os.environ["WORLD_SIZE"]))):
        time.sleep(0.01)


def tell(out: Path, timeout: float) -> None:
    told = {name: os.environ.get(name) for name in PLACED}
    (out / f"told-{RANK}.json").write_text(json.dumps(told))


def sleep(out: Path, timeout: float) -> None:
    ready(out)
    time.sleep(60)


def deaf(out: Path, timeout: float) -> None:
    """Ignore requests to stop."""
    install_stop_handlers()
    sleep(out, timeout)


def crash_1(out: Path, timeout: float) -> None:
    ready(out)
    wait_for_all(out)
    if RANK == 1:
        print("about to divide", file=sys.stderr)
        raise ZeroDivisionError("boom")
    time.sleep(60)


def neighbour(out: Path, timeout: float) -> None:
    """Fail with a broken connection on rank 0 before the cause fails on rank 1."""
    ready(out)
    wait_for_all(out)
    if RANK == 0:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer")
    time.sleep(0.3)
    raise ZeroDivisionError("boom")


def bad(out: Path, timeout: float) -> None:
    raise UserError("the data is bad at a.jsonl:3")


def stop(out: Path, timeout: float) -> None:
    asked = install_stop_handlers()
    ready(out)
    while not asked.stop:
        heartbeat("step 3")
        time.sleep(0.01)
        if asked.save:
            (out / f"saved-{RANK}").touch()
    raise Stopped("saved at step 3")


def sums(out: Path, timeout: float) -> None:
    """Call all_reduce until the test ends the process."""
    world = _open(timeout)
    ready(out)
    step = 0
    while True:
        step += 1
        heartbeat(f"step {step}")
        world.barrier()


def early(out: Path, timeout: float) -> None:
    """Wait before the process group is opened."""
    import torch.distributed  # noqa: F401 - what takes long

    ready(out)
    while not (out / "go").exists():
        time.sleep(0.01)
    sums(out, timeout)


def nap(out: Path, timeout: float) -> None:
    """Let rank 1 never reach the collective again."""
    world = _open(timeout)
    heartbeat("step 1")
    world.barrier()
    ready(out)
    heartbeat("step 2")
    if RANK == 1:
        time.sleep(60)
    world.barrier()


def one_sum(out: Path, timeout: float) -> None:
    """Sum 2^rank over the ranks, which shows the ranks that took part."""
    import torch

    total = _open(timeout).all_reduce(torch.tensor([2.0**RANK]))
    tell(out, timeout)
    (out / f"sum-{RANK}").write_text(str(int(total[0])))


def slow(out: Path, timeout: float) -> None:
    heartbeat("step 1")
    time.sleep(timeout * 2)


def _open(timeout: float):
    import torch

    from rlhf_cli.runtime.world import open_world

    return open_world(torch.device("cpu"), timeout=2 * timeout, grouped=False)


MODES = {
    f.__name__: f
    for f in (tell, sleep, deaf, crash_1, neighbour, bad, stop, early, sums, nap, one_sum, slow)
}
