"""ZeRO in one and two processes is the plain engine: training, resuming, generating, PPO's pattern."""

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.runtime.zero_loading import stage_of
from tests.runtime import bodies
from tests.runtime.dist import run_processes

pytestmark = pytest.mark.dist
ALL = ("zero1", "zero2", "zero3", "zero3_offload")
BOTH = [[name, dtype] for name in ALL for dtype in ("float32", "bfloat16")]


def run(num: int, body: str, *args, timeout: float = 120) -> None:
    run_processes(num, f"tests.runtime.bodies:{body}", *args, timeout=timeout)


@pytest.mark.parametrize("num", [1, 2])
def test_training_is_the_plain_engines(num):
    run(num, "check_training", *BOTH)


def test_states_go_on_exactly_and_move_between_topologies(tmp_path):
    run(2, "check_resuming", str(tmp_path), *BOTH)
    run(1, "check_moving", str(tmp_path), "zero2", "zero3", None)


def test_responses_are_the_plain_models():
    run(
        2,
        "check_generating",
        ["zero3", "llama", "always"],
        ["zero3", "gpt2", "never"],
        ["zero3_offload", "llama", "never"],
        ["zero3_offload", "gpt2", "auto"],
    )


def test_four_networks_in_one_process(tmp_path):
    run(
        2,
        "check_players",
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
        ({"stage": 3, "offload_param": {"device": "nvme"}}, r"offload_param\.device=nvme .* use cpu"),
        ({"stage": 2, "round_robin_gradients": True}, r"round_robin_gradients is not supported"),
    ],
)
def test_what_is_not_supported_is_refused(zero, told):
    given = bodies.runtime("zero2")
    given.deepspeed["zero_optimization"] = zero
    with pytest.raises(UserError, match=told):
        stage_of(given)


def test_a_failing_process_is_shown():
    with pytest.raises(AssertionError, match=r"(?s)failed.*rank 1.*ZeroDivisionError: of rank 1"):
        run_processes(2, "tests.runtime.failing:divide", timeout=60)
    with pytest.raises(AssertionError, match=r"(?s)not done after 2 s.*rank 0.*I sleep"):
        run_processes(1, "tests.runtime.failing:sleep", timeout=2)
