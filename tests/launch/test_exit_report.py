"""The reason for the end of a run, from the exits of its workers."""

import pytest

from rlhf_cli.config.errors import ExitCode
from rlhf_cli.launch.exit_report import WorkerExit, run_result


def worker_exit(
    rank: int, code: int, *, reason: str | None = None, terminated=False, **more
) -> WorkerExit:
    left = {"reason": reason, "expected": False, "broken": False, "saved": False, **more}
    return WorkerExit(
        rank=rank, code=code, terminated=terminated, failure=left if reason else None,
        hang=None, traceback=f"traceback-{rank}", log_tail=[],
    )  # fmt: skip


def broken_connection(rank: int) -> WorkerExit:
    return worker_exit(rank, 1, reason="DistBackendError: NCCL", broken=True)


@pytest.mark.parametrize(
    ("exits", "lost", "reason"),
    [
        ([broken_connection(0), worker_exit(1, -9)], (), "rank 1 was killed by signal 9"),
        (
            [broken_connection(0), worker_exit(1, 1, reason="KeyError: x")],
            (),
            "rank 1: KeyError: x",
        ),
        ([broken_connection(0), worker_exit(1, -6)], (), "rank 1 was killed by signal 6"),
        (
            [broken_connection(0), worker_exit(1, -6, reason="KeyError: x")],
            (),
            "rank 1: KeyError: x",
        ),
        ([broken_connection(0), broken_connection(1)], (), "DistBackendError: NCCL"),
        (
            [broken_connection(0), worker_exit(1, -15, terminated=True)],
            ("node 1 is lost",),
            "node 1 is lost",
        ),
        (
            [worker_exit(0, 1, terminated=True), worker_exit(1, 7)],
            (),
            "rank 1: its process ended with code 7",
        ),
        ([worker_exit(0, -15, terminated=True)], ("node 1 is lost",), "node 1 is lost"),
    ],
)
def test_the_cause_is_reported_before_its_consequences(exits, lost, reason):
    found = run_result(exits, interrupted=False, timeout=9, lost=lost)
    assert found.reason == reason
    assert found.code != 0


def test_an_interrupted_run_has_the_exit_code_of_interruption():
    left = [worker_exit(0, ExitCode.INTERRUPTED), broken_connection(1)]
    assert run_result(left, interrupted=True, timeout=9).code == ExitCode.INTERRUPTED
    assert (
        run_result([worker_exit(0, 0), worker_exit(1, 0)], interrupted=False, timeout=9).code == 0
    )


def test_a_stage_that_finishes_despite_an_interruption_succeeds():
    found = run_result([worker_exit(0, 0), worker_exit(1, 0)], interrupted=True, timeout=9)
    assert (found.code, found.interrupted) == (0, True)
