"""What a run plans: where it writes, which stages it takes, what an interrupted one goes on with."""

from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_cli.artifacts import attempts, checkpoints
from rlhf_cli.artifacts.attempts import Attempt
from rlhf_cli.artifacts.manifest import Refusal
from rlhf_cli.config.compose import freeze
from rlhf_cli.config.schema import Parents, Resume, Stage
from rlhf_cli.stages import STAGES
from rlhf_cli.stages.messages import foreseen, plan_rows
from rlhf_cli.stages.plan import Planner, State
from tests.config.test_compose import composed
from tests.report.runs import finish


@pytest.fixture(scope="module")
def default():
    return composed()


@pytest.fixture
def planner(default, tmp_path):
    """planner(stage=[..], ...): of the default configuration with these keys, in an empty folder."""

    def made(**keys) -> Planner:
        return Planner(cfg=replace(default, **{"runs_dir": str(tmp_path / "runs"), **keys}))

    return made


def test_a_run_lies_under_its_name_in_runs_dir(planner):
    assert planner(name="own", runs_dir="else/where").folder == Path("else/where/own")


def test_the_stages_are_those_that_were_chosen_less_those_that_are_given(planner):
    def chosen(**keys):
        return [spec.name for spec in planner(**keys).chosen()]

    everything = list(Stage)
    assert chosen() == chosen(stage=everything) == list(STAGES)
    assert chosen(stage=[Stage.sft, Stage.ppo]) == ["sft", "ppo"]
    given = Parents(sft="some/model", rm=None)
    assert chosen(stage=everything, parents=given) == ["rm", "ppo", "evaluate"]
    with pytest.raises(Refusal, match=r"parents\.sft=some/model replaces the selected sft"):
        chosen(stage=[Stage.sft], parents=given)


@pytest.mark.parametrize(("resume", "step"), [("auto", 4), ("whole", 4), ("never", None)])
def test_an_interrupted_stage_goes_on_unless_it_shall_begin_anew(planner, resume, step):
    mine = planner(stage=[Stage.sft])
    work, _ = attempts.begin(mine.folder, "sft", mine.fingerprint(STAGES["sft"]), Attempt())
    checkpoints.begin(work, 4)
    checkpoints.commit(work, 4, {}, 2)
    (found,) = planner(stage=[Stage.sft], resume=Resume[resume]).plan()
    assert found.attempt.step == step
    assert ("resume=never" in found.reason) is (resume == "never")


@pytest.fixture
def finished(planner):
    """planner, where all stages have been made of the default configuration."""
    for name, spec in STAGES.items():
        made = planner()
        fingerprint = made.fingerprint(spec)
        finish(
            made.folder,
            name,
            config=freeze(made.cfg),
            config_hash=fingerprint.config_hash(),
            data=fingerprint.data,
            parents=fingerprint.parents,
            version=fingerprint.version,
        )
    assert {step.state for step in planner().plan()} == {State.fresh}
    return planner


def other_kl(default):
    return replace(default.ppo, kl=replace(default.ppo.kl, coef=0.5))


def test_an_evaluation_leaves_no_stale_stage_out(finished, default):
    """Its table would take the place of one that has it."""
    with pytest.raises(Refusal, match=r"would leave out ppo: .*ppo\.kl\.coef changed .* -> 0\.5"):
        finished(stage=[Stage.evaluate], ppo=other_kl(default)).plan()


def test_an_evaluation_leaves_no_damaged_stage_out(finished):
    (finished().folder / "ppo" / "config.json").write_text("{}")
    with pytest.raises(
        Refusal, match=r"leave out ppo: .*ppo/config\.json is truncated.*stage=\[ppo,"
    ):
        finished(stage=[Stage.evaluate]).plan()


def test_an_evaluation_goes_without_what_is_not_there_or_follows_from_what_runs(finished, default):
    sft = replace(default.sft, epochs=9)
    steps = finished(stage=[Stage.sft, Stage.evaluate], sft=sft).plan()
    assert [step.state for step in steps] == [State.run, State.run]
    (finished().folder / "ppo").rename(finished().folder / "away")
    (step,) = finished(stage=[Stage.evaluate]).plan()
    assert step.why == "parent ppo changed"


def test_a_dry_run_says_what_is_kept_and_why_the_rest_runs(finished, default):
    mine = finished(dry_run=True, ppo=other_kl(default), stage=[Stage.sft, Stage.ppo])
    steps = [mine.judge(spec.name) for spec in mine.chosen()]
    rows = {row[0]: row[2] for row in plan_rows(mine, steps, would="would ")}
    assert rows["sft"] == "would be kept: unchanged"
    assert rows["ppo"].startswith("would run: ppo.kl.coef changed")
    assert list(foreseen(mine, steps)) == ["ppo took 0:00 for 7 steps when it was last made here"]


def test_a_dry_run_says_what_a_run_would_refuse(planner):
    mine = planner(dry_run=True, stage=[Stage.rm])
    steps = [mine.judge("rm")]
    refused, unknown = foreseen(mine, steps)
    assert refused.startswith("a run would refuse this: rm needs sft: ")
    assert unknown == "time and memory of rm: known only after a first run here"
