"""The cheap rows of the trials in the fast tests, all in the slow ones; how results compare."""

import pytest

from tests.trials.place import Shared, real_data
from tests.trials.row import Came, Outcome, Row, judged
from tests.trials.running import outcome
from tests.trials.sections import SECTIONS
from tests.trials.table import page

ROWS = [row for rows in SECTIONS.values() for row in rows]
CHEAP = (
    "utf16.jsonl", "nul.jsonl", "surr.jsonl", "u2028.json`", "trunc.jsonl.gz", "blank.jsonl",
    "deep.jsonl", "bigint.jsonl", "(`dup.jsonl`)", "twoarr.json", "one.json", "unclosed.csv",
    "duphdr.csv", "flip.parquet", "nanscore.jsonl", "kto.jsonl", "inst.jsonl", "asstfirst.jsonl",
    "sft.optim.lr=nan", "stage=[]", "name=../x", "`rlhf rum`",
)  # fmt: skip


def cheap(row: Row) -> bool:
    return row.quick and row.needs == "" and any(word in row.tried for word in CHEAP)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Shared:
    return Shared(root=tmp_path_factory.mktemp("trials"), data=real_data())


def holds(row: Row, shared: Shared) -> None:
    found = outcome(row, shared, ROWS.index(row))
    if found.verdict.startswith("not tried"):
        pytest.skip(found.verdict)
    assert not found.faults, f"{found.verdict}\ncame: {found.comes}"


@pytest.mark.parametrize("row", [row for row in ROWS if cheap(row)], ids=lambda r: r.tried)
def test_a_cheap_row_holds(row, shared):
    holds(row, shared)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.tried)
def test_every_row_holds(row, shared):
    holds(row, shared)


def test_every_word_of_the_cheap_rows_names_a_row():
    assert [word for word in CHEAP if not any(word in row.tried for row in ROWS)] == []


ROW = Row(tried="x", play=None, has=(r"line \d+",), code=(2,), kept=("taken",), defended="because")
REFUSED = "rlhf: a.jsonl: bad at line 7\n"


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (Came(code=2, text=REFUSED, errors=REFUSED), "good"),
        (Came(code=2, text=REFUSED * 2, errors=REFUSED * 2), "fails: 2 lines on stderr"),
        (Came(code=0, text="it was taken"), "defended: because"),
        (Came(code=0, text="neither"), "fails: exit code 0 instead of 2; /line"),
        (Came(code=2, text=REFUSED + "KeyError: 1", errors=REFUSED), "fails: 'KeyError' must not"),
        (Came(code=0, text="taken\nTraceback (most recent call last)"), "fails: 'Traceback (most"),
    ],
)
def test_a_result_is_compared_with_the_expected_output(result, verdict):
    assert judged(ROW, result, 0.0).verdict.startswith(verdict)


def test_the_table_shows_the_matching_line_and_joins_equal_rows():
    result = Came(code=2, text=f"a | b\n{REFUSED}", errors=REFUSED)
    found = judged(ROW, result, 0.0)
    assert found.comes == "refused: a.jsonl: bad at line 7"
    other = Outcome(row=Row(tried="y | z", play=None), comes=found.comes, verdict="good")
    assert "| x; y \\| z | refused: a.jsonl: bad at line 7 | good |" in page({"T": [found, other]})
