"""A fixture for tests whose stages cache the data that they read."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def data_cache(tmp_path_factory):
    """Set the cache of read data to a temporary folder."""
    from rlhf_cli.stages import reading

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
