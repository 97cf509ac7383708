"""What every contender is given: a random Llama, a reward model of its shape, a tokenizer, and ragged data.

`python benchmarks/material.py SIZE FOLDER` writes them once; the same seed gives the same files.
"""

import json
import math
import random
import sys
from pathlib import Path

PAD, END, UNKNOWN = 0, 1, 2
WORDS = 3  # ids from here on are words
SEED = 0
SIZES = {
    "tiny": {
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "vocab_size": 4096,
    },
    "small": {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 32000,
    },
}
TEXTS = 32  # demonstrations, comparisons and prompts
BATCH = 16
NEW_TOKENS = 96  # longest sampled response
END_CHANCE = 1 / 32  # chance that a sampled token is the end, so that responses are ragged
CONSTANT = 0.05  # a coordinate of the hidden state that no layer touches


def length(draw: random.Random, median: int, longest: int) -> int:
    """Lognormal, as lengths of texts are."""
    return max(2, min(longest, round(median * math.exp(draw.gauss(0, 0.7)))))


def words(draw: random.Random, count: int, vocab: int) -> list[int]:
    return [draw.randrange(WORDS, vocab) for _ in range(count)]


def data(vocab: int) -> list[dict]:
    """Rows of a prompt and two responses, each ended; token ids."""
    draw = random.Random(SEED)
    return [
        {
            "prompt": words(draw, length(draw, 24, 96), vocab),
            "chosen": [*words(draw, length(draw, 40, 160), vocab), END],
            "rejected": [*words(draw, length(draw, 40, 160), vocab), END],
        }
        for _ in range(TEXTS)
    ]


def tokenizer(vocab: int):
    """One word, one token: texts come back as the ids they were made of."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(WORDS, vocab))]
    table = {name: number for number, name in enumerate(names)}
    made = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


def config(shape: dict):
    from transformers import LlamaConfig

    return LlamaConfig(
        **shape,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=END,
    )


def causal_lm(shape: dict):
    """Random weights, except that END has the same chance after every token."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(SEED)
    model = LlamaForCausalLM(config(shape)).eval()
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        embedding[:, 0] = CONSTANT
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        probe = torch.randint(WORDS, shape["vocab_size"], (8, 32))
        constant = model.model(probe).last_hidden_state[..., 0].mean()
        wanted = math.log(END_CHANCE / (1 - END_CHANCE)) + math.log(shape["vocab_size"] - 1)
        embedding[END, 0] += wanted / constant
    return model


def reward_model(shape: dict):
    import torch
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(SEED + 1)
    found = config(shape)
    found.num_labels = 1
    return LlamaForSequenceClassification(found)


def write(size: str, folder: Path) -> None:
    shape = SIZES[size]
    for name, model in (("model", causal_lm(shape)), ("reward", reward_model(shape))):
        model.save_pretrained(folder / name)
        tokenizer(shape["vocab_size"]).save_pretrained(folder / name)
    (folder / "data.json").write_text(json.dumps(data(shape["vocab_size"])))


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
