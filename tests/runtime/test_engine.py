"""Networks on one device."""

import torch

from rlhf_cli.models.loading import freeze
from rlhf_cli.models.scoring import sequence_scores
from rlhf_cli.runtime.device import threads_for
from rlhf_cli.runtime.engine import Resting
from tests.models.tiny import ragged, scalar
from tests.stages.tabular import CPU


@torch.no_grad()
def test_a_resting_network_answers_as_ever_and_leaves_nothing_behind():
    """Coming to the device is a copy here too, so it can be told from being at rest."""
    model, rows = freeze(scalar("llama", seed=1)), ragged(5, 6, side="right")
    wanted = sequence_scores(model, *rows)
    home = [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]
    network = Resting(model, device=CPU)
    for _ in range(2):
        assert torch.equal(network(sequence_scores, *rows), wanted)
        away = [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]
        assert not set(away) & set(home)
        network.rest()
        assert [x.data_ptr() for x in (*model.parameters(), *model.buffers())] == home
    with network.generating() as awake:
        assert next(awake.parameters()).data_ptr() not in home


def test_a_small_model_has_one_thread_and_the_largest_of_a_stage_decides():
    assert threads_for(260_000, most=16) == 1
    assert threads_for(124_000_000, most=16) == 16
