"""Messages on columns: names that no field has, and fields that columns could be."""

from collections.abc import Iterable

from rlhf_cli.config.keys import nearest
from rlhf_cli.config.schema import Source
from rlhf_cli.data.formats.fields import FIELDS, SYSTEMS, found
from rlhf_cli.data.records import DataError

Keys = tuple[tuple[str, ...], ...]
USUAL = {
    "demonstrations": "{prompt: .., response: ..}",
    "comparisons": "{prompt: .., chosen: .., rejected: ..}",
    "prompts": "{prompt: ..}",
    "pretraining": "{text: ..}",
}


def check_columns(source: Source, forms: Iterable[Keys]) -> None:
    """Refuse names in `columns` that no form has, and numbers mixed with names."""
    known = {*FIELDS, *SYSTEMS, "tools"} | {
        name for keys in forms for group in keys for name in group
    }
    for name in source.columns:
        if name not in known:
            meant = nearest(name, known)
            tail = f"did you mean {meant}?" if meant else f"the fields: {', '.join(FIELDS)}"
            raise DataError(f"columns of source {source.path}: there is no field {name}; {tail}")
    numbers = [str(column).isdigit() for column in source.columns.values()]
    if any(numbers) and not all(numbers):
        raise DataError(
            f"columns of source {source.path} mixes numbers, for a file without a header, and names"
        )


def no_form(row: dict, role: str, forms: list[Keys]) -> str:
    """Return the message on a row whose columns fit no form: what was found, what was meant."""
    meant = meant_columns(row, forms)
    if meant:
        columns = ", ".join(f"{name}: {column}" for name, column in meant.items())
        return f"found {found(row)}; did you mean columns: {{{columns}}}?"
    return f"found {found(row)}, no form of {role}; name yours, as columns: {USUAL[role]}"


def meant_columns(row: dict, forms: list[Keys]) -> dict[str, str]:
    """Return {field: column} with which the row would fit a form, of nearly matching names."""
    for keys in forms:
        meant = {}
        for group in keys:
            if not any(name in row for name in group):
                name, column = _near(row, group)
                meant[name] = column
        if meant and all(meant.values()):
            return meant
    return {}


def _near(row: dict, group: tuple[str, ...]) -> tuple[str, str | None]:
    """Return (a name of the group, the column that resembles it)."""
    plain = {str(column).strip().lower(): str(column) for column in row}
    for name in group:
        column = nearest(name.lower(), plain, cutoff=0.8)
        if column is not None:
            return name, plain[column]
    return group[0], None
