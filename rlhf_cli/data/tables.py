"""Rows of csv and tsv files. A quote that is not closed is never guessed at: the file is refused."""

import csv
from collections.abc import Iterator
from itertools import chain, islice
from typing import IO

from rlhf_cli.config.schema import Source
from rlhf_cli.data.records import DataError, Origin, Row, RowError
from rlhf_cli.data.text_files import LIMIT, decoded, lines

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
SAMPLE = 200  # lines that the delimiter is found by
MOST = 0.8  # share of them that it must cut alike


def by_number(source: Source) -> bool:
    """Return whether columns are mapped by number: such a table has no header."""
    return bool(source.columns) and all(str(c).isdigit() for c in source.columns.values())


def table_rows(file: IO[str], suffix: str, name: str, source: Source) -> Iterator[Row]:
    """Yield the rows of a csv (RFC 4180); in a tsv a quote is a character like any other."""
    csv.field_size_limit(LIMIT)
    texts = _texts(file, name)
    sample = list(islice(texts, SAMPLE))
    delimiter = source.delimiter or _delimiter(sample, suffix, name, headless=by_number(source))
    quoted = not (suffix == ".tsv" and delimiter == "\t")
    records = _records(chain(sample, texts), name, delimiter, quoted=quoted)
    header = None if by_number(source) else _header(records, name)
    width, row = len(header or []), 0
    for line, fields in records:
        width, row = width or len(fields), row + 1
        yield Origin(name, row, line), _row(fields, header, width, quoted=quoted)


def _texts(file: IO[str], name: str) -> Iterator[str]:
    for number, text in lines(file, name):
        if isinstance(text, RowError):
            raise DataError(f"{name}:{number}: {text}; is a quote not closed?")
        yield text


def _records(
    texts: Iterator[str], name: str, delimiter: str, *, quoted: bool
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, fields) of every record that is not blank."""
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(texts, delimiter=delimiter, quoting=quoting, strict=True)
    line = 1
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(_quote_trouble(name, line, reader.line_num, error)) from error


def _quote_trouble(name: str, line: int, end: int, error: csv.Error) -> str:
    what = {
        "unexpected end of data": "a quote that opens in this row is never closed",
        "field larger than field limit": f"a cell above {LIMIT >> 20} MB; is a quote not closed?",
    }
    found = next((what[start] for start in what if str(error).startswith(start)), None)
    found = found or f"text follows a closing quote (line {end}: {error})"
    return f"{name}:{line}: {found}; write a quote inside a quoted cell twice, and close the cell"


def _header(records: Iterator[tuple[int, list[str]]], name: str) -> list[str]:
    line, header = next(records, (1, []))
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        raise DataError(f"{name}:{line}: more than one column is named {', '.join(twice)}")
    return header


def _row(
    fields: list[str], header: list[str] | None, width: int, *, quoted: bool
) -> dict | RowError:
    if len(fields) != width:
        return RowError(
            "wrong number of fields",
            f"found {len(fields)}, the {'header' if header else 'first row'} has {width}; "
            "a file without a header needs columns by number, such as columns: {prompt: 0}",
        )
    text = decoded("".join(fields))
    if isinstance(text, RowError):
        return text
    if header == [fields[0].lstrip("\ufeff"), *fields[1:]]:
        return RowError("the header again", "two files were joined here")
    if not quoted and any(map(_is_quoted, fields)):
        return RowError("a quoted cell in a .tsv", "name the file .csv to have quotes read")
    return dict(zip(header or map(str, range(width)), fields, strict=True))


def _is_quoted(cell: str) -> bool:
    """Return whether another program quoted this cell: quotes inside doubled, or a line end."""
    inside = cell[1:].removesuffix('"')
    doubled = '""' in inside and '"' not in inside.replace('""', "")
    return cell.startswith('"') and (doubled or cell.count('"') == 1)


def _delimiter(sample: list[str], suffix: str, name: str, *, headless: bool) -> str:
    """Return the one that cuts nearly every row of the sample into as many fields as the first."""
    usual = "\t" if suffix == ".tsv" else ","
    if usual == "\t" and any("\t" in text for text in sample):
        return usual  # few texts have tabs in them; many have commas
    fitting = [d for d in DELIMITERS if _fits(sample, d, quoted=(suffix, d) != (".tsv", "\t"))]
    if not fitting or (usual in fitting and (len(fitting) == 1 or not headless)):
        return usual
    if len(fitting) > 1:
        names = " or ".join(DELIMITERS[d] for d in fitting)
        raise DataError(
            f"{name}: its columns are separated by {names}; set delimiter of the source"
        )
    return fitting[0]


def _fits(sample: list[str], delimiter: str, *, quoted: bool) -> bool:
    widths = _widths(sample, delimiter, quoted=quoted)
    return widths[:1] > [1] and widths.count(widths[0]) >= MOST * len(widths)


def _widths(sample: list[str], delimiter: str, *, quoted: bool) -> list[int]:
    """Return the fields of each record of the sample, up to the first that is incomplete."""
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(sample, delimiter=delimiter, quoting=quoting, strict=True)
    widths = []
    try:
        for fields in reader:
            widths += [len(fields)] if fields else []
    except csv.Error:
        pass
    return widths
