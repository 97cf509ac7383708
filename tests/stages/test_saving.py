"""When a stage saves, what is kept, and what it resumes from: the keys of `save` and `resume`."""

import re
import signal
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rlhf_cli.artifacts.store import WriteError
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Save
from rlhf_cli.config.schema.run import Resume
from rlhf_cli.launch.signals import Stopped
from rlhf_cli.runtime.world import World
from rlhf_cli.stages import saving
from rlhf_cli.stages.saving import Resumed, Saver, load_checkpoint, require_space
from rlhf_cli.telemetry.timing import Clock
from tests.support.distributed.processes import run_processes
from tests.support.tabular import engine, optim, policy_network


@pytest.fixture(autouse=True)
def signal_handlers():
    """Restore the signal handlers of pytest, which a Saver replaces."""
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in handled}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def minutes(monkeypatch):
    """Return minutes(number), which sets a clock that otherwise stands still."""
    now = SimpleNamespace(seconds=1000.0)
    clock = SimpleNamespace(monotonic=lambda: now.seconds)
    monkeypatch.setattr(saving, "time", clock)
    return lambda number: setattr(now, "seconds", 1000.0 + 60 * number)


def model_of(shares):
    return engine(policy_network(torch.tensor(shares)), optim(0.1))


@dataclass(slots=True)
class State:
    """The state of a stage that has done `at` steps."""

    at: int = 0
    own: torch.Tensor | None = None

    def state_dict(self) -> dict:
        return {"at": self.at}

    def tensors(self) -> dict:
        return {} if self.own is None else {"own": self.own}


def open_saver(
    work: Path, *, resume=Resume.auto, shares=(0.5, 0.5), **keys
) -> tuple[Saver, Resumed | None]:
    """Open a Saver as a stage does; `keys` are those of `save`."""
    cfg = {"every_steps": None, "every_minutes": None, "keep": 9, "keep_replaced": 1} | keys
    cfg = SimpleNamespace(save=Save(**cfg), resume=resume)
    context = SimpleNamespace(cfg=cfg, world=World(), clock=Clock())
    engines = {"policy": model_of(shares)}
    resumed = load_checkpoint(context, work, engines)
    recorder = SimpleNamespace(state=lambda: {"lines": 7})
    samples = SimpleNamespace(texts={"before": ["a"]})
    return Saver(context, work, engines=engines, recorder=recorder, samples=samples), resumed


def saved(work: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (work / "resume").glob("step-*"))


def after(saver: Saver, *steps: int) -> None:
    for step in steps:
        saver.after_step(step, State(step))


@pytest.mark.parametrize(("every", "steps"), [(None, []), (2, [2, 4, 6]), (3, [3, 6])])
def test_every_steps_sets_the_steps_between_checkpoints(every, steps, tmp_path):
    after(open_saver(tmp_path, every_steps=every)[0], *range(1, 8))
    assert saved(tmp_path) == steps


@pytest.mark.parametrize(("every", "steps"), [(None, []), (2.0, [3, 6]), (0.5, [1, 2, 3, 4, 5, 6])])
def test_every_minutes_counts_from_the_last_checkpoint(every, steps, tmp_path, minutes):
    """Each step takes 0.9 minutes: two minutes have passed after the third and the sixth."""
    saver, _ = open_saver(tmp_path, every_minutes=every)
    for step in range(1, 7):
        minutes(0.9 * step)
        after(saver, step)
    assert saved(tmp_path) == steps


@pytest.mark.parametrize(("keep", "steps"), [(1, [5]), (3, [3, 4, 5])])
def test_keep_is_the_number_of_newest_checkpoints_kept(keep, steps, tmp_path):
    after(open_saver(tmp_path, every_steps=1, keep=keep)[0], *range(1, 6))
    assert saved(tmp_path) == steps


def interrupted(work: Path) -> torch.Tensor:
    """Save two steps of a run; return the weights of the second."""
    saver, _ = open_saver(work, every_steps=1, shares=(0.9, 0.1))
    policy = saver.engines["policy"]
    for step in (1, 2):
        loss = policy(lambda model: model(torch.tensor([[0]])).logits[0, 0, 1])
        policy.backward(loss, last=True)
        policy.step(1.0)
        saver.after_step(step, State(step, torch.ones(2)))
    return policy.get("lm_head.weight")


def test_an_interrupted_stage_resumes_with_everything_that_was_saved(tmp_path):
    weights = interrupted(tmp_path)
    saver, found = open_saver(tmp_path)
    policy = saver.engines["policy"]
    assert (found.step, found.state, found.recorder) == (2, {"at": 2}, {"lines": 7})
    assert found.samples == {"before": ["a"]}
    assert found.tensors["own"].tolist() == [1, 1]
    assert policy.steps == 2
    assert torch.equal(policy.get("lm_head.weight"), weights)


@pytest.mark.parametrize("where", ["weight", "exp_avg_sq", "own"])
def test_a_state_that_is_not_finite_is_not_saved(where, tmp_path):
    """The checkpoint before it stays the one to resume from."""
    interrupted(tmp_path)
    saver, _ = open_saver(tmp_path, every_steps=1)
    policy, own = saver.engines["policy"], torch.ones(2)
    master = next(m for name, m in policy._named() if name == "lm_head.weight")
    broken = {
        "weight": master.data,
        "exp_avg_sq": policy.optimizer.state[master]["exp_avg_sq"],
        "own": own,
    }[where]
    broken.view(-1)[1] = float("nan")
    with pytest.raises(UserError, match=r"step 3 is not saved: .* holds NaN.*lower optim\.lr"):
        saver.after_step(3, State(3, own))
    assert [path.name for path in (tmp_path / "resume").glob("*3*")] == []
    assert saved(tmp_path) == [1, 2]
    assert open_saver(tmp_path)[1].step == 2


@pytest.mark.dist
def test_a_state_that_is_not_finite_on_one_rank_is_saved_by_none(tmp_path):
    run_processes(
        2, "tests.support.distributed.stages:broken_on_one_process", str(tmp_path), timeout=60
    )


@pytest.mark.parametrize(
    ("free", "keep", "expected"),
    [
        (10**9, 2, ""),
        (
            6_000,
            9,
            "warning: .* 10 checkpoints .*save.keep=9.*free space there, or lower save.keep",
        ),
        (10, 2, "exports alone takes .*: free space there, or choose another runs_dir"),
    ],
)
def test_require_space_reports_the_bytes_that_are_missing_before_the_stage(
    free, keep, expected, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    engines = {"policy": model_of((0.5, 0.5))}
    model, checkpoint = saving.bytes_of(engines["policy"])
    assert 10 < model < 6_000 < 10 * checkpoint
    if free < model:
        with pytest.raises(WriteError, match=expected):
            require_space(tmp_path, engines, keep=keep)
    else:
        require_space(tmp_path, engines, keep=keep)
        printed = " ".join(capsys.readouterr().out.split())
        assert re.search(expected, printed) if expected else not printed


@pytest.mark.parametrize(("decay", "size"), [(None, 12), (0.9, 16)])
def test_a_checkpoint_takes_12_bytes_per_parameter_and_16_with_an_average(decay, size):
    model = policy_network(torch.tensor([0.5, 0.5]))
    num = sum(p.numel() for p in model.parameters())
    assert saving.bytes_of(engine(model, optim(0.1), ema_decay=decay)) == (4 * num, size * num)


def test_resume_never_removes_the_checkpoints(tmp_path):
    weights = interrupted(tmp_path)
    saver, resumed = open_saver(tmp_path, resume=Resume.never)
    assert resumed is None
    assert saved(tmp_path) == []
    assert not torch.equal(saver.engines["policy"].get("lm_head.weight"), weights)


def test_resume_last_valid_skips_a_damaged_checkpoint(tmp_path):
    interrupted(tmp_path)
    (tmp_path / "resume" / "step-00000002" / "stage.safetensors").unlink()
    assert open_saver(tmp_path, resume=Resume.last_valid)[1].step == 1


@pytest.mark.parametrize("requested", ["stop", "save"])
def test_a_stop_request_saves_and_ends_and_a_save_request_saves_once(
    requested, tmp_path, monkeypatch
):
    saver, _ = open_saver(tmp_path)
    monkeypatch.setattr(saver.signals, requested, True)
    ends = pytest.raises(Stopped, match="saved at step 4")
    with ends if requested == "stop" else nullcontext():
        after(saver, 4)
    monkeypatch.setattr(saver.signals, "stop", False)
    after(saver, 5)
    assert saved(tmp_path) == [4]
