"""The results that the docs promise for the embedded task, for several seeds; minutes each."""

import json

import pytest

from tests.support.command_line import rlhf

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_stage_raises_the_utility_and_the_reward_model_is_below_its_ceiling(seed, tmp_path):
    """SFT beats base and PPO beats SFT in gold utility, beyond the 95 % intervals."""
    done = rlhf(tmp_path, "run", f"seed={seed}", "evaluation.best_of_n=0", "samples=0")
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "runs" / "default"
    table = json.loads((run / "evaluate" / "table.json").read_text())["rows"]
    base, sft, ppo = (table[name] for name in ("base", "SFT", "PPO"))
    assert base["gold"][2] < sft["gold"][1]
    assert sft["gold"][2] < ppo["gold"][1]
    assert ppo["rude"][0] < sft["rude"][0] < base["rude"][0]
    assert ppo["right"][0] > base["right"][2]
    assert min(sft["eos_rate"][0], ppo["eos_rate"][0]) > 0.95
    report = json.loads((run / "rm" / "report.json").read_text())
    assert report["accuracy"][1] > 0.5
    assert report["accuracy"][2] < report["accuracy_ceiling"][0]
