"""ZeRO in one and two processes is the plain engine: training, resuming, generating, PPO's pattern."""

import pytest
import torch

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Gather
from rlhf_cli.runtime import zero_generation
from rlhf_cli.runtime.device import pick_device
from rlhf_cli.runtime.world import World
from rlhf_cli.runtime.zero_generation import ZeroGeneration
from rlhf_cli.runtime.zero_loading import required_stage
from tests.support.distributed.processes import run_processes
from tests.support.engines import runtime

pytestmark = pytest.mark.dist
ALL = ("zero1", "zero2", "zero3", "zero3_offload")
BOTH = [[name, dtype] for name in ALL for dtype in ("float32", "bfloat16")]
FEWER = [*([name, "float32"] for name in ALL), ["zero1", "bfloat16"], ["zero3", "bfloat16"]]


def test_training_alone_is_the_plain_engines():
    run_processes(1, "tests.support.distributed.training:check_alone", *BOTH)


def test_training_of_two_is_the_plain_engines():
    run_processes(2, "tests.support.distributed.training:check_training", *BOTH)


def test_states_go_on_exactly_and_move_between_topologies(tmp_path):
    run_processes(2, "tests.support.distributed.training:check_resuming", str(tmp_path), *FEWER)
    run_processes(
        1,
        "tests.support.distributed.training:check_moving",
        str(tmp_path),
        ["zero3", "zero2"],
        ["zero3_offload", "zero3"],
        ["zero3", None],
        ["zero1", None],
    )


def test_responses_are_the_plain_models():
    run_processes(
        2,
        "tests.support.distributed.networks:check_generating",
        ["zero3", "llama", "always"],
        ["zero3", "gpt2", "never"],
        ["zero3_offload", "gpt2", "auto"],
    )


def test_four_networks_in_one_process(tmp_path):
    run_processes(
        2,
        "tests.support.distributed.networks:check_players",
        str(tmp_path),
        ["zero3", "float32", "llama", 1e-5],
        ["zero3_offload", "float32", "gpt2", 1e-5],
        ["zero2", "float32", "llama", 1e-5],
        ["zero3", "bfloat16", "llama", 2e-2],
    )


@pytest.mark.parametrize(
    ("zero", "told"),
    [
        ({"stage": 0}, r"zero_optimization\.stage=0 is none of 1, 2, 3: choose runtime=zero1"),
        ({}, r"zero_optimization\.stage=None"),
        (
            {"stage": 3, "offload_param": {"device": "nvme"}},
            r"offload_param\.device=nvme .* use cpu",
        ),
        ({"stage": 2, "round_robin_gradients": True}, r"round_robin_gradients is not supported"),
    ],
)
def test_what_is_not_supported_is_refused(zero, told):
    given = runtime("zero2")
    given.deepspeed["zero_optimization"] = zero
    with pytest.raises(UserError, match=told):
        required_stage(given)


@pytest.mark.parametrize(("free", "layer_by_layer"), [(1, True), (2, False)])
def test_weights_are_gathered_where_they_fit(free, layer_by_layer, monkeypatch):
    """One and a half copies must fit."""
    monkeypatch.setattr(zero_generation, "_free_memory", lambda device: free * 2**30)
    weight = torch.nn.Parameter(torch.empty(0))
    weight.ds_numel = 2**28
    model = torch.nn.Module()
    model.weight = weight
    rollout = ZeroGeneration(None, model, pick_device(runtime(None)), World(), Gather.auto)
    assert rollout.layer_by_layer is layer_by_layer
    assert f"1.5 x 1.0 GiB of weights, {free}.0 GiB free" in rollout.note()


def test_a_failing_process_is_shown():
    with pytest.raises(AssertionError, match=r"(?s)failed.*rank 1.*ZeroDivisionError: of rank 1"):
        run_processes(2, "tests.support.distributed.failing:divide", timeout=60)
    with pytest.raises(AssertionError, match=r"(?s)not done after 2 s.*rank 0.*I sleep"):
        run_processes(1, "tests.support.distributed.failing:sleep", timeout=2)
