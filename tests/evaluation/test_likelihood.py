"""Log-probs of given responses, against one forward pass of the model per response."""

import pytest

from rlhf_cli.core.microbatches import Share
from rlhf_cli.evaluation.likelihood import Continuation, log_likelihoods
from rlhf_cli.models.forward import reads_unpadded
from rlhf_cli.models.unpadding.attention import enable_unpadding
from rlhf_cli.runtime.world import World
from tests.support.options import OPTIONS, PROMPTS, by_itself
from tests.support.tabular import network
from tests.support.tiny_models import causal

ROWS = [Continuation(prompt_ids=prompt, ids=ids) for prompt in PROMPTS for ids in OPTIONS]


@pytest.mark.parametrize(("name", "unpadded"), [("llama", True), ("llama", False), ("opt", False)])
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_log_probs_are_those_of_each_response_alone(name, unpadded, batch):
    model = causal(name, sharpness=4.0)
    expected = [by_itself(model, row) for row in ROWS]
    read = network(enable_unpadding(model) if unpadded else model)
    assert reads_unpadded(model) is unpadded
    found = log_likelihoods(read, ROWS, pad_id=0, batch=batch, world=World())
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


def test_a_prompt_is_read_once_for_its_options(monkeypatch):
    from rlhf_cli.models import forward

    sizes = []
    states = forward.unpadded_states

    def noted(body, tokens, unpadded):
        sizes.append(len(unpadded.computed_index))
        return states(body, tokens, unpadded)

    monkeypatch.setattr(forward, "unpadded_states", noted)
    read = network(enable_unpadding(causal("llama")))
    log_likelihoods(read, ROWS[:3], pad_id=0, batch=8, world=World())
    # The prompt, then 5, then 6 1 with the 7 1 of the second, then 8 9 10 1.
    assert sizes == [3 + 1 + 2 + 2 + 4]


@pytest.mark.parametrize("num", [2, 3])
def test_processes_divide_the_rows(num):
    read = network(causal("llama", sharpness=4.0))
    whole = log_likelihoods(read, ROWS, pad_id=0, batch=3, world=World())
    parts = [
        log_likelihoods(read, ROWS, pad_id=0, batch=3, world=World(Share(rank, num)))
        for rank in range(num)
    ]
    assert all(0 < int((part != 0).sum()) < len(ROWS) for part in parts)
    assert sum(parts).tolist() == pytest.approx(whole.tolist())


def test_no_rows_have_no_log_probs():
    assert log_likelihoods(
        network(causal("llama")), [], pad_id=0, batch=4, world=World()
    ).shape == (0,)
