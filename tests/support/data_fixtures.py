"""Small configurations, files and tokenizers for the tests of data; conftest.py imports them."""

import gzip
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rlhf_cli.config.compose import resolve
from rlhf_cli.config.keys import conf_dir
from rlhf_cli.config.schema import LongText, Source
from rlhf_cli.config.schema.run import Config
from rlhf_cli.data.templates import build

OPEN = {
    "demonstrations": [],
    "comparisons": [],
    "prompts": [],
    "pretraining": [],
    "template": "auto",
    "system": None,
    "max_prompt_tokens": 256,
    "max_response_tokens": 128,
    "long_prompts": LongText.truncate,
    "long_responses": LongText.truncate,
    "eval_fraction": 0.2,
    "select_fraction": 0.05,
    "max_bad_fraction": 1.0,
    "strict": False,
}


@cache
def _default() -> Config:
    with initialize_config_dir(str(conf_dir()), version_base=None):
        return resolve(compose("config"))


@pytest.fixture
def config():
    """Return config(comparisons=[...], ...), the default configuration with this data section."""

    def make(*, ties=None, **data) -> Config:
        default = _default()
        sources = {
            key: [Source(path=str(s)) if isinstance(s, (str, Path)) else s for s in value]
            if isinstance(value, list)
            else value
            for key, value in data.items()
        }
        rm = default.rm if ties is None else replace(default.rm, ties=ties)
        return replace(default, rm=rm, data=replace(default.data, **{**OPEN, **sources}))

    return make


@pytest.fixture
def write(tmp_path):
    """Return write(name, rows or text) -> path of a file; .gz is compressed."""

    def file(name: str, content) -> Path:
        path = tmp_path / name
        if not isinstance(content, str):
            kind = name.removesuffix(".gz")
            lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in content)
            content = json.dumps(content) if kind.endswith(".json") else lines + "\n"
        data = content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return file


def byte_tokenizer(**special: str):
    """Return a tokenizer of single bytes: any text has as many tokens as bytes."""
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


@pytest.fixture
def plain_renderer():
    """Return a renderer with single bytes, the plain template, and </s> as the end token."""
    return build(byte_tokenizer(eos_token="</s>"), template="plain", system=None)


@pytest.fixture
def make_tokenizer():
    """Return byte_tokenizer, for tests that need their own special tokens."""
    return byte_tokenizer


@pytest.fixture
def stories(real_data):
    """Return a real tokenizer without pad token and template, which adds a prefix space."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(real_data / "models" / "stories260K")


@pytest.fixture
def gpt2(real_data):
    """Return the GPT-2 tokenizer, whose bos, eos and unk are one token, without a pad token."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(real_data / "tokenizers" / "gpt2")
