"""The role that a file is for, by its columns: comparisons, demonstrations or prompts."""

from itertools import islice

from rlhf_cli.config.schema import Source, Ties
from rlhf_cli.data.formats.fields import Fields, found
from rlhf_cli.data.formats.table import FORMS, PARSER, Form, convert
from rlhf_cli.data.records import BadRow, DataError, Origin, RowError
from rlhf_cli.data.sources import rows
from rlhf_cli.data.validate import validate

SAMPLE = 100  # rows at the beginning that are looked at
ROLES = ("comparisons", "demonstrations", "prompts")  # what serves for an earlier one serves for it


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
