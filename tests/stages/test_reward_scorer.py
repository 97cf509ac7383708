"""A reward model that shares the policy's tokens, and one that reads other ones."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from hydra import compose, initialize_config_dir

from rlhf_cli.config.compose import resolve
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.keys import conf_dir
from rlhf_cli.config.schema import LongText
from rlhf_cli.core.batches import PromptBatch, Rollout
from rlhf_cli.data.collate import pad_left, pad_right
from rlhf_cli.data.encode import encode_prompt
from rlhf_cli.data.records import Message, Origin, Prompt
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.models.forward import ModelInputs, sequence_scores
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.reward_scorer import RewardModel, reset_head

OTHER_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def context():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = resolve(compose("config", overrides=["experiment=smoke", "runtime.device=cpu"]))
    return open_context(cfg)


@pytest.fixture(scope="module")
def prompts(context):
    return context.encoded("prompts").held_out[:6]


@pytest.fixture(scope="module")
def folders(context, tmp_path_factory):
    """The same reward model twice: with the policy's template, and with another one."""
    found = {}
    for name in ("same", "other"):
        folder = tmp_path_factory.mktemp(name)
        model = context.scalar_model("tiny", new_head=True)
        engine = context.engine(model, context.cfg.rm.optim)
        reset_head(engine, seed=3)
        context.export(engine, folder)
        found[name] = folder
    (found["other"] / "chat_template.jinja").write_text(OTHER_TEMPLATE)
    return found


def rows(context, prompts, replies, *, finished=True):
    """The tensors PPO hands to the score: prompts left padded, responses right padded."""
    ids = [context.renderer.response_ids(reply) for reply in replies]
    ids = ids if finished else [one[:-1] for one in ids]
    tokens, mask = pad_left([prompt.ids for prompt in prompts], context.renderer.pad_id)
    batch = PromptBatch(tokens=tokens, mask=mask, index=[])
    return batch, *pad_right(ids, context.renderer.pad_id), ids


def reading(batch, responses, mask):
    finished = torch.ones(len(responses)).bool()
    return ModelInputs(Rollout.unscored(batch.tokens, batch.mask, responses, mask, finished))


REPLIES = ["Sure! woof.", "no.", "It is dog. Glad I could help!", "5", "red", "The answer is cold."]


@torch.no_grad()
def test_shared_tokens_are_scored_as_they_are(context, prompts, folders):
    reward = RewardModel.load(context, folders["same"], prompts)
    assert reward.renderer is None
    assert reward.notes() == []
    batch, responses, mask, ids = rows(context, prompts, REPLIES)
    found = reward.score(reading(batch, responses, mask))
    for prompt, reply, score in zip(prompts, ids, found, strict=True):
        whole = torch.tensor([prompt.ids + reply])
        alone = sequence_scores(reward.network.model, whole, torch.ones_like(whole).bool())
        assert float(score) == pytest.approx(float(alone), abs=1e-4)


@pytest.mark.parametrize("finished", [True, False])
@torch.no_grad()
def test_other_tokens_are_rendered_again_and_said(context, prompts, folders, finished):
    """Twin: the conversation rendered by hand in the reward model's own template."""
    reward = RewardModel.load(context, folders["other"], prompts)
    assert "tokenised again" in reward.notes()[0]
    batch, responses, mask, ids = rows(context, prompts, REPLIES, finished=finished)
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


CLOSED = (
    "{% for m in messages %}<{{ m['role'] }}>"
    "{{ '<think></think>' if m['role'] == 'assistant' and '</think>' not in m['content'] }}"
    "{{ ' ' + m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant><think></think>{% endif %}"
)


@pytest.fixture
def asked(context):
    """What the policy sees of a question of many lines: its last one."""
    lines = "\n".join(f"line {i} of a long question" for i in range(30))
    record = Prompt((Message("user", lines),), Origin("a", 1))
    room = replace(context.cfg.data, max_prompt_tokens=24, long_prompts=LongText.truncate)
    return encode_prompt(context.renderer, record, room)


def scored(reward, context, asked, reply="woof."):
    """What the reward model reads, and its score of one answer."""
    ids = context.renderer.response_ids(reply)
    answer = Answer(prompt_ids=asked.ids, ids=ids, text=reply, finished=True)
    return reward.translation.row(asked.ids, ids), reward.score_answers([answer])


@torch.no_grad()
def test_other_tokens_are_of_the_prompt_that_the_policy_saw(context, asked, folders):
    reward = RewardModel.load(context, folders["other"], [asked])
    row, score = scored(reward, context, asked)
    text = reward.renderer.tokenizer.decode(row)
    assert text.strip() == "<user> line 29 of a long question\n<assistant> woof.<|eos|>"
    alone = sequence_scores(
        reward.network.model, torch.tensor([row]), torch.ones(1, len(row)).bool()
    )
    assert float(score) == pytest.approx(float(alone), abs=1e-4)
    assert len(reward.notes()) == 1


@pytest.fixture
def changed(folders, tmp_path):
    """changed(file, **keys): the reward model with another template and keys of a JSON file changed."""

    def make(file, **keys):
        folder = shutil.copytree(folders["other"], tmp_path / "changed")
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | keys))
        return folder

    return make


def test_a_prompt_is_cut_again_to_the_reward_models_own_context(context, asked, changed):
    """Room for the longest response stays free; a response that grows beyond it loses its end."""
    room = context.cfg.data.max_response_tokens + 16
    reward = RewardModel.load(
        context, changed("config.json", max_position_embeddings=room), [asked]
    )
    row, score = scored(reward, context, asked)
    assert "question\n<assistant> woof.<|eos|>" in reward.renderer.tokenizer.decode(row)
    assert "line 29" not in reward.renderer.tokenizer.decode(row)
    assert torch.isfinite(score).all()
    assert f"1 of 1 prompts are cut once more, to its {room} positions" in reward.notes()[1]
    long, score = scored(reward, context, asked, "woof. " * 30)
    assert len(long) == room
    assert torch.isfinite(score).all()


def test_a_context_without_room_for_a_prompt_is_refused(context, asked, changed):
    room = context.cfg.data.max_response_tokens + 3
    folder = changed("config.json", max_position_embeddings=room)
    with pytest.raises(UserError, match=f"has {room} positions, which do not hold a prompt beside"):
        RewardModel.load(context, folder, [asked])


def test_a_reward_model_without_room_is_refused_also_where_the_tokens_are_its_own(
    context, asked, folders, tmp_path
):
    folder = shutil.copytree(folders["same"], tmp_path / "small")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"max_position_embeddings": 9}))
    with pytest.raises(UserError, match="but the reward model has 9 positions"):
        RewardModel.load(context, folder, [asked])


@pytest.mark.parametrize("packed", [True, False])
def test_a_reward_model_without_a_pad_token_needs_no_new_row(context, asked, changed, packed):
    """Its rows are padded with a token that it has, which changes no score."""
    folder = changed("tokenizer_config.json", pad_token=None)
    tokens = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(tokens.replace("<|pad|>", "<|never|>"))
    other = replace(
        context,
        cfg=replace(
            context.cfg, runtime=replace(context.cfg.runtime, reference_implementation=not packed)
        ),
    )
    reward = RewardModel.load(other, folder, [asked])
    assert reward.renderer.added_tokens == ("<|pad|>",)
    with torch.no_grad():
        row, alone = scored(reward, context, asked)
        longer = Answer(
            prompt_ids=asked.ids,
            ids=context.renderer.response_ids("woof. " * 9),
            text="",
            finished=True,
        )
        short = replace(longer, ids=context.renderer.response_ids("woof."))
        together = reward.score_answers([short, longer])
    assert max(row) < reward.network.model.get_input_embeddings().num_embeddings
    assert float(together[0]) == pytest.approx(float(alone), abs=1e-4)


def test_an_end_token_that_had_to_be_added_is_left_out(context, asked, changed):
    folder = changed("tokenizer_config.json", eos_token=None)
    (folder / "chat_template.jinja").unlink()
    reward = RewardModel.load(context, folder, [asked])
    row, score = scored(reward, context, asked)
    assert reward.renderer.tokenizer.decode(row).endswith("Assistant: woof.")
    assert torch.isfinite(score).all()


def test_a_sampled_thought_that_the_reward_models_template_has_no_place_for_is_read(
    context, asked, changed
):
    folder = changed("config.json")
    (folder / "chat_template.jinja").write_text(CLOSED)
    reward = RewardModel.load(context, folder, [asked])
    row, score = scored(reward, context, asked, "a </think> b")
    assert "a </think> b" in reward.renderer.tokenizer.decode(row)
    assert torch.isfinite(score).all()


def test_the_export_says_which_token_pads(folders):
    config = json.loads((folders["same"] / "config.json").read_text())
    assert config["pad_token_id"] != config["eos_token_id"]
