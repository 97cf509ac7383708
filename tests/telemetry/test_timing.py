"""Every second belongs to one phase; speeds are counts over seconds; intervals survive a resume."""

import json
from types import SimpleNamespace

import pytest

from rlhf_cli.telemetry import timing
from rlhf_cli.telemetry.recorder import RecordedStage, Recorder
from rlhf_cli.telemetry.timing import COSTS, PHASES, Clock


@pytest.fixture
def wait(monkeypatch):
    """Return wait(seconds), which advances the clock."""
    now = [100.0]
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(timing, "_began", None)

    def wait(seconds):
        now[0] += seconds

    return wait


def phase_times(**seconds):
    return {f"time/{part}": seconds.get(part, 0.0) for part in PHASES}


def test_phases_add_up_and_exclude_nested_phases(wait):
    clock = Clock()
    wait(1)
    with clock.phase("learn"):
        wait(2)
        with clock.phase("save"):
            wait(4)
            with clock.phase("idle"):  # waiting for others while saving
                wait(8)
        wait(16)
    wait(32)
    assert clock.interval() == phase_times(learn=18, save=4, idle=41)
    assert clock.interval() == phase_times()


def test_an_interval_can_end_within_a_phase(wait):
    clock = Clock()
    with clock.phase("generate"):
        wait(3)
        assert clock.interval() == phase_times(generate=3)
        wait(2)
    assert clock.interval() == phase_times(generate=2)


def test_a_phase_ends_when_its_body_raises(wait):
    clock = Clock()
    with pytest.raises(ZeroDivisionError), clock.phase("score"):
        wait(1)
        raise ZeroDivisionError
    wait(2)
    assert clock.interval() == phase_times(score=1, idle=2)


def test_an_unknown_phase_is_refused(wait):
    with pytest.raises(KeyError), Clock().phase("lunch"):
        pass


def test_speeds_are_counts_divided_by_their_seconds(wait):
    clock = Clock(peak=lambda: 1000.0)
    with clock.phase("generate"):
        wait(4)
    with clock.phase("learn"):
        wait(2)
    wait(2)
    for _ in range(2):
        clock.count(tokens=40, flops=500.0)
    clock.count(generated=100)
    found = clock.interval()
    assert found["speed/tokens_per_s"] == 80 / 8
    assert found["speed/generated_tokens_per_s"] == 100 / 4
    assert found["speed/mfu"] == 1000 / 2 / 1000
    assert clock.interval() == phase_times()  # nothing was counted since


def test_mfu_is_left_out_and_not_measured_when_the_flops_are_unknown(wait):
    def never():
        raise AssertionError("measured for nothing")

    clock = Clock(peak=never)
    for flops in (0.0, float("nan")):
        with clock.phase("learn"):
            wait(1)
        clock.count(tokens=5, flops=flops)
        assert clock.interval() == phase_times(learn=1) | {"speed/tokens_per_s": 5}


def test_an_interval_continues_after_a_resume(wait):
    first, second = Clock(), Clock()
    with first.phase("learn"):
        wait(3)
        with first.phase("save"):
            state = json.loads(json.dumps(first.state()))
    first.count(tokens=7)
    assert state["seconds"]["learn"] == 3
    second.start()
    second.load_state(state | {"counts": {"tokens": 12, "flops": 0.0, "generated": 0.0}})
    with second.phase("learn"):
        wait(1)
    assert second.interval() == phase_times(learn=4) | {"speed/tokens_per_s": 3}


def test_costs_are_those_of_all_attempts(tmp_path):
    first, second = Clock(), Clock()
    first.sampled(responses=4, tokens=30)
    first.scored(8)
    first.count(tokens=100, generated=7)  # 7 tokens that are only shown
    first.interval()
    expected = {"sampled_responses": 4, "sampled_tokens": 30, "trained_tokens": 100}
    assert first.costs == expected | {"scored_responses": 8}
    with open_recorder(tmp_path, second, resumed={"clock": first.state()}):
        second.count(tokens=5)
    last = lines(tmp_path)[-1]
    assert {name: last[f"cost/{name}"] for name in COSTS} == first.costs | {"trained_tokens": 105}
    assert last["cost/seconds"] == last["time"]


def test_the_time_of_the_start_begins_with_the_process(wait):
    timing.begin()
    wait(5)
    clock = Clock()
    with clock.phase("idle"):
        wait(2)
    assert clock.start() == {"time/start": 7}
    assert clock.interval() == phase_times()


def open_recorder(folder, clock, *, every=1, **more):
    return Recorder(
        folder, RecordedStage(name="sft", total_steps=5, headline=(), every=every, config={}),
        trackers=(), clock=clock, **more,
    )  # fmt: skip


def lines(folder):
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_times_of_all_lines_of_a_stage_add_up_to_its_time(wait, tmp_path):
    """Steps without a line count, and so does the time before the first and after the last step."""
    clock = Clock()
    wait(10)
    with open_recorder(tmp_path, clock, every=2) as log:
        for step in range(1, 6):
            with clock.phase("learn"):
                wait(1)
            log.log({"x": 1.0}, step)
        with clock.phase("save"):
            wait(3)
    found = lines(tmp_path)
    assert [one.get("step") for one in found] == [None, 2, 4, 5, None]
    assert [one.get("time/start", 0) for one in found] == [10, 0, 0, 0, 0]
    assert [one.get("time/learn", 0) for one in found] == [0, 2, 2, 1, 0]
    assert found[-1]["time/save"] == 3


def test_a_resumed_recorder_continues_the_interval_of_the_checkpoint(wait, tmp_path):
    clock = Clock()
    with pytest.raises(KeyboardInterrupt), open_recorder(tmp_path, clock, every=2) as log:
        with clock.phase("learn"):
            wait(1)
        log.log({}, 1)
        state = log.state()
        with clock.phase("learn"):
            wait(100)  # lost with the attempt
        raise KeyboardInterrupt
    wait(1000)  # between the attempts
    clock = Clock()
    wait(10)
    with open_recorder(tmp_path, clock, every=2, resumed=state) as log:
        with clock.phase("learn"):
            wait(2)
        log.log({}, 2)
    found = lines(tmp_path)
    assert [one.get("time/start") for one in found] == [0, 10, None, None]
    assert [one.get("time/learn", 0) for one in found] == [0, 0, 3, 0]


def test_energy_is_a_cost_where_it_is_counted_without_that_of_loading(tmp_path):
    kwh, first, second = iter([9.0, 1.0, 2.0, 9.0, 4.0]), Clock(), Clock()
    first.meter(lambda: next(kwh))
    first.start()
    first.interval()
    state = {"clock": json.loads(json.dumps(first.state()))}
    assert first.costs["energy_kwh"] == 3
    second.meter(lambda: next(kwh))
    with open_recorder(tmp_path / "one", second, resumed=state):
        pass
    assert lines(tmp_path / "one")[-1]["cost/energy_kwh"] == 7
    with open_recorder(tmp_path / "two", Clock(), resumed=state):
        pass
    assert "cost/energy_kwh" not in lines(tmp_path / "two")[-1]
    third = Clock()
    third.meter(lambda: 1.0)
    third.load_state(Clock().state())
    assert third.interval() and "energy_kwh" not in third.costs


def test_energy_is_not_known_once_its_counter_cannot_be_read():
    clock, broken = Clock(), False

    def energy() -> float:
        if broken:
            raise OSError("no driver")
        return 1.0

    clock.meter(energy)
    clock.interval()
    broken = True
    clock.interval()
    broken = False
    assert clock.interval() and "energy_kwh" not in clock.costs
