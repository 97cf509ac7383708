"""docs/configuration.md holds every key with the default and the comment that conf/ gives it."""

from rlhf_cli.config.compose import freeze
from rlhf_cli.config.keys import flatten
from tests.support.configuration import composed
from tests.support.configuration_page import PAGE, page


def test_the_page_is_current():
    assert PAGE.read_text() == page(), "run `make docs`"


def test_every_key_has_a_row_and_a_meaning():
    rows = [line.split(" | ", 2) for line in page().splitlines() if line.startswith("| `")]
    meanings = {row[0].strip("| `"): row[-1].strip("| ") for row in rows}
    keys = flatten(freeze(composed()))
    assert not keys.keys() - meanings.keys()
    assert not [key for key in keys if not meanings[key]]
