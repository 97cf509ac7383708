"""Builds the base model that the package ships: `python -m rlhf_cli.tiny_world.base_model`.

Trains a byte-level BPE tokenizer and a small Llama on the tiny world's pretraining text and writes
what transformers loads. Not a stage of a run: its result is rlhf_cli/assets/tiny/.
"""

import argparse
import shutil
import time
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from rlhf_cli.core.schedules import learning_rate_factor
from rlhf_cli.telemetry.console import line
from rlhf_cli.tiny_world.clusters import CLUSTERS, draw
from rlhf_cli.tiny_world.pretraining import document

ASSETS = Path(__file__).parents[1] / "assets" / "tiny"
EOS, PAD = "<|eos|>", "<|pad|>"
CONTEXT = 128
OPEN_ROWS = 16
IGNORED = -100  # the label that transformers leaves out of its loss
PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %}{{ '\\n\\n' }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'user' %}{{ 'Human: ' + message['content'] }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE: any text round-trips; a text's first word is spelt as after a space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        chat_template=PLAIN_TEMPLATE,
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def pack(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Return rows of documents, each ended by EOS and each row started by one: (N, CONTEXT).

    A document goes into the first open row with room; the fullest of too many is closed.
    """
    closed, rows = [], []
    for ids in tokenizer(texts)["input_ids"]:
        ids = [*ids, tokenizer.eos_token_id]
        row = next((row for row in rows if len(row) + len(ids) <= CONTEXT), None)
        if row is None:
            row = []
            rows.append(row)
        row += ids
        if len(rows) > OPEN_ROWS:
            rows.sort(key=len)
            closed.append(rows.pop())
    pad = tokenizer.pad_token_id
    return torch.tensor([row + [pad] * (CONTEXT - len(row)) for row in closed + rows])


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return a model of about 0.9M parameters in float32, embeddings tied."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,
    )
    return LlamaForCausalLM(config)


def train(model: LlamaForCausalLM, rows: torch.Tensor, *, batch: int, peak: float, seed: int):
    """Train one pass over the rows (N, CONTEXT) in a seeded order; pads are not learned.

    Warm-up over 2 % of the steps, then cosine to 5 % of the peak.
    """
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    num_steps, pad = len(rows) // batch, model.config.pad_token_id
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.95), weight_decay=0.05, fused=True
    )
    started = time.monotonic()
    for step in range(num_steps):
        tokens = rows[order[step * batch : (step + 1) * batch]]
        labels = tokens.masked_fill(tokens == pad, IGNORED)
        loss = model(input_ids=tokens, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = peak * learning_rate_factor(
                step, num_steps=num_steps, kind="cosine", warmup_steps=num_steps // 50, final=0.05
            )
        optimizer.step()
        if step % 200 == 0 or step == num_steps - 1:
            spent = time.monotonic() - started
            line(f"step {step}/{num_steps} loss {loss.item():.3f} {spent:.0f} s")


@torch.no_grad()
def show_samples(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, num: int):
    """Print the model's responses to prompts of every kind, at temperature 1."""
    rng = Random(0)
    for _ in range(num):
        message = {"role": "user", "content": draw(CLUSTERS, rng).prompt}
        prompt = tokenizer.apply_chat_template(
            [message], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        tokens = model.generate(**prompt, max_new_tokens=24, do_sample=True, top_k=0)
        response = tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :])
        line(f"{message['content']!r} -> {response!r}")


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path):
    """Write beside the folder, then rename: a reader sees the old or the new model, complete."""
    fresh, stale = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    if folder.exists():
        folder.replace(stale)
    fresh.replace(folder)
    shutil.rmtree(stale, ignore_errors=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder to write")
    parser.add_argument("--documents", type=int, default=320_000, help="documents to learn from")
    parser.add_argument("--vocab", type=int, default=1280, help="tokens of the tokenizer")
    parser.add_argument("--batch", type=int, default=16, help=f"rows of {CONTEXT} tokens per step")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0, help="seed of text, weights and order")
    return parser.parse_args()


def main():
    args = parse()
    torch.manual_seed(args.seed)
    rng = Random(f"{args.seed}/base model")
    texts = [document(rng) for _ in range(args.documents)]
    tokenizer = train_tokenizer(texts[:20_000], args.vocab)
    rows = pack(tokenizer, texts)
    model = new_model(tokenizer)
    line(f"{model.num_parameters():,} parameters, {rows.numel():,} tokens")
    train(model, rows, batch=args.batch, peak=args.lr, seed=args.seed)
    model.eval()
    show_samples(model, tokenizer, num=20)
    save(model, tokenizer, args.out)
    line(f"written: {args.out}")


if __name__ == "__main__":
    main()
