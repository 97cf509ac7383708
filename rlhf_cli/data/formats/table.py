"""The table of forms: which keys show a form, and what it gives for each role."""

from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from rlhf_cli.config.keys import nearest
from rlhf_cli.config.schema import Source
from rlhf_cli.data.formats import comparisons, demonstrations, prompts
from rlhf_cli.data.formats.fields import (
    PROMPTS,
    RESPONSES,
    TEXTS,
    Fields,
    check_columns,
    found,
    groups_of,
    no_form,
    rename,
)
from rlhf_cli.data.records import BadRow, Comparison, DataError, Origin, Record, RowError

Parse = Callable[[Fields, Origin], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form is recognised when a row has one key of each group of `keys`."""

    name: str
    keys: tuple[tuple[str, ...], ...]
    demonstration: Parse | None = None
    comparison: Parse | None = None
    prompt: Parse | None = None

    def fits(self, row: Container[str]) -> bool:
        return all(any(key in row for key in group) for group in self.keys)


def _keys(*names: str) -> tuple[tuple[str, ...], ...]:
    return tuple((name,) for name in names)


# The first form that fits wins, so the particular stand before the general.
FORMS = (
    Form(
        name="oasst",
        keys=_keys("message_tree_id", "prompt"),
        comparison=comparisons.tree,
        prompt=prompts.root,
    ),
    Form(
        name="qa_feedback",
        keys=_keys("question", "prediction 1", "prediction 2", "preference"),
        comparison=comparisons.qa_feedback,
        prompt=prompts.alone,
    ),
    Form(
        name="summarize",
        keys=_keys("info", "summaries", "choice"),
        comparison=comparisons.summarize,
        prompt=prompts.from_comparison(comparisons.summarize),
    ),
    Form(
        name="webgpt",
        keys=_keys("question", "answer_0", "answer_1", "score_0", "score_1"),
        comparison=comparisons.webgpt,
        prompt=prompts.from_comparison(comparisons.webgpt),
    ),
    Form(
        name="shp",
        keys=_keys("history", "human_ref_A", "human_ref_B", "labels"),
        comparison=comparisons.shp,
        prompt=prompts.from_comparison(comparisons.shp),
    ),
    Form(
        name="nectar",
        keys=_keys("prompt", "answers"),
        comparison=comparisons.nectar,
        prompt=prompts.from_comparison(comparisons.nectar),
    ),
    Form(
        name="kwise",
        keys=(("responses",), ("rank", "pairs", "scores")),
        comparison=comparisons.of_many,
        prompt=prompts.alone,
    ),
    Form(
        name="ultrafeedback",
        keys=_keys("instruction", "completions"),
        comparison=comparisons.ultrafeedback,
        prompt=prompts.alone,
    ),
    Form(
        name="pair",
        keys=_keys("chosen", "rejected"),
        demonstration=demonstrations.from_pair,
        comparison=comparisons.of_two,
        prompt=prompts.from_comparison(comparisons.of_two),
    ),
    Form(
        name="labelled",
        keys=_keys("messages", "label"),
        demonstration=demonstrations.labelled,
        comparison=comparisons.labelled,
        prompt=prompts.messages,
    ),
    Form(
        name="kto",
        keys=(PROMPTS, RESPONSES, ("label",)),
        demonstration=demonstrations.labelled,
        comparison=comparisons.labelled,
        prompt=prompts.alone,
    ),
    Form(
        name="messages",
        keys=_keys("messages"),
        demonstration=demonstrations.messages,
        prompt=prompts.messages,
    ),
    Form(
        name="sharegpt",
        keys=_keys("conversations"),
        demonstration=demonstrations.sharegpt,
        prompt=prompts.sharegpt,
    ),
    Form(name="turns", keys=_keys("turns"), prompt=prompts.turns),
    Form(
        name="self_instruct",
        keys=_keys("instruction", "instances"),
        demonstration=demonstrations.self_instruct,
        prompt=prompts.self_instruct,
    ),
    Form(
        name="alpaca",
        keys=(("instruction",), ("output", "response")),
        demonstration=demonstrations.prompt_response,
        prompt=prompts.alone,
    ),
    Form(
        name="prompt_response",
        keys=(PROMPTS, RESPONSES),
        demonstration=demonstrations.prompt_response,
        prompt=prompts.alone,
    ),
    Form(name="prompt", keys=(PROMPTS,), prompt=prompts.alone),
    Form(name="text", keys=(TEXTS,), demonstration=demonstrations.text, prompt=prompts.text),
)
BY_NAME = {form.name: form for form in FORMS}
ALIASES = {"hh": "pair", "prompt_completion": "prompt_response"}
PARSER = {
    "demonstrations": "demonstration",
    "pretraining": "demonstration",
    "comparisons": "comparison",
    "prompts": "prompt",
}


def format_names() -> list[str]:
    """Return every name `format` may have."""
    return ["auto", *BY_NAME, *ALIASES]


def check_format(source: Source, role: str) -> None:
    """Refuse a format that is unknown, or that does not serve this role."""
    name = ALIASES.get(source.format, source.format)
    check_columns(source, [form.keys for form in FORMS])
    if name == "auto":
        return
    if name not in BY_NAME:
        meant = nearest(source.format, format_names())
        tail = f"did you mean {meant}?" if meant else f"the formats: {', '.join(format_names())}"
        raise DataError(f"format={source.format} of source {source.path} is unknown; {tail}")
    if getattr(BY_NAME[name], PARSER[role]) is None:
        fitting = [f.name for f in FORMS if getattr(f, PARSER[role]) is not None]
        raise DataError(
            f"format={source.format} of source {source.path} holds no {role}; "
            f"for {role}: auto, {', '.join(fitting)}"
        )


def convert(
    row: dict, origin: Origin, source: Source, role: str
) -> tuple[list[Record | BadRow], Fields]:
    """Return (the records of a row or its bad parts, the row with its notes and what was read).

    A row that is bad as a whole is a RowError.
    """
    fields = rename(row, source)
    parse = _parser(fields, origin, source, role)
    try:
        result = parse(fields, origin)
    except RecursionError as error:
        raise RowError("nested too deeply") from error
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise RowError("a row of unexpected shape", f"{type(error).__name__}: {error}") from error
    records = result if isinstance(result, list) else [result]
    if role == "comparisons" and (groups := groups_of(fields)):
        records = [replace(r, meta=groups) if isinstance(r, Comparison) else r for r in records]
    return records, fields


def _parser(row: Fields, origin: Origin, source: Source, role: str) -> Parse:
    name = ALIASES.get(source.format, source.format)
    parse = _fitting(tuple(row), name, role)
    if parse is None:
        raise RowError("missing column", _unknown(row, origin, name, role))
    return parse


@lru_cache
def _fitting(keys: tuple[str, ...], name: str, role: str) -> Parse | None:
    """Return the parser of rows with these keys: that of the first form that they fit."""
    forms = FORMS if name == "auto" else (BY_NAME[name],)
    parsers = ((form, getattr(form, PARSER[role])) for form in forms)
    return next((parse for form, parse in parsers if parse is not None and form.fits(keys)), None)


def _unknown(row: Fields, origin: Origin, name: str, role: str) -> str:
    if name == "auto":
        keys = [form.keys for form in FORMS if getattr(form, PARSER[role]) is not None]
        message = no_form(row, role, keys)
        headless = origin.source.removesuffix(".gz").endswith((".csv", ".tsv"))
        tail = "; without a header, by number: columns: {prompt: 0, ..}"
        return message + tail if headless and not message.endswith("?") else message
    groups = ", ".join("|".join(group) for group in BY_NAME[name].keys)
    return f"format {name} needs {groups}; found {found(row)}"
