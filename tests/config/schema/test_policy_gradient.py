"""Constraints of the methods beyond the three steps: each names its keys and the remedy."""

import pytest

from rlhf_cli.config.schema.constraints import ConfigError
from tests.support.configuration import composed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["grpo.group=1"],
            r"grpo\.baseline=group compares the responses to a prompt: set grpo\.group=2",
        ),
        (["rloo.group=1"], r"rloo\.baseline=leave_one_out compares .*: set rloo\.group=2 or more"),
        (["reinforce.scale=group"], r"reinforce\.scale=group compares .*: set reinforce\.group=2"),
        (
            ["rloo.group=3"],
            r"rloo\.group=3 must divide rloo\.batch\.rollout and rloo\.total_episodes",
        ),
        (["reinforce.skip_uniform=true"], r"reinforce\.skip_uniform=true looks for groups"),
        (
            ["rloo.skip_uniform=true", "rloo.total_episodes=192"],
            r"rloo\.total_episodes=192 is not a multi",
        ),
        (["rloo.total_episodes=64"], r"rloo\.total_episodes=64 is less than one rollout"),
        (
            ["rloo.kl.coef=0", "rloo.kl_stop.run=9"],
            r"rloo\.kl_stop\.run=9.* but rloo\.kl\.coef=0 loads no",
        ),
        (
            ["rloo.kl.estimator=k3"],
            r"rloo\.kl\.estimator=k3 is for.* only k1 is right",
        ),
        (["rloo.kl.weighted=true"], r"rloo\.kl\.weighted=true is for rloo\.kl\.place=loss"),
        (
            ["grpo.kl.estimator=k1"],
            r"grpo\.kl\.estimator=k1 has no gradient on average .*weighted=true",
        ),
        (["grpo.kl.estimator=k2", "grpo.kl.weighted=true"], r"grpo\.kl\.weighted=true spoils k2"),
        (
            ["reinforce.batch.rollout=1", "reinforce.batch.minibatch=1"],
            r"reinforce\.baseline=running compares .*: set reinforce\.batch\.rollout=2",
        ),
        (
            ["dpo.loss=ipo", "dpo.margin=1"],
            r"dpo\.loss=ipo has targets of its own: .* dpo\.margin=0",
        ),
        (
            ["dpo.loss=robust", "dpo.ties=soft"],
            r"dpo\.loss=robust knows flipped labels, .*dpo\.ties=drop",
        ),
        (
            ["dpo.ties=davidson", "dpo.label_smoothing=0.1"],
            r"dpo\.ties=davidson models ties itself",
        ),
        (["best_of_n.n=65"], r"best_of_n\.n=65 is more than best_of_n\.samples=64"),
        (["raft.top=0"], r"raft\.top=0.* must lie in \(0, 1\]"),
    ],
    ids=lambda found: " ".join(found) if isinstance(found, list) else "",
)
def test_what_a_method_cannot_do_is_refused_with_the_remedy(words, message):
    with pytest.raises(ConfigError, match=message):
        composed(*words)


@pytest.mark.parametrize(
    "words",
    [
        ["reinforce.kl.coef=0"],
        ["grpo.kl.estimator=k1", "grpo.kl.weighted=true"],
        ["grpo.kl.place=reward", "grpo.kl.estimator=k1"],
        ["rloo.skip_uniform=true", "rloo.total_episodes=256"],
        ["dpo.loss=robust", "dpo.label_smoothing=0.1"],
    ],
)
def test_what_a_method_can_do_is_accepted(words):
    composed(*words)
