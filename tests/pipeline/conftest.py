"""What is read is kept in a folder of the tests, and files to read are written there."""

from tests.support.data_cache import data_cache  # noqa: F401
from tests.support.data_fixtures import write  # noqa: F401
