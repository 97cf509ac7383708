"""Fixtures: a cache of read data in a temporary folder, and a function that writes data files."""

from tests.support.data_cache import data_cache  # noqa: F401
from tests.support.data_fixtures import write  # noqa: F401
