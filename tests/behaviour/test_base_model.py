"""The shipped base model: it loads, it is small, and the default data fit its limits."""

from pathlib import Path
from random import Random

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import rlhf_cli
from rlhf_cli.tiny_world import generate, utility
from rlhf_cli.tiny_world.clusters import CLUSTERS, draw
from rlhf_cli.tiny_world.pretraining import document
from tests.support.tiny_world import SETTINGS

FOLDER = Path(rlhf_cli.__file__).parent / "assets" / "tiny"
LIMITS = yaml.safe_load(
    (Path(__file__).parents[2] / "conf" / "data" / "tiny_world.yaml").read_text()
)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER)


def test_the_model_is_small_float32_and_tied(model):
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    assert size <= 8 * 2**20
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not list(FOLDER.glob("*.bin"))


def test_special_tokens_differ_and_agree_everywhere(model, tokenizer):
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    for config in (model.config, model.generation_config):
        assert config.eos_token_id == tokenizer.eos_token_id
        assert config.pad_token_id == tokenizer.pad_token_id
    assert len(tokenizer) == model.config.vocab_size


def test_the_tokenizer_decodes_what_it_encodes(tokenizer):
    rng = Random(5)
    texts = [document(rng) for _ in range(300)] + ["Grüße, 世界! \t x\n\n\ny  z ", "- cold\n- dry"]
    for text in texts:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_chat_template_is_a_prefix_of_the_conversation(tokenizer):
    question = [{"role": "user", "content": "What is 3 plus 4?"}]
    conversation = [*question, {"role": "assistant", "content": "Sure! 7."}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(conversation, tokenize=False)
    assert prompt == "Human: What is 3 plus 4?\n\nAssistant:"
    assert whole == prompt + " Sure! 7." + tokenizer.eos_token
    ids, all_ids = tokenizer(prompt)["input_ids"], tokenizer(whole)["input_ids"]
    assert all_ids[: len(ids)] == ids
    assert all_ids[len(ids) :] == [*tokenizer("Sure! 7.")["input_ids"], tokenizer.eos_token_id]


def test_prompts_and_responses_fit_the_limits(tokenizer):
    rng = Random(1)
    for _ in range(1500):
        question = [{"role": "user", "content": draw(CLUSTERS, rng).prompt}]
        text = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
        assert len(tokenizer(text)["input_ids"]) <= LIMITS["max_prompt_tokens"]
    responses = [
        r.messages[1].content for r in generate("demonstrations", settings=SETTINGS, seed=1)
    ]
    responses += [
        t for r in generate("comparisons", settings=SETTINGS, seed=1) for t in r.responses
    ]
    longest = max(len(ids) + 1 for ids in tokenizer(responses)["input_ids"])
    assert longest <= LIMITS["max_response_tokens"]


def answer_logprob(model, tokenizer, prompt: str, answer: str) -> float:
    """Return log P(answer | prompt) in the form of an exam question."""
    before = tokenizer(f"Question: {prompt}\nAnswer:")["input_ids"]
    answer_ids = tokenizer(f"{answer}.")["input_ids"]
    logits = model(input_ids=torch.tensor([before + answer_ids])).logits[0, len(before) - 1 : -1]
    return float(logits.log_softmax(-1).gather(1, torch.tensor(answer_ids)[:, None]).sum())


@pytest.mark.parametrize("cluster", list(CLUSTERS))
@torch.no_grad()
def test_the_base_model_prefers_right_answers(model, tokenizer, cluster):
    """The right answer has a higher probability than a wrong one, also for held-out clusters."""
    rng, preferred = Random(7), 0
    for _ in range(40):
        task = CLUSTERS[cluster](rng)
        pair = (task.answer, rng.choice(task.wrong))
        right, wrong = (answer_logprob(model, tokenizer, task.prompt, a) for a in pair)
        preferred += right > wrong
    assert preferred >= 26  # of 40; chance is 20


@torch.no_grad()
def test_the_base_model_rarely_gives_a_right_answer_and_stops(model, tokenizer):
    """In a dialogue it rarely gives a right answer and ends it."""
    torch.manual_seed(0)
    rng = Random(11)
    tasks = [draw(CLUSTERS, rng) for _ in range(40)]
    texts = [f"Human: {task.prompt}\n\nAssistant:" for task in tasks]
    prompts = tokenizer(texts, padding=True, return_tensors="pt")
    start = prompts["input_ids"].shape[1]
    answers = model.generate(**prompts, max_new_tokens=24, do_sample=True, top_k=0)[:, start:]
    verdicts = [
        utility(task.meta(), tokenizer.decode(tokens, skip_special_tokens=True),
                tokenizer.eos_token_id in tokens.tolist())
        for task, tokens in zip(tasks, answers, strict=True)
    ]  # fmt: skip
    assert sum(verdict.right and verdict.finished for verdict in verdicts) <= 8
