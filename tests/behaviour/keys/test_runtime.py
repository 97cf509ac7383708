"""Every key of `runtime` that decides where and how tensors are computed.

Torch's "meta" device stands for one that is not the CPU: it exists on every machine.
"""

import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from rlhf_cli.config.errors import ExitCode
from rlhf_cli.config.schema import Gather
from rlhf_cli.core.microbatches import Share
from rlhf_cli.launch import worker_group
from rlhf_cli.launch.worker_group import LocalRanks, WorkerGroup
from rlhf_cli.launch.workers import run_workers
from rlhf_cli.runtime import zero, zero_generation, zero_loading
from rlhf_cli.runtime.device import Device, pick_device
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.runtime.factory import (
    OffloadedNetwork,
    Replicated,
    model_loading,
    open_engine,
    open_network,
)
from rlhf_cli.runtime.world import World
from rlhf_cli.runtime.zero_generation import ZeroGeneration
from tests.support.tabular import CPU, optim, runtime
from tests.support.tiny_models import causal

META = Device(torch=torch.device("meta"), dtype=torch.float32)


@pytest.fixture(autouse=True)
def process():
    """Restore the number of threads and the signal handlers, which tests change."""
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGUSR1)
    yield
    torch.set_num_threads(threads)
    signal.signal(signal.SIGUSR1, handler)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_num_threads_sets_the_threads_of_torch(num_threads):
    pick_device(runtime(num_threads=num_threads))
    assert torch.get_num_threads() == num_threads
    pick_device(runtime(num_threads=None))
    assert torch.get_num_threads() == num_threads  # null leaves it unchanged


def worker_environment(place: LocalRanks, **keys) -> dict[str, str]:
    return worker_group._environment(place, 1, runtime(**keys))


def test_several_processes_share_the_cores_unless_num_threads_is_set(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(worker_group, "_cores", lambda: 12)
    two = LocalRanks(local_world_size=2, world_size=2)
    assert worker_environment(two)["OMP_NUM_THREADS"] == "6"
    assert worker_environment(two, num_threads=5)["OMP_NUM_THREADS"] == "5"


def test_the_environment_of_a_worker_has_its_rank_and_no_foreign_variables(monkeypatch):
    for name in ("GROUP_RANK", "TORCHELASTIC_RUN_ID", "MASTER_PORT"):
        monkeypatch.setenv(name, "foreign")
    environment = worker_environment(
        LocalRanks(
            first_rank=4, local_world_size=2, world_size=6, master_addr="10.0.0.1", master_port=99
        )
    )
    wanted = {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert environment | wanted | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "99"} == environment
    assert not {"GROUP_RANK", "TORCHELASTIC_RUN_ID"} & environment.keys()


WRITE_RANK = "import os, pathlib; pathlib.Path('told-' + os.environ.get('RANK', 'none')).touch()"


@pytest.mark.parametrize(
    ("num_processes", "ranks"), [(None, {"none"}), (1, {"none"}), (2, {"0", "1"})]
)
def test_num_processes_workers_are_started(num_processes, ranks, tmp_path, monkeypatch):
    """Short scripts replace the workers, which take seconds to start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        worker_group, "worker_command", lambda job: [sys.executable, "-S", "-c", WRITE_RANK]
    )
    outcome = run_workers(tmp_path / "job.json", runtime(num_processes=num_processes))
    assert outcome.code == 0
    assert {path.name for path in tmp_path.iterdir()} == {f"told-{rank}" for rank in ranks}


def test_the_reason_of_a_failure_is_not_read_from_an_earlier_attempt(tmp_path, monkeypatch):
    for name in ("failure.json", "failure-1.json", "traceback.txt"):
        (tmp_path / name).write_text('{"reason": "old", "expected": true, "broken": false}')
    fail = [sys.executable, "-S", "-c", "raise SystemExit(1)"]
    monkeypatch.setattr(worker_group, "worker_command", lambda job: fail)
    outcome = run_workers(tmp_path / "job.json", runtime())
    assert (outcome.code, outcome.reason) == (1, "its process ended with code 1")


def test_a_worker_starts_with_stop_signals_blocked(tmp_path, monkeypatch):
    code = "import signal; raise SystemExit(signal.SIGTERM in signal.pthread_sigmask(0, []))"
    monkeypatch.setattr(
        worker_group, "worker_command", lambda job: [sys.executable, "-S", "-c", code]
    )
    group = WorkerGroup(tmp_path / "job.json", LocalRanks(), runtime())
    assert group.workers[0].wait() == 1
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_interrupted_workers_have_the_timeout_to_save(monkeypatch):
    """Workers are terminated after the timeout, and sooner when one has failed."""
    monkeypatch.setattr(worker_group.time, "monotonic", lambda: 1000.0)
    for timeout, code, end in (
        (7.0, ExitCode.INTERRUPTED, 1007.0),
        (90.0, ExitCode.INTERRUPTED, 1090.0),
        (90.0, 1, 1001.0),
    ):
        workers = WorkerGroup(
            Path("job.json"), LocalRanks(local_world_size=0), runtime(timeout=timeout)
        )
        workers.schedule_termination(code)
        assert workers.terminate_at == end


def rollout_of(gather: Gather) -> ZeroGeneration:
    """Return the generation of a model whose complete copy takes one GiB."""
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.empty(0))
    model.weight.ds_numel = 2**28
    return ZeroGeneration(None, model, CPU, World(), gather)


@pytest.mark.parametrize(
    ("gather", "gib", "layer_by_layer"),
    [("auto", 1, True), ("auto", 2, False), ("always", 1, False), ("never", 9, True)],
)
def test_gather_decides_how_sharded_weights_generate(gather, gib, layer_by_layer, monkeypatch):
    """With auto the weights are gathered where one and a half copies fit."""
    monkeypatch.setattr(zero_generation, "_free_memory", lambda device: gib * 2**30)
    rollout = rollout_of(Gather[gather])
    assert rollout.layer_by_layer is layer_by_layer
    assert ("layer by layer" if layer_by_layer else "from one gathered copy") in rollout.note()


@pytest.mark.parametrize(
    ("offload", "device", "kind"),
    [(True, META, OffloadedNetwork), (False, META, Network), (True, CPU, Network)],
)
def test_offload_moves_frozen_models_to_the_cpu_only_from_another_device(offload, device, kind):
    given = runtime(offload=offload)
    found = open_network(causal("llama"), device=device, world=World(), runtime=given)
    assert type(found) is kind


ALONE = World()


def new_engine(world: World = ALONE, **keys) -> Engine:
    return open_engine(
        causal("llama"), optim=optim(0.1), device=CPU, world=world, runtime=runtime(**keys)
    )


def test_several_processes_use_the_replicated_engine():
    assert type(new_engine()) is Engine
    assert type(new_engine(World(Share(0, 2)))) is Replicated


class Started(Exception):
    """Training with DeepSpeed was requested, with this configuration."""


def initialize(*, model, optimizer, config):
    if optimizer is not None:
        raise Started(config["zero_optimization"])
    return [SimpleNamespace(config=config)]


@pytest.fixture
def deepspeed(monkeypatch):
    """Replace DeepSpeed, whose import takes seconds, by a fake that returns its configuration."""
    for name in ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.config"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["deepspeed.runtime.config"].DeepSpeedConfig = dict
    for module in (zero, zero_loading):
        monkeypatch.setattr(
            module, "import_deepspeed", lambda world: SimpleNamespace(initialize=initialize)
        )


def sharded(stage: int, **more) -> dict:
    return {"deepspeed": {"zero_optimization": {"stage": stage, "overlap_comm": True}}, **more}


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_deepspeed_section_selects_deepspeed_for_training(stage, deepspeed):
    with pytest.raises(Started, match=f"'stage': {stage}"):
        new_engine(**sharded(stage))


def test_the_deepspeed_config_includes_values_of_other_keys(deepspeed):
    found = zero_loading.deepspeed_config(
        runtime(**sharded(2)), World(Share(0, 4)), torch.bfloat16, grad_clip=0.5
    )
    assert found["zero_optimization"] == {"stage": 2, "overlap_comm": True}
    assert found["train_batch_size"] == 4
    assert found["gradient_clipping"] == 0.5
    assert found["bf16"]["enabled"]


@pytest.mark.parametrize("gather", Gather)
def test_frozen_models_are_sharded_at_stage_three_only(gather, deepspeed):
    def frozen(stage: int):
        given = runtime(**sharded(stage), gather=gather)
        return open_network(causal("llama"), device=CPU, world=World(), runtime=given)

    assert type(frozen(1)) is type(frozen(2)) is Network
    network = frozen(3)
    assert network.zero.config["zero_optimization"] == sharded(3)["deepspeed"]["zero_optimization"]
    assert network.generation.gather is gather


def test_models_are_sharded_while_loading_at_stage_three_only(monkeypatch):
    read = []
    monkeypatch.setattr(zero_loading, "sharded_loading", lambda *given: nullcontext(read.append(1)))
    for stage in (1, 2, 3):
        with model_loading(runtime(**sharded(stage)), World()):
            assert len(read) == (stage == 3)
