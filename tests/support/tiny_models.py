"""Random networks of several architectures, a few thousand parameters each."""

from copy import deepcopy

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    Qwen3Config,
)

VOCAB = 40
SPECIAL = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
CONFIGS = {
    "llama": LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        num_labels=1,
        **SPECIAL,
    ),
    "qwen3": Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        max_position_embeddings=64,
        num_labels=1,
        **SPECIAL,
    ),
    "gpt2": GPT2Config(
        vocab_size=VOCAB,
        n_embd=16,
        n_layer=2,
        n_head=4,
        n_positions=64,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        num_labels=1,
        **SPECIAL,
    ),
    "neox": GPTNeoXConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        num_labels=1,
        **SPECIAL,
    ),
    "opt": OPTConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        dropout=0.0,
        num_labels=1,
        **SPECIAL,
    ),
}


def causal(name: str, seed: int = 0, sharpness: float = 1.0):
    """Return a random language model; `sharpness` > 1 makes its predictions less uniform."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(deepcopy(CONFIGS[name]), dtype=torch.float32).eval()
    return _sharpen(model, sharpness)


def scalar(name: str, seed: int = 0, sharpness: float = 1.0):
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(
        deepcopy(CONFIGS[name]), dtype=torch.float32
    )
    return _sharpen(model.eval(), sharpness)


def _sharpen(model, factor: float):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(factor)
    return model


def ragged(rows: int, width: int, *, side: str, seed: int = 0):
    """Return (tokens, mask) of random rows with 2..width tokens, padded with 0 on one side."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, VOCAB, (rows, width), generator=generator)
    lengths = torch.randint(2, width + 1, (rows, 1), generator=generator)
    columns = torch.arange(width)
    mask = columns >= width - lengths if side == "left" else columns < lengths
    return tokens.masked_fill(~mask, 0), mask
