"""A reward model that shares the policy's tokens, and one that reads other ones."""

import json

import pytest
import torch
from hydra import compose, initialize_config_dir

from rlhf_cli.config.compose import conf_dir, resolve
from rlhf_cli.core.batches import PromptBatch, Rollout
from rlhf_cli.data.collate import pad_left, pad_right
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.models.scoring import Reading, sequence_scores
from rlhf_cli.stages.judging import RewardModel, renew_head
from rlhf_cli.stages.setting import open_setting

OTHER_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def setting():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = resolve(compose("config", overrides=["experiment=smoke", "runtime.device=cpu"]))
    return open_setting(cfg)


@pytest.fixture(scope="module")
def prompts(setting):
    return setting.encoded("prompts").held_out[:6]


@pytest.fixture(scope="module")
def folders(setting, tmp_path_factory):
    """The same reward model twice: with the policy's template, and with another one."""
    found = {}
    for name in ("same", "other"):
        folder = tmp_path_factory.mktemp(name)
        model = setting.scalar_model("tiny", new_head=True)
        engine = setting.engine(model, setting.cfg.rm.optim)
        renew_head(engine, seed=3)
        setting.export(engine, folder)
        found[name] = folder
    (found["other"] / "chat_template.jinja").write_text(OTHER_TEMPLATE)
    return found


def rows(setting, prompts, replies, *, finished=True):
    """The tensors PPO hands to the score: prompts left padded, responses right padded."""
    ids = [setting.renderer.response_ids(reply) for reply in replies]
    ids = ids if finished else [one[:-1] for one in ids]
    tokens, mask = pad_left([prompt.ids for prompt in prompts], setting.renderer.pad_id)
    batch = PromptBatch(tokens=tokens, mask=mask, index=[])
    return batch, *pad_right(ids, setting.renderer.pad_id), ids


def reading(batch, responses, mask):
    finished = torch.ones(len(responses)).bool()
    return Reading(Rollout.unjudged(batch.tokens, batch.mask, responses, mask, finished))


REPLIES = ["Sure! woof.", "no.", "It is dog. Glad I could help!", "5", "red", "The answer is cold."]


@torch.no_grad()
def test_shared_tokens_are_scored_as_they_are(setting, prompts, folders):
    reward = RewardModel.load(setting, folders["same"], prompts)
    assert reward.renderer is None
    assert reward.notes() == []
    batch, responses, mask, ids = rows(setting, prompts, REPLIES)
    found = reward.score(reading(batch, responses, mask))
    for prompt, reply, score in zip(prompts, ids, found, strict=True):
        whole = torch.tensor([prompt.ids + reply])
        alone = sequence_scores(reward.network.model, whole, torch.ones_like(whole).bool())
        assert float(score) == pytest.approx(float(alone), abs=1e-4)


@pytest.mark.parametrize("finished", [True, False])
@torch.no_grad()
def test_other_tokens_are_rendered_again_and_said(setting, prompts, folders, finished):
    """Twin: the conversation rendered by hand in the reward model's own template."""
    reward = RewardModel.load(setting, folders["other"], prompts)
    assert "tokenised again" in reward.notes()[0]
    batch, responses, mask, ids = rows(setting, prompts, REPLIES, finished=finished)
    found = reward.score(reading(batch, responses, mask))
    tokenizer = reward.renderer.tokenizer
    for prompt, reply, score in zip(prompts, REPLIES, found, strict=True):
        text = f"<user> {prompt.record.messages[0].content}\n<assistant> {reply}"
        whole = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] * finished
        alone = sequence_scores(
            reward.network.model, torch.tensor([whole]), torch.ones(1, len(whole)).bool()
        )
        assert float(score) == pytest.approx(float(alone), abs=1e-4)
    answers = [
        Answer(prompt_ids=p.ids, ids=i, text="", finished=finished)
        for p, i in zip(prompts, ids, strict=True)
    ]
    assert torch.allclose(reward.score_answers(answers), found, atol=1e-4)


def test_the_export_says_which_token_pads(folders):
    config = json.loads((folders["same"] / "config.json").read_text())
    assert config["pad_token_id"] != config["eos_token_id"]
