"""The parts of the table and their rows, in order."""

from tests.trials.breakage import ROWS_OF_BREAKAGE
from tests.trials.configuration import ROWS_OF_WORDS
from tests.trials.data_rows import ROWS_OF_VALUES
from tests.trials.data_tables import ROWS_OF_TABLES
from tests.trials.data_text import ROWS_OF_TEXT
from tests.trials.engineer import ROWS_OF_ENGINEER
from tests.trials.evaluation import ROWS_OF_EVALUATION
from tests.trials.researcher import ROWS_OF_RESEARCHER
from tests.trials.row import Row
from tests.trials.student import ROWS_OF_STUDENT
from tests.trials.tasks import ROWS_OF_TASKS

SECTIONS: dict[str, list[Row]] = {
    "A. Student: help, screens, first hour": ROWS_OF_STUDENT,
    "B. Researcher: own data and models": ROWS_OF_RESEARCHER,
    "C. Engineer: own parts, plans, interruptions": [*ROWS_OF_ENGINEER, *ROWS_OF_BREAKAGE],
    "D. Malformed and odd data (`rlhf data check data=generic data.ROLE=[{path: ...}]`)": [
        *ROWS_OF_TEXT,
        *ROWS_OF_TABLES,
        *ROWS_OF_VALUES,
    ],
    "E. Configuration (`rlhf config WORD`)": ROWS_OF_WORDS,
    "F. Task files (`rlhf data check 'tasks.files=[tasks]'`)": ROWS_OF_TASKS,
    "G. Evaluation (`rlhf run stage=evaluate`)": ROWS_OF_EVALUATION,
}
