"""The material of every contender: random Llamas, a reward model, a tokenizer, data.

`model` ends a response with a small chance after every token; `endless` never does.

`python benchmarks/material.py SIZE FOLDER` writes them; the same seed gives the same files.
"""

import json
import math
import random
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

MATERIAL = Path(__file__).resolve().parent / "material"
PAD, END, UNKNOWN = 0, 1, 2
WORDS = 3  # ids from here on are words
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Size:
    """The shape of a Llama, and the (median, longest) tokens of its prompts and responses.

    new_tokens: longest sampled response. end_chance: that a sampled token ends it, so lengths are ragged.
    """

    hidden: int
    layers: int
    heads: int
    vocab: int
    prompts: tuple[int, int] = (24, 96)
    responses: tuple[int, int] = (40, 160)
    new_tokens: int = 96
    end_chance: float = 1 / 32

    @property
    def intermediate(self) -> int:
        return -(-self.hidden // 3) * 8


SIZES = {
    "1m": Size(hidden=128, layers=4, heads=4, vocab=2048),
    "tiny": Size(hidden=256, layers=6, heads=8, vocab=4096),
    "14m": Size(hidden=384, layers=6, heads=6, vocab=8192),
    "40m": Size(hidden=512, layers=10, heads=8, vocab=16000),
    "small": Size(hidden=768, layers=12, heads=12, vocab=32000),
    "half": Size(
        hidden=1280,
        layers=24,
        heads=20,
        vocab=32000,
        prompts=(256, 320),
        responses=(640, 703),
        new_tokens=256,
        end_chance=1 / 128,
    ),
}
PARTS = ("model", "endless", "reward", "data.json")
TEXTS = 64  # demonstrations, comparisons and prompts at most
NEVER = 1e-12  # the probability of END of a policy that does not end
CONSTANT = 0.05  # a coordinate of the hidden state that no layer touches


def length(draw: random.Random, median: int, longest: int) -> int:
    """Return a random length, lognormal as lengths of texts are."""
    return max(2, min(longest, round(median * math.exp(draw.gauss(0, 0.7)))))


def words(draw: random.Random, count: int, vocab: int) -> list[int]:
    return [draw.randrange(WORDS, vocab) for _ in range(count)]


def data(size: Size) -> list[dict]:
    """Return rows of token ids: a prompt and two responses with an end token."""
    draw, vocab = random.Random(SEED), size.vocab
    return [
        {
            "prompt": words(draw, length(draw, *size.prompts), vocab),
            "chosen": [*words(draw, length(draw, *size.responses), vocab), END],
            "rejected": [*words(draw, length(draw, *size.responses), vocab), END],
        }
        for _ in range(TEXTS)
    ]


def tokenizer(vocab: int):
    """Return a tokenizer with one token per word, which encodes texts as their original ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(WORDS, vocab))]
    table = {name: number for number, name in enumerate(names)}
    made = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


def config(size: Size):
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        vocab_size=size.vocab,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=END,
    )


def causal_lm(size: Size, end_chance: float):
    """Return a model with random weights, in which END has the same probability everywhere."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(SEED)
    model = LlamaForCausalLM(config(size)).eval()
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        embedding[:, 0] = CONSTANT
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        probe = torch.randint(WORDS, size.vocab, (8, 32))
        constant = model.model(probe).last_hidden_state[..., 0].mean()
        wanted = math.log(end_chance / (1 - end_chance)) + math.log(size.vocab - 1)
        embedding[END, 0] += wanted / constant
    return model


def reward_model(size: Size):
    import torch
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(SEED + 1)
    found = config(size)
    found.num_labels = 1
    return LlamaForSequenceClassification(found)


def made(size: str) -> Path:
    """Return the folder of the material of this size; write it in a subprocess if missing."""
    folder = MATERIAL / size
    if not all((folder / part).exists() for part in PARTS):
        subprocess.run([sys.executable, __file__, size, str(folder)], check=True)
    return folder


def write(size: Size, folder: Path) -> None:
    import torch

    makers = {
        "model": partial(causal_lm, size, size.end_chance),
        "endless": partial(causal_lm, size, NEVER),
        "reward": partial(reward_model, size),
    }
    if torch.cuda.is_available():  # faster for half a billion random numbers
        torch.set_default_device("cuda")
    for name, make in makers.items():
        make().save_pretrained(folder / name)
        tokenizer(size.vocab).save_pretrained(folder / name)
    (folder / "data.json").write_text(json.dumps(data(size)))


if __name__ == "__main__":
    write(SIZES[sys.argv[1]], Path(sys.argv[2]))
