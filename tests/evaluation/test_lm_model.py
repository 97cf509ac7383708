"""The model as the harness asks it: the text before an option or a response, and inputs too long for it.

The harness's own class is replaced by one that records what it is given.
"""

import sys
from importlib import import_module
from types import ModuleType

import pytest
import torch

from rlhf_cli.evaluation.lm_request import ChatSpacing

PLAIN, CHATML = ChatSpacing(header="", space=" "), ChatSpacing(header="", space="")


class Recorder:
    """In place of HFLM: a token per word, and at most eight of them."""

    max_length = 8

    def __init__(self, **given):
        self.given, self.shown, self.silent = given, [], []

    def apply_chat_template(self, history, add_generation_prompt=True):
        return (
            f"{history[0]['content']}\n\nAssistant:" if add_generation_prompt else "Assistant: so"
        )

    def tok_encode(self, text):
        return text.split()

    def tok_batch_encode(self, strings, padding_side, left_truncate_len, truncation):
        self.shown += strings
        width = min(max(len(text.split()) for text in strings), left_truncate_len)
        return torch.zeros(len(strings), width), torch.ones(len(strings), width)

    def _loglikelihood_tokens(self, requests, **names):
        return [(-1.0, False) for _ in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        self.silent.append(disable_tqdm)
        return []

    loglikelihood_rolling = loglikelihood

    def generate_until(self, requests, disable_tqdm=False):
        self.silent.append(disable_tqdm)
        return [" Paris", "  Rome", "Oslo"]


@pytest.fixture
def opened(monkeypatch):
    """Return a function that opens the model with this spacing."""
    name = "rlhf_cli.evaluation.lm_model"
    library = ModuleType("lm_eval.models.huggingface")
    library.HFLM = Recorder
    for module in ("lm_eval", "lm_eval.models"):
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
    monkeypatch.setitem(sys.modules, library.__name__, library)
    monkeypatch.delitem(sys.modules, name, raising=False)
    kind = import_module(name).StageLM
    yield lambda spacing: kind(None, None, batch=3, spacing=spacing)
    sys.modules.pop(name, None)


def test_the_prompt_ends_as_the_template_lets_a_response_begin(opened):
    history = [{"role": "user", "content": "why?"}]
    assert opened(PLAIN).apply_chat_template(history) == "why?\n\nAssistant: "
    assert opened(CHATML).apply_chat_template(history) == "why?\n\nAssistant:"
    header = ChatSpacing(header="\n#", space="")
    assert opened(header).apply_chat_template(history) == "why?\n\nAssistant:\n#"
    for spacing in (PLAIN, header, None):
        assert opened(spacing).apply_chat_template(history, False) == "Assistant: so"


def test_a_response_is_written_after_the_prompt_without_the_space(opened):
    lm = opened(PLAIN)
    lm.tok_batch_encode(["why?\n\nAssistant: ", "how? "], left_truncate_len=8)
    assert lm.shown == ["why?\n\nAssistant:", "how?"]
    assert lm.generate_until([]) == ["Paris", " Rome", "Oslo"]
    for spacing in (CHATML, None):
        lm = opened(spacing)
        lm.tok_batch_encode(["how? "], left_truncate_len=8)
        assert lm.shown == ["how? "] and lm.generate_until([]) == [" Paris", "  Rome", "Oslo"]


def test_a_conversation_has_the_bos_of_its_template_and_a_text_that_of_the_tokenizer(opened):
    assert opened(PLAIN).given["add_bos_token"] is False
    assert opened(None).given["add_bos_token"] is None
    assert opened(None).given["batch_size"] == 3


def test_inputs_that_are_too_long_are_known_by_their_text(opened):
    lm = opened(None)
    tokens = [(("fits", "x"), [0] * 8, [0]), (("long", "x"), [0] * 9, [0]), (None, [0] * 20, [0])]
    assert lm._loglikelihood_tokens(tokens) == [(-1.0, False)] * 3
    assert lm.cut == {"long"}


def test_prompts_to_continue_that_are_too_long_are_known_by_their_text(opened):
    lm = opened(PLAIN)
    lm.tok_batch_encode(["a b c ", "a b c d "], left_truncate_len=3)
    assert lm.cut == {"a b c d "}
    lm.tok_batch_encode(["e f g "], left_truncate_len=4)
    assert lm.cut == {"a b c d "}


def test_progress_is_for_terminals(opened, monkeypatch):
    lm = opened(None)
    for is_terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda shown=is_terminal: shown)
        lm.loglikelihood([]), lm.loglikelihood_rolling([]), lm.generate_until([])
    assert lm.silent == [True] * 3 + [False] * 3
