"""Section `data`: sources, template, lengths, held-out shares."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from rlhf_cli.config.schema.constraints import positive, require, within


class LongText(Enum):
    drop = "drop"
    truncate = "truncate"


@dataclass(slots=True, kw_only=True)
class Source:
    """One data source: `path` is a file, the folder of a stage that makes data, a folder saved by
    `datasets`, a hub id, or tiny_world:<role>.

    columns renames this project's field names to the data's own: {prompt: question}; numbers, as in
    {prompt: 0}, mean that a csv or tsv file has no header. data_dir: folder inside a hub data set.
    weight is the share among the sources of a list; all weights null means "take all rows".
    unescape: backslash escapes in the texts become the characters they name.
    delimiter: one character between the cells of a csv or tsv, or "tab"; null: detected.

    It alone has defaults: its instances are elements of lists, which YAML cannot complete.
    """

    path: str
    format: str = "auto"
    config: str | None = None
    data_dir: str | None = None
    split: str | None = None
    revision: str | None = None
    weight: float | None = None
    limit: int | None = None
    eval: bool = False
    unescape: bool = False
    delimiter: str | None = None
    columns: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if self.delimiter in ("tab", "\\t"):
            self.delimiter = "\t"
        one = self.delimiter is None or (
            len(self.delimiter) == 1 and self.delimiter not in '"\r\n '
        )
        require(self, "delimiter", one, f"must be one character, or tab (source {self.path})")
        positive(self, "weight", "limit", unit=f"source {self.path}")


@dataclass(slots=True, kw_only=True)
class Data:
    demonstrations: list[Source]
    comparisons: list[Source]
    prompts: list[Source]
    pretraining: list[Source]
    tasks: list[str]
    template: str
    system: str | None
    date: str | None
    max_prompt_tokens: int
    max_response_tokens: int
    long_prompts: LongText
    long_responses: LongText
    eval_fraction: float
    select_fraction: float
    max_bad_fraction: float
    strict: bool

    def __post_init__(self):
        is_day = self.date is None or _is_day(self.date)
        require(self, "date", is_day, "must be a day such as 2026-01-31, or null")
        positive(self, "max_prompt_tokens", "max_response_tokens")
        within(self, "(0, 1)", "eval_fraction", "select_fraction")
        text = f"and .eval_fraction={self.eval_fraction} leave nothing to train on: less than 1 together"
        require(self, "select_fraction", self.eval_fraction + self.select_fraction < 1, text)
        within(self, "[0, 1]", "max_bad_fraction")


def _is_day(text: str) -> bool:
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d}" == text
    except ValueError:
        return False
