"""Stages keep what they read in a folder of the tests; a renderer of the plain template."""

from tests.support.data_cache import data_cache  # noqa: F401
from tests.support.data_fixtures import plain_renderer  # noqa: F401
