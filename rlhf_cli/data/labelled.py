"""Responses judged one by one (KTO) -> comparisons, where a prompt has good ones and bad ones."""

from collections.abc import Iterable, Iterator

from rlhf_cli.data.records import BadRow, Comparison, Labelled, Message, Record

ALONE = "labelled responses without one of the other label for the same prompt"


def paired(records: Iterable[Record | Labelled | BadRow]) -> Iterator[Record | BadRow]:
    """Every other record as it comes; then one comparison for each prompt that has both labels."""
    judged: dict[tuple[Message, ...], list[Labelled]] = {}
    for record in records:
        if isinstance(record, Labelled):
            judged.setdefault(record.prompt, []).append(record)
        else:
            yield record
    for rows in judged.values():
        if len({row.good for row in rows}) == 2:
            yield _comparison(rows)
        else:
            yield from (BadRow(row.origin, ALONE, left_out=True) for row in rows)


def _comparison(rows: list[Labelled]) -> Comparison:
    """Every good response beats every bad one; two of one label were not compared."""
    good = [i for i, row in enumerate(rows) if row.good]
    bad = [i for i, row in enumerate(rows) if not row.good]
    better = tuple((i, j) for i in good for j in bad)
    responses = tuple(row.response for row in rows)
    return Comparison(rows[0].prompt, responses, better, (), rows[0].origin)
