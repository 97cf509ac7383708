"""The table of docs/models.md: the support of each causal type of transformers, found by trying.

`python -m tests.support.models_table` writes it; tests/behaviour/test_architectures.py checks each line.
"""

from pathlib import Path

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from rlhf_cli.config.errors import UserError
from rlhf_cli.models.capabilities import decoder_for, separates_packed_texts
from rlhf_cli.models.forward import reads_unpadded
from rlhf_cli.models.generation.decoding import FastDecoder, PlainDecoder, UncachedDecoder
from rlhf_cli.models.reward_head import transformers_has_class
from rlhf_cli.models.unpadding.attention import enable_unpadding
from tests.support.architectures import SKIPPED, TYPES, tiny_causal_lm

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
HEAD = """| model_type | language model | rows read | sft.batching=packed | reward model |
|---|---|---|---|---|
"""
SAMPLED = {
    FastDecoder: "works",
    PlainDecoder: "works; sampled with the cache of transformers",
    UncachedDecoder: "works slowly: no cache agrees with its forward pass",
}


def row(model_type: str) -> str:
    """Return the line of one type."""
    if model_type in SKIPPED:
        return f"| {model_type} | not tried: {SKIPPED[model_type]} | | | |\n"
    model = tiny_causal_lm(model_type)
    try:
        sampled = SAMPLED[decoder_for(model)]
    except UserError as refusal:
        return f"| {model_type} | refused: {_reason(refusal)} | | | |\n"
    packed = "works" if separates_packed_texts(model) else "refused"
    read = "without padding" if reads_unpadded(enable_unpadding(model)) else "padded"
    return f"| {model_type} | {sampled} | {read} | {packed} | {_reward(model.config)} |\n"


def _reason(refusal: UserError) -> str:
    """Return the text between the first colon and the remedy."""
    return str(refusal).split(": ", 1)[1].rsplit("; ", 1)[0].replace("|", "/")


def _reward(config) -> str:
    try:
        return "class of transformers" if transformers_has_class(config) else "generic class"
    except UserError:
        return "refused"


def table() -> str:
    """Return the counts and a line for every type."""
    rows = [row(model_type) for model_type in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)]
    slowly, refused = (
        sum(f"| {word}" in line for line in rows) for word in ("works slowly", "refused:")
    )
    counts = (
        f"transformers {transformers.__version__}: of {len(rows)} types {len(TYPES)} were tried, "
        f"{len(TYPES) - slowly - refused} work, {slowly} work slowly, {refused} are refused.\n\n"
    )
    return counts + HEAD + "".join(rows)


def written() -> str:
    """Return the table of the page."""
    return PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(before + BEGIN + table() + END + after, encoding="utf-8")
