"""The parts of the table and their rows, in order."""

from tests.trials.configuration import ROWS_OF_WORDS
from tests.trials.data_rows import ROWS_OF_VALUES
from tests.trials.data_tables import ROWS_OF_TABLES
from tests.trials.data_text import ROWS_OF_TEXT
from tests.trials.row import Row

SECTIONS: dict[str, list[Row]] = {
    "D. Malformed and odd data": [*ROWS_OF_TEXT, *ROWS_OF_TABLES, *ROWS_OF_VALUES],
    "E. Configuration (`rlhf config WORD`)": ROWS_OF_WORDS,
}
