"""What the tests of readers look at: the rows of a source, and the lines on which they stand."""

from rlhf_cli.config.schema import Source
from rlhf_cli.data.sources import rows

ROWS = [{"prompt": "a\nb", "response": 'say "c", d'}, {"prompt": "é 你", "response": "\tx"}]


def read(path, **source):
    """(origin, row or error) of every row."""
    return list(rows(Source(path=str(path), **source)))


def values(path, **source):
    return [row for _, row in read(path, **source)]


def lines(path, **source):
    return [origin.line for origin, _ in read(path, **source)]
