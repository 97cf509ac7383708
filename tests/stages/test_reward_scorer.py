"""Reward models that share the tokens of the policy, and ones with tokens of their own."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from hydra import compose, initialize_config_dir

from rlhf_cli.config.compose import resolve
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.keys import conf_dir
from rlhf_cli.config.schema import Combine, LongText, Reward
from rlhf_cli.core.batches import PromptBatch, Rollout
from rlhf_cli.data.collate import pad_left, pad_right
from rlhf_cli.data.encode import encode_prompt
from rlhf_cli.data.records import Message, Origin, Prompt
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.models.forward import ModelInputs, sequence_scores
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.reward_scorer import RewardModel, combining, reset_head

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
    """Export one reward model twice: with the template of the policy, and with another one."""
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
    """Return the tensors that PPO scores: prompts padded left, responses padded right."""
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
def test_the_policys_token_ids_are_scored_directly_when_the_tokenizers_agree(
    context, prompts, folders
):
    reward = RewardModel.load(context, [folders["same"]], prompts)
    assert reward.renderer is None
    assert reward.notes() == []
    batch, responses, mask, ids = rows(context, prompts, REPLIES)
    found = reward.score(reward.networks[0], reading(batch, responses, mask))
    for prompt, reply, score in zip(prompts, ids, found, strict=True):
        whole = torch.tensor([prompt.ids + reply])
        alone = sequence_scores(reward.networks[0].model, whole, torch.ones_like(whole).bool())
        assert float(score) == pytest.approx(float(alone), abs=1e-4)


@pytest.mark.parametrize("finished", [True, False])
@torch.no_grad()
def test_texts_are_rendered_again_for_a_reward_model_with_another_template(
    context, prompts, folders, finished
):
    """Reference: the conversation, rendered by hand in the template of the reward model."""
    reward = RewardModel.load(context, [folders["other"]], prompts)
    assert "tokenised again" in reward.notes()[0]
    batch, responses, mask, ids = rows(context, prompts, REPLIES, finished=finished)
    found = reward.score(reward.networks[0], reading(batch, responses, mask))
    tokenizer = reward.renderer.tokenizer
    for prompt, reply, score in zip(prompts, REPLIES, found, strict=True):
        text = f"<user> {prompt.record.messages[0].content}\n<assistant> {reply}"
        whole = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] * finished
        alone = sequence_scores(
            reward.networks[0].model, torch.tensor([whole]), torch.ones(1, len(whole)).bool()
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
def truncated_prompt(context):
    """Return a question of many lines, truncated to its last one."""
    lines = "\n".join(f"line {i} of a long question" for i in range(30))
    record = Prompt((Message("user", lines),), Origin("a", 1))
    room = replace(context.cfg.data, max_prompt_tokens=24, long_prompts=LongText.truncate)
    return encode_prompt(context.renderer, record, room)


def scored(reward, context, truncated_prompt, reply="woof."):
    """Return (the tokens that the reward model reads, its score) of one answer."""
    ids = context.renderer.response_ids(reply)
    answer = Answer(prompt_ids=truncated_prompt.ids, ids=ids, text=reply, finished=True)
    return reward.translation.row(truncated_prompt.ids, ids), reward.score_answers([answer])


@torch.no_grad()
def test_the_rendered_prompt_is_the_truncated_prompt_of_the_policy(
    context, truncated_prompt, folders
):
    reward = RewardModel.load(context, [folders["other"]], [truncated_prompt])
    row, score = scored(reward, context, truncated_prompt)
    text = reward.renderer.tokenizer.decode(row)
    assert text.strip() == "<user> line 29 of a long question\n<assistant> woof.<|eos|>"
    alone = sequence_scores(
        reward.networks[0].model, torch.tensor([row]), torch.ones(1, len(row)).bool()
    )
    assert float(score) == pytest.approx(float(alone), abs=1e-4)
    assert len(reward.notes()) == 1


@pytest.fixture
def changed(folders, tmp_path):
    """Return changed(file, **keys): the other reward model with keys of a JSON file changed."""

    def make(file, **keys):
        folder = shutil.copytree(folders["other"], tmp_path / "changed")
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | keys))
        return folder

    return make


def test_a_prompt_is_truncated_again_to_the_context_of_the_reward_model(
    context, truncated_prompt, changed
):
    """Positions for the longest response stay free; a longer response is truncated."""
    room = context.cfg.data.max_response_tokens + 16
    reward = RewardModel.load(
        context, [changed("config.json", max_position_embeddings=room)], [truncated_prompt]
    )
    row, score = scored(reward, context, truncated_prompt)
    assert "question\n<assistant> woof.<|eos|>" in reward.renderer.tokenizer.decode(row)
    assert "line 29" not in reward.renderer.tokenizer.decode(row)
    assert torch.isfinite(score).all()
    assert f"1 of 1 prompts are cut once more, to its {room} positions" in reward.notes()[1]
    long, score = scored(reward, context, truncated_prompt, "woof. " * 30)
    assert len(long) == room
    assert torch.isfinite(score).all()


def test_a_reward_model_whose_context_cannot_hold_a_prompt_is_refused(
    context, truncated_prompt, changed
):
    room = context.cfg.data.max_response_tokens + 3
    folder = changed("config.json", max_position_embeddings=room)
    with pytest.raises(UserError, match=f"has {room} positions, which do not hold a prompt beside"):
        RewardModel.load(context, [folder], [truncated_prompt])


def test_a_reward_model_with_a_short_context_is_refused_with_shared_tokens_too(
    context, truncated_prompt, folders, tmp_path
):
    folder = shutil.copytree(folders["same"], tmp_path / "small")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"max_position_embeddings": 9}))
    with pytest.raises(UserError, match="but the reward model has 9 positions"):
        RewardModel.load(context, [folder], [truncated_prompt])


@pytest.mark.parametrize("packed", [True, False])
def test_a_reward_model_without_a_pad_token_needs_no_new_embedding_row(
    context, truncated_prompt, changed, packed
):
    """Its rows are padded with an existing token, which changes no score."""
    folder = changed("tokenizer_config.json", pad_token=None)
    tokens = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(tokens.replace("<|pad|>", "<|never|>"))
    other = replace(
        context,
        cfg=replace(
            context.cfg, runtime=replace(context.cfg.runtime, reference_implementation=not packed)
        ),
    )
    reward = RewardModel.load(other, [folder], [truncated_prompt])
    assert reward.renderer.added_tokens == ("<|pad|>",)
    with torch.no_grad():
        row, alone = scored(reward, context, truncated_prompt)
        longer = Answer(
            prompt_ids=truncated_prompt.ids,
            ids=context.renderer.response_ids("woof. " * 9),
            text="",
            finished=True,
        )
        short = replace(longer, ids=context.renderer.response_ids("woof."))
        together = reward.score_answers([short, longer])
    assert max(row) < reward.networks[0].model.get_input_embeddings().num_embeddings
    assert float(together[0]) == pytest.approx(float(alone), abs=1e-4)


def test_an_added_eos_token_is_left_out_of_the_rendered_text(context, truncated_prompt, changed):
    folder = changed("tokenizer_config.json", eos_token=None)
    (folder / "chat_template.jinja").unlink()
    reward = RewardModel.load(context, [folder], [truncated_prompt])
    row, score = scored(reward, context, truncated_prompt)
    assert reward.renderer.tokenizer.decode(row).endswith("Assistant: woof.")
    assert torch.isfinite(score).all()


def test_a_sampled_think_tag_is_read_by_a_template_without_a_place_for_it(
    context, truncated_prompt, changed
):
    folder = changed("config.json")
    (folder / "chat_template.jinja").write_text(CLOSED)
    reward = RewardModel.load(context, [folder], [truncated_prompt])
    row, score = scored(reward, context, truncated_prompt, "a </think> b")
    assert "a </think> b" in reward.renderer.tokenizer.decode(row)
    assert torch.isfinite(score).all()


def test_an_exported_reward_model_names_its_pad_token(folders):
    config = json.loads((folders["same"] / "config.json").read_text())
    assert config["pad_token_id"] != config["eos_token_id"]


def test_reward_models_with_different_templates_cannot_score_together(context, prompts, folders):
    with pytest.raises(
        UserError, match=r"have different tokenizers .* name one of them as parents.rm"
    ):
        RewardModel.load(context, [folders["same"], folders["other"]], prompts)


def test_the_penalty_is_that_of_the_section():
    combine = combining(Reward(combine=Combine.penalised, penalty=2.0))
    assert combine(torch.tensor([[1.0], [3.0]])).tolist() == [0.0]  # mean 2, variance 1
