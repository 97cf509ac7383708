"""The selection of the epoch of SFT, by demonstrations that are used for nothing else."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BloomConfig,
)

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.keys import PACKAGE
from rlhf_cli.data.split import opening
from rlhf_cli.runtime.device import pick_device
from rlhf_cli.runtime.engine import Network
from rlhf_cli.stages import sft, sft_selection
from rlhf_cli.stages.context import open_context
from rlhf_cli.telemetry.progress import short
from tests.support.data_sources import load
from tests.support.stage_runs import config, rows, work

TINY = PACKAGE / "assets" / "tiny"
QUICK = ("tiny_world.demonstrations=60", "data.select_fraction=0.15", "sft.dropout=0")


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory) -> Path:
    """Write a reward model with random weights and the tokenizer of the tiny model."""
    folder = tmp_path_factory.mktemp("rm")
    torch.manual_seed(0)
    settings = AutoModelForCausalLM.from_pretrained(TINY).config
    settings.num_labels = 1
    AutoModelForSequenceClassification.from_config(settings).save_pretrained(folder)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(folder)
    return folder


@torch.no_grad()
def loss_of(model, examples) -> float:
    """Return the mean negative log-likelihood per supervised token, by transformers."""
    total, count = 0.0, 0
    for one in examples:
        ids = torch.tensor([one.ids])
        logprobs = model(ids).logits[0, :-1].log_softmax(-1)
        found = logprobs.gather(1, ids[0, 1:, None])[:, 0]
        learned = torch.tensor(one.loss_mask[1:])
        total, count = total - float(found[learned].sum()), count + int(learned.sum())
    return total / count


def test_eval_loss_is_the_loss_of_the_selection_split(tmp_path):
    keys = (*QUICK, "sft.select_by=eval_loss")
    metrics = work("sft", tmp_path, tmp_path, *keys)
    data = open_context(config(*keys)).encoded("demonstrations")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "sft" / "model")
    losses = {name: loss_of(model, getattr(data, name)) for name in ("train", "select", "held_out")}
    assert metrics["sft/eval_loss"] == pytest.approx(losses["select"], abs=1e-4)
    assert abs(losses["select"] - losses["held_out"]) > 1e-2
    assert abs(losses["select"] - losses["train"]) > 1e-2
    epochs = [row["sft/eval_loss"] for row in rows(tmp_path / "sft") if "sft/eval_loss" in row]
    assert len(epochs) == 2 and metrics["sft/eval_loss"] == min(epochs)


def test_rm_score_uses_answers_to_the_prompts_of_the_selection_split(
    tmp_path, monkeypatch, reward_model, capsys
):
    prompts_used, sample_answers = [], sft_selection.sample_answers

    def recording_sample(context, network, prompts, seed):
        prompts_used.append([opening(prompt.record) for prompt in prompts])
        return sample_answers(context, network, prompts, seed)

    monkeypatch.setattr(sft_selection, "sample_answers", recording_sample)
    keys = (*QUICK, "sft.select_by=rm_score", f"sft.reward_model={reward_model}")
    metrics = work("sft", tmp_path, tmp_path, *keys)
    loaded = load(config(*keys), "demonstrations")
    wanted = [opening(record) for record in loaded.select][:8]  # evaluation.prompts
    assert prompts_used == [wanted, wanted] and wanted
    scores = [row["sft/rm_score"] for row in rows(tmp_path / "sft") if "sft/rm_score" in row]
    assert metrics["sft/rm_score"] == max(scores) > min(scores)
    assert metrics["sft/epoch"] == 1 + scores.index(max(scores))
    best = f"kept epoch {metrics['sft/epoch']:.0f} of 2, the best by sft/rm_score "
    assert best + short(metrics["sft/rm_score"]) in capsys.readouterr().out


def test_an_empty_selection_split_is_refused_before_training():
    cfg = config("sft.select_by=eval_loss")
    sft_selection.require_selection(cfg, ["one"], [])
    with pytest.raises(UserError, match=r"sft\.select_by=eval_loss: no demonstration is left"):
        sft_selection.require_selection(cfg, [], [])
    cfg = config("sft.select_by=rm_score", "sft.reward_model=somewhere")
    with pytest.raises(UserError, match=r"sft\.select_by=rm_score: .*data\.select_fraction=0\.05"):
        sft_selection.require_selection(cfg, ["a text without a prompt"], [])
    sft_selection.require_selection(config("sft.select_by=last"), [], [])


def test_packing_is_refused_for_models_that_cannot_separate_texts():
    cfg = config("sft.batching=packed", "stage=[sft]")
    model = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=40, hidden_size=16, n_head=2))
    network = Network(model.eval(), device=pick_device(cfg.runtime))
    with pytest.raises(UserError, match=r"BloomForCausalLM .* use sft\.batching=grouped"):
        sft.check_model(SimpleNamespace(cfg=cfg), network, None)
