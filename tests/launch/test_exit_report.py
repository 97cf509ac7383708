"""One reason for the end of a run, out of the ends of its workers."""

import pytest

from rlhf_cli.config.errors import ExitCode
from rlhf_cli.launch.exit_report import WorkerExit, run_result


def ended(
    rank: int, code: int, *, reason: str | None = None, terminated=False, **more
) -> WorkerExit:
    left = {"reason": reason, "expected": False, "broken": False, "saved": False, **more}
    return WorkerExit(
        rank=rank, code=code, terminated=terminated, failure=left if reason else None,
        hang=None, traceback=f"traceback-{rank}", log_tail=[],
    )  # fmt: skip


def broken(rank: int) -> WorkerExit:
    return ended(rank, 1, reason="DistBackendError: NCCL", broken=True)


@pytest.mark.parametrize(
    ("exits", "lost", "reason"),
    [
        ([broken(0), ended(1, -9)], (), "rank 1 was killed by signal 9"),
        ([broken(0), ended(1, 1, reason="KeyError: x")], (), "rank 1: KeyError: x"),
        ([broken(0), ended(1, -6)], (), "rank 1 was killed by signal 6"),
        ([broken(0), ended(1, -6, reason="KeyError: x")], (), "rank 1: KeyError: x"),
        ([broken(0), broken(1)], (), "DistBackendError: NCCL"),
        ([broken(0), ended(1, -15, terminated=True)], ("node 1 is lost",), "node 1 is lost"),
        ([ended(0, 1, terminated=True), ended(1, 7)], (), "rank 1: its process ended with code 7"),
        ([ended(0, -15, terminated=True)], ("node 1 is lost",), "node 1 is lost"),
    ],
)
def test_one_reason_out_of_many(exits, lost, reason):
    found = run_result(exits, interrupted=False, timeout=9, lost=lost)
    assert found.reason == reason
    assert found.code != 0


def test_an_interruption_is_no_failure():
    left = [ended(0, ExitCode.INTERRUPTED), broken(1)]
    assert run_result(left, interrupted=True, timeout=9).code == ExitCode.INTERRUPTED
    assert run_result([ended(0, 0), ended(1, 0)], interrupted=False, timeout=9).code == 0


def test_a_stage_that_was_done_before_it_could_stop_is_done():
    found = run_result([ended(0, 0), ended(1, 0)], interrupted=True, timeout=9)
    assert (found.code, found.interrupted) == (0, True)
