"""PPO as a stage: the number of iterations, and what is refused before the first."""

from dataclasses import replace

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.keys import PACKAGE
from rlhf_cli.core.microbatches import Share
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.ppo import stage
from tests.support.stage_runs import config

TINY = PACKAGE / "assets" / "tiny"


@pytest.mark.parametrize(
    ("episodes", "iterations", "steps"),
    [
        (32, "2 of 16 episodes", 8),
        (44, "3 of 16 episodes, the last of 12", 12),
        (33, "3 of 16 episodes, the last of 1", 10),
    ],
)
def test_a_dry_run_counts_the_last_smaller_rollout(episodes, iterations, steps):
    """Two inner epochs over minibatches of 8, the last of which may be smaller too."""
    facts = stage.preview(config(f"ppo.total_episodes={episodes}"), {}).facts
    assert facts["iterations"] == iterations
    assert facts["optimizer steps"] == f"{steps} at most"


def test_a_last_rollout_that_the_processes_cannot_share_is_refused(monkeypatch, tmp_path):
    def two_processes(*inputs):
        return replace(open_context(*inputs), world=World(Share(0, 2)))

    monkeypatch.setattr(stage, "open_context", two_processes)
    inputs = {"sft": TINY, "rm": TINY}
    with pytest.raises(UserError) as caught:
        stage.run(config("ppo.total_episodes=45"), inputs, tmp_path)
    assert str(caught.value) == (
        "ppo.total_episodes=45 cannot be divided among 2 processes: use 44 or 46, "
        "or another runtime.num_processes"
    )
