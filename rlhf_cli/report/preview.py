"""What a dry run shows of a stage."""

from dataclasses import dataclass, field

from rich.text import Text


@dataclass(slots=True, kw_only=True)
class Preview:
    """facts: label -> value, e.g. {"optimizer steps": "86"}. example: a rendered one, supervised
    tokens coloured. notes: cautions before starting."""

    facts: dict[str, str]
    example: Text | None = None
    notes: list[str] = field(default_factory=list)
