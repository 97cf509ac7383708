"""The rows run one after the other; what came of each."""

import time
from collections.abc import Iterable, Iterator

from tests.trials.place import Place, Shared
from tests.trials.row import Outcome, Row, judged


def outcome(row: Row, shared: Shared, number: int) -> Outcome:
    """Try a row in a folder of its own."""
    if reason := _untried(row, shared):
        return Outcome(row=row, comes="-", verdict=f"not tried: {reason}")
    place = Place(folder=shared.root / f"row{number}", shared=shared)
    place.folder.mkdir()
    assert row.play is not None
    start = time.perf_counter()
    try:
        came = row.play(place)
    except Exception as error:  # what a row needs did not come: that row alone is lost
        reason = f"fails: the trial ended in {type(error).__name__}: {error}"
        return Outcome(row=row, comes="-", verdict=reason[:400], faults=(reason,))
    return judged(row, came, time.perf_counter() - start)


def outcomes(rows: Iterable[Row], shared: Shared) -> Iterator[Outcome]:
    """Try the rows in order."""
    for row in rows:
        yield outcome(row, shared, len(list(shared.root.iterdir())))


def _untried(row: Row, shared: Shared) -> str:
    if row.play is None:
        return row.needs
    if row.needs == "real data" and shared.data is None:
        return "needs real data ($RLHF_TEST_DATA)"
    return ""
