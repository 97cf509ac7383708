"""The choice of the device, and the precision of its activations."""

import pytest
import torch

from rlhf_cli.config.errors import UserError
from rlhf_cli.runtime.device import pick_device
from rlhf_cli.runtime.engine import Network
from tests.support.tabular import runtime


def test_the_device_is_the_one_named_or_the_best_available():
    other = runtime()
    other.device = "meta"  # a name that the configuration does not allow
    assert pick_device(other).torch.type == "meta"
    best = "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.backends.mps.is_available():
        assert pick_device(runtime(device="auto")).torch.type == best
    other.device = "abacus"
    with pytest.raises(UserError, match=r"runtime\.device=abacus is not usable here"):
        pick_device(other)


def test_each_of_several_processes_needs_its_own_gpu(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "7")
    with pytest.raises(UserError, match=r"cuda:7 is not usable here|cuda:7"):
        pick_device(runtime(device="cuda"))
    with pytest.raises(UserError, match=r"runtime\.device=cuda:1 is one GPU"):
        pick_device(runtime(device="cuda:1"))


@pytest.mark.parametrize(
    ("requested", "dtype"),
    [("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)],
)
def test_runtime_dtype_is_the_dtype_of_activations(requested, dtype):
    """A CPU computes in float32 unless the configuration names another dtype."""
    device = pick_device(runtime(dtype=requested))
    network = Network(torch.nn.Linear(3, 2), device=device)
    output = network(lambda model, rows: model(rows), torch.ones(1, 3))
    assert device.dtype == output.dtype == dtype
