"""Folders of tiny random models that read texts: a BERT encoder, and an NLI classifier."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = ("the", "a", "cat", "dog", "owl", "saw", "met", "red", "cold", "is", "it", ".", "!")
LABELS = {0: "NEUTRAL", 1: "contradiction", 2: "Entailment"}


def bert_config(**changes) -> BertConfig:
    values = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "hidden_dropout_prob": 0.0,
        "initializer_range": 0.6,
        "pad_token_id": 0,
    }
    return BertConfig(**(values | changes))


def save_tokenizer(folder: Path, *, special: bool = True) -> None:
    """Write a tokenizer with a token per word; special: [CLS] and [SEP] stand around a text."""
    found = Tokenizer(WordLevel({w: i for i, w in enumerate((*SPECIAL, *WORDS))}, "[UNK]"))
    found.pre_tokenizer = Whitespace()
    if special:
        found.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    PreTrainedTokenizerFast(
        tokenizer_object=found,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    ).save_pretrained(folder)


def save_encoder(folder: Path, config: PretrainedConfig | None = None, *, special=True) -> str:
    torch.manual_seed(0)
    AutoModel.from_config(config or bert_config()).save_pretrained(folder)
    save_tokenizer(folder, special=special)
    return str(folder)


def save_classifier(folder: Path, labels: dict[int, str] | None = None) -> str:
    torch.manual_seed(1)
    config = bert_config(id2label=labels or LABELS, num_labels=3)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    save_tokenizer(folder)
    return str(folder)
