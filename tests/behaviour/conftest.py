"""A cache of read data in a temporary folder."""

from tests.support.data_cache import data_cache  # noqa: F401
