"""A fixture for the folders of tests whose stages keep what they read."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def data_cache(tmp_path_factory):
    """What stages keep of their data is in a folder of the tests."""
    from rlhf_cli.stages import reading

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
