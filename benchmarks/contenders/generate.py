"""Sampling by transformers: `generate` with a dynamic or static cache, and continuous batching."""

from gate import Gate

gate = Gate()

import torch  # noqa: E402
from material import END, PAD  # noqa: E402
from transformers import AutoModelForCausalLM, GenerationConfig  # noqa: E402

torch.manual_seed(0)
CACHE = gate.job["options"]["cache"]
DEVICE = gate.job["device"]
DTYPE = getattr(torch, gate.job["options"].get("dtype", "float32"))


def settings() -> GenerationConfig:
    cache = {"cache_implementation": CACHE} if CACHE in ("dynamic", "static") else {}
    return GenerationConfig(
        max_new_tokens=gate.job["new_tokens"],
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        eos_token_id=END,
        pad_token_id=PAD,
        **cache,
    )


def padded(prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (tokens, mask), padded on the left."""
    width = max(map(len, prompts))
    tokens = torch.tensor([[PAD] * (width - len(ids)) + ids for ids in prompts])
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    return tokens, mask


def batched(model, prompts: list[list[int]]) -> int:
    tokens, mask = (x.to(DEVICE) for x in padded(prompts))
    found = model.generate(input_ids=tokens, attention_mask=mask, generation_config=settings())
    return int((found[:, tokens.shape[1] :] != PAD).sum())


def continuous(model, prompts: list[list[int]]) -> int:
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    sized = ContinuousBatchingConfig(page_size=32, num_blocks=256, max_batch_tokens=1024)
    found = model.generate_batch(
        prompts,
        generation_config=settings(),
        continuous_batching_config=sized,
        persistent_manager=True,
    )
    assert len(found) == len(prompts)
    return sum(len(one.generated_tokens) for one in found.values())


def main() -> None:
    implementation = "paged|sdpa" if CACHE == "continuous" else "sdpa"
    model = (
        AutoModelForCausalLM.from_pretrained(
            gate.job["model"], dtype=DTYPE, attn_implementation=implementation
        )
        .to(DEVICE)
        .eval()
    )
    prompts = [row["prompt"] for row in gate.rows()]
    sample_once = continuous if CACHE == "continuous" else batched
    while True:
        gate.wait()
        with torch.no_grad():
            tokens = sample_once(model, prompts)
        gate.done(tokens)


main()
