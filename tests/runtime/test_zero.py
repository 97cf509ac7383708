"""ZeRO in one and two processes equals the plain engine: training, resuming, generating, PPO."""

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
FEWER = [["zero1", "bfloat16"], ["zero2", "float32"], ["zero3", "bfloat16"], [ALL[3], "float32"]]
OTHERS = [case for case in BOTH if case not in FEWER]


@pytest.mark.slow  # that of two processes is not
def test_zero_training_in_one_process_equals_the_plain_engine():
    run_processes(1, "tests.support.distributed.training:check_alone", *BOTH)


@pytest.mark.parametrize("cases", [FEWER, pytest.param(OTHERS, marks=pytest.mark.slow)])
def test_zero_training_in_two_processes_equals_the_plain_engine(cases):
    run_processes(2, "tests.support.distributed.training:check_training", *cases)


def test_zero_resumes_exactly_and_its_state_loads_without_it(tmp_path):
    cases = (["zero2", "float32"], ["zero3", "float32"])
    run_processes(2, "tests.support.distributed.training:check_resuming", str(tmp_path), *cases)
    moves = (["zero2", None], ["zero3", None])
    run_processes(1, "tests.support.distributed.training:check_moving", str(tmp_path), *moves)


@pytest.mark.slow
def test_zero_resumes_exactly_and_loads_states_of_other_topologies(tmp_path):
    run_processes(2, "tests.support.distributed.training:check_resuming", str(tmp_path), *BOTH)
    run_processes(
        1,
        "tests.support.distributed.training:check_moving",
        str(tmp_path),
        ["zero3", "zero2"],
        ["zero3_offload", "zero3"],
        ["zero3", None],
        ["zero1", None],
    )


def test_responses_sampled_under_zero_equal_those_of_the_plain_model():
    run_processes(
        2,
        "tests.support.distributed.networks:check_generating",
        ["zero3", "llama", "always"],
        ["zero3", "gpt2", "never"],
    )


@pytest.mark.slow
def test_responses_sampled_under_offloaded_zero_equal_those_of_the_plain_model():
    case = ["zero3_offload", "gpt2", "auto"]
    run_processes(2, "tests.support.distributed.networks:check_generating", case)


@pytest.mark.parametrize(
    "cases",
    [
        [["zero3", "float32", "llama", 1e-5], ["zero2", "float32", "llama", 1e-5]],
        pytest.param(
            [["zero3_offload", "float32", "gpt2", 1e-5], ["zero3", "bfloat16", "llama", 2e-2]],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_four_networks_of_ppo_run_together_under_zero(tmp_path, cases):
    run_processes(2, "tests.support.distributed.networks:check_players", str(tmp_path), *cases)


@pytest.mark.parametrize(
    ("zero", "expected"),
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
def test_unsupported_settings_of_deepspeed_are_refused(zero, expected):
    given = runtime("zero2")
    given.deepspeed["zero_optimization"] = zero
    with pytest.raises(UserError, match=expected):
        required_stage(given)


@pytest.mark.parametrize(("free", "layer_by_layer"), [(1, True), (2, False)])
def test_weights_are_gathered_for_generation_only_where_they_fit(free, layer_by_layer, monkeypatch):
    """One and a half copies of the weights must fit in the free memory."""
    monkeypatch.setattr(zero_generation, "_free_memory", lambda device: free * 2**30)
    weight = torch.nn.Parameter(torch.empty(0))
    weight.ds_numel = 2**28
    model = torch.nn.Module()
    model.weight = weight
    rollout = ZeroGeneration(None, model, pick_device(runtime(None)), World(), Gather.auto)
    assert rollout.layer_by_layer is layer_by_layer
    assert f"1.5 x 1.0 GiB of weights, {free}.0 GiB free" in rollout.note()


def test_run_processes_shows_the_traceback_of_a_failing_process():
    with pytest.raises(AssertionError, match=r"(?s)failed.*rank 1.*ZeroDivisionError: of rank 1"):
        run_processes(2, "tests.support.distributed.failing:divide", timeout=60)
    with pytest.raises(AssertionError, match=r"(?s)not done after 2 s.*rank 0.*I sleep"):
        run_processes(1, "tests.support.distributed.failing:sleep", timeout=2)
