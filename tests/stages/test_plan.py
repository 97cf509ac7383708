"""What a run plans: where it writes, which stages it takes, what an interrupted one goes on with."""

from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_cli.artifacts import attempts, checkpoints
from rlhf_cli.artifacts.attempts import Attempt
from rlhf_cli.artifacts.manifest import Refusal
from rlhf_cli.config.schema import Parents, Resume, Stage
from rlhf_cli.stages import STAGES
from rlhf_cli.stages.plan import Planner
from tests.config.test_compose import composed


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
