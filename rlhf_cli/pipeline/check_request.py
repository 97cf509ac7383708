"""The words of `rlhf data check`: files, options of its own, and what is passed on to the configuration.

The role that a file is for follows from its columns: comparisons, demonstrations or prompts.
"""

import re
from dataclasses import dataclass
from itertools import islice

from rlhf_cli.config.completion import OF_CHECK
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.overrides import VALUED, YAML
from rlhf_cli.config.schema import Source, Ties
from rlhf_cli.data.formats.fields import Fields, found
from rlhf_cli.data.formats.table import FORMS, PARSER, Form, convert
from rlhf_cli.data.records import BadRow, DataError, Origin, RowError
from rlhf_cli.data.sources import rows
from rlhf_cli.data.validate import validate

ALL, JSON = OF_CHECK
SAMPLE = 100  # rows at the beginning that are read
# In this order a role is chosen: rows of an earlier one would serve for a later one too.
ROLES = ("comparisons", "demonstrations", "prompts")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRequest:
    """words: for the configuration . roles: of the files named alone, {path: (role, why)} .
    every_row: all examples are listed, not the first few . as_json: for programs . any_stage: no
    stage was asked for, so those count that the data is enough for.
    """

    words: list[str]
    roles: dict[str, tuple[str, str]]
    every_row: bool
    as_json: bool
    any_stage: bool


def read_words(words: list[str]) -> CheckRequest:
    """Separate files from key=value; a file stands under the role that its columns show."""
    own = [word for word in words if word not in (ALL, JSON)]
    files = [
        word
        for word, before in zip(own, ["", *own], strict=False)
        if "=" not in word
        and not word.startswith(("-", "~"))
        and not word.endswith(YAML)
        and before not in VALUED
    ]
    roles = {path: role_of(path) for path in dict.fromkeys(files)}
    rest = [word for word in own if word not in files]
    keys = {word.partition("=")[0].lstrip("+") for word in rest}
    return CheckRequest(
        words=[*_added(roles, keys), *rest],
        roles=roles,
        every_row=ALL in words,
        as_json=JSON in words,
        any_stage=bool(files) and "stage" not in keys,
    )


def _added(roles: dict[str, tuple[str, str]], keys: set[str]) -> list[str]:
    """Return the words that name the files as sources, and no other data beside them."""
    sources: dict[str, list[str]] = {}
    for path, (role, _) in roles.items():
        sources.setdefault(role, []).append(f"{{path: {_quoted(path)}}}")
    for role in sources:
        if f"data.{role}" in keys:
            raise UserError(
                f"data.{role}=... and a file of {role} are both given: name the file in data.{role}"
            )
    words = [f"data.{role}=[{', '.join(listed)}]" for role, listed in sources.items()]
    return ["data=generic", *words] if words and "data" not in keys else words


def _quoted(path: str) -> str:
    if re.fullmatch(r"[A-Za-z_./][\w./-]*", path):
        return path
    return "'" + path.replace("\\", "\\\\").replace("'", "\\'") + "'"


def role_of(path: str) -> tuple[str, str]:
    """Return (the role of a file, the columns that show it); DataError where none has a use for it.

    The first role that half of the first rows can serve for; any row is enough where none does so.
    """
    source = Source(path=path)
    sample = [(o, r) for o, r in islice(rows(source), SAMPLE) if not isinstance(r, RowError)]
    if not sample:
        raise DataError(
            f"{path}: no row could be read, so its role cannot be found from its columns"
        )
    usable = {role: sum(_serves(row, o, source, role) for o, row in sample) for role in ROLES}
    for least in (len(sample) / 2, 1):
        for role, num in usable.items():
            if num >= least:
                return role, _why(sample[0][1], role)
    columns = found(Fields(sample[0][1], frozenset()))
    raise DataError(
        f"{path}: its columns fit no role (found {columns}); name role and columns: "
        f"'data.demonstrations=[{{path: {path}, columns: {{prompt: .., response: ..}}}}]'"
    )


def _serves(row: dict, origin: Origin, source: Source, role: str) -> bool:
    """Return whether a row has the columns and, of a conversation, an answer."""
    if _form(row, role) is None:
        return False
    if role == "comparisons":
        return True
    try:
        records, _ = convert(row, origin, source, role)
        for record in records:
            if isinstance(record, BadRow):
                return False
            validate(record, ties=Ties.soft)
    except RowError as error:
        return error.reason != "no assistant turn"
    return True


def _form(row: dict, role: str) -> Form | None:
    fields = Fields(row, frozenset())
    fitting = (form for form in FORMS if form.fits(fields))
    return next((form for form in fitting if getattr(form, PARSER[role]) is not None), None)


def _why(row: dict, role: str) -> str:
    form = _form(row, role)
    if form is None:
        return "most rows"
    keys = [next(key for key in group if key in row) for group in form.keys]
    return f"columns {', '.join(keys)}: form {form.name}"
