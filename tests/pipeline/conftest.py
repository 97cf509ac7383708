"""The cache of the data lies in a folder of the tests here too."""

from tests.stages.conftest import cache  # noqa: F401
