"""Training code that SFT and the reward model share."""

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.stages.training import require_finite_loss


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused(loss):
    with pytest.raises(UserError, match=r"lower sft\.optim\.lr"):
        require_finite_loss(loss, "sft")
