"""Fixtures: a cache of read data in a temporary folder, and a renderer of the plain template."""

from tests.support.data_cache import data_cache  # noqa: F401
from tests.support.data_fixtures import plain_renderer  # noqa: F401
