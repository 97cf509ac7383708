"""A rendered example as a person reads it: what is supervised stands out."""

from rlhf_cli.config.printable import printable
from rlhf_cli.data.renderer import Renderer

SUPERVISED = "bold green"
CONTEXT = "dim"


def runs(renderer: Renderer, ids: list[int], loss_mask: list[bool]) -> list[tuple[str, bool]]:
    """Yield (text, supervised) of each stretch of tokens with the same mask.

    Special tokens are shown, control characters as their escapes.
    """
    stretches: list[tuple[list[int], bool]] = []
    for token, supervised in zip(ids, loss_mask, strict=True):
        if not stretches or stretches[-1][1] != supervised:
            stretches.append(([], supervised))
        stretches[-1][0].append(token)
    return [(_decode(renderer, part), supervised) for part, supervised in stretches]


def _decode(renderer: Renderer, ids: list[int]) -> str:
    text = renderer.tokenizer.decode(
        ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return printable(text)


def rendered(renderer: Renderer, ids: list[int], loss_mask: list[bool]):
    """Return the example as rich Text: supervised tokens bold green, all others dim."""
    from rich.text import Text

    text = Text()
    for part, supervised in runs(renderer, ids, loss_mask):
        text.append(part, SUPERVISED if supervised else CONTEXT)
    return text


def plain(renderer: Renderer, ids: list[int], loss_mask: list[bool]) -> str:
    """Return the example without colour: supervised stretches stand between [[ and ]]."""
    return "".join(
        f"[[{part}]]" if supervised else part for part, supervised in runs(renderer, ids, loss_mask)
    )
