"""What a run prints of its stages."""

from types import SimpleNamespace

from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.pipeline import messages


def test_a_metric_that_is_not_finite_is_shown_as_nan(capsys):
    """The manifest stores it as null; 0 is shown as 0."""
    manifest = SimpleNamespace(metrics={"sft/loss": 0.0, "sft/eval_loss": None})
    messages.say_done(SimpleNamespace(spec=STAGES["sft"], manifest=manifest), 1.0)
    assert "sft/loss 0  sft/eval_loss nan" in capsys.readouterr().out
