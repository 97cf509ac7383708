"""A straightforward training loop: padded batches, all logits, autocast, one fused AdamW."""

from gate import Gate

gate = Gate()

import torch  # noqa: E402
from material import PAD  # noqa: E402
from torch.nn.functional import cross_entropy, logsigmoid  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

DEVICE = gate.job["device"]


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (tokens, mask), padded on the right."""
    width = max(map(len, rows))
    tokens = torch.tensor([ids + [PAD] * (width - len(ids)) for ids in rows])
    lengths = torch.tensor([len(ids) for ids in rows])
    return tokens.to(DEVICE), (torch.arange(width) < lengths[:, None]).long().to(DEVICE)


def sft_loss(model, rows: list[dict]) -> torch.Tensor:
    tokens, mask = padded([row["prompt"] + row["chosen"] for row in rows])
    prompts = torch.tensor([len(row["prompt"]) for row in rows], device=DEVICE)
    column = torch.arange(tokens.shape[1], device=DEVICE)
    labels = tokens.masked_fill((mask == 0) | (column < prompts[:, None]), -100)
    logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())


def rm_loss(model, rows: list[dict]) -> torch.Tensor:
    texts = [row["prompt"] + row[side] for side in ("chosen", "rejected") for row in rows]
    tokens, mask = padded(texts)
    scores = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits.squeeze(-1)
    better, worse = scores.float().chunk(2)
    return -logsigmoid(better - worse).mean()


def main() -> None:
    job, rows = gate.job, gate.rows()
    is_sft = job["task"] == "sft"
    kind = AutoModelForCausalLM if is_sft else AutoModelForSequenceClassification
    model = kind.from_pretrained(job["model" if is_sft else "reward"], dtype=torch.float32)
    model = model.to(DEVICE).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-8, fused=True)
    loss_of = sft_loss if is_sft else rm_loss
    sides = ("chosen",) if is_sft else ("chosen", "rejected")
    tokens = sum(len(row["prompt"]) + len(row[side]) for row in rows for side in sides)
    while True:
        gate.wait()
        for start in range(0, len(rows), job["batch"]):
            with torch.autocast(DEVICE, dtype=torch.bfloat16):
                loss = loss_of(model, rows[start : start + job["batch"]])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        gate.done(tokens)


main()
