"""Without a connection: what is missing is named at once, what the cache holds is used."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from rlhf_cli.config import hub
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Source
from tests.support.configuration import composed

ROLES = ("demonstrations", "comparisons")


@pytest.fixture(autouse=True)
def nothing_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def from_hub(name: str):
    cfg = composed()
    cfg.data = replace(cfg.data, comparisons=[Source(path="file.jsonl"), Source(path=name)])
    return cfg


def unreachable() -> bool:
    return False


def test_a_model_that_cannot_be_had_is_named_with_the_local_way():
    with pytest.raises(UserError) as error:
        hub.require_hub(composed("model=gpt2"), ROLES, unreachable)
    assert "model.path=openai-community/gpt2 is no local folder" in str(error.value)
    assert "`hf download openai-community/gpt2 --local-dir DIR`; then model.path=DIR" in str(
        error.value
    )


def test_data_that_cannot_be_had_is_named_by_its_place():
    with pytest.raises(UserError, match=r"^data\.comparisons\[1\]\.path: org/set is no local file"):
        hub.require_hub(from_hub("org/set"), ROLES, unreachable)
    hub.require_hub(from_hub("org/set"), ("demonstrations",), unreachable)


@pytest.mark.parametrize(
    "folder", ["hub/datasets--org--set/snapshots/main/data", "datasets/org___set"]
)
def test_what_is_cached_is_used_without_asking_again(nothing_cached, folder):
    (nothing_cached / folder).mkdir(parents=True)
    hub.require_hub(from_hub("org/set"), ROLES, unreachable)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_cached_model_is_used(nothing_cached):
    kept = nothing_cached / "hub" / "models--openai-community--gpt2"
    (kept / "blobs").mkdir(parents=True)
    with pytest.raises(UserError, match="its cache does not hold it"):  # a broken download
        hub.require_hub(composed("model=gpt2"), ROLES, unreachable)
    (kept / "snapshots" / "main" / "config.json").mkdir(parents=True)
    hub.require_hub(composed("model=gpt2"), ROLES, unreachable)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_connection_leaves_all_to_the_hub():
    hub.require_hub(composed("model=gpt2"), ROLES, lambda: True)
    assert os.environ["HF_HUB_OFFLINE"] == "0"


def test_nobody_is_asked_where_all_is_local(nothing_cached):
    def never() -> bool:
        raise AssertionError("asked")

    hub.require_hub(composed(), ROLES, never)
    (nothing_cached / "org" / "set").mkdir(parents=True)
    hub.require_hub(from_hub("org/set"), ROLES, never)
    hub.require_hub(from_hub("some/file.parquet"), ROLES, never)


def test_nobody_is_asked_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="the hub cannot be reached"):
        hub.require_hub(composed("model=gpt2"), ROLES, lambda: True)


def test_a_name_that_nobody_looks_up_is_waited_for_a_little(monkeypatch):
    """Without a connection a look at a name may take half a minute; the end of the process does not
    wait for it either."""
    monkeypatch.setattr(hub, "SECONDS", 0.05)
    monkeypatch.setattr(hub, "_answers", lambda endpoint: time.sleep(1) or True)
    before, started = threading.enumerate(), time.monotonic()
    assert not hub.reachable()
    assert time.monotonic() - started < 0.9
    assert all(thread.daemon for thread in threading.enumerate() if thread not in before)


def test_the_hubs_client_is_imported_after_the_hub_was_asked():
    """It reads once, when it is imported, whether it is offline."""
    code = "import sys, rlhf_cli.pipeline.data_check, rlhf_cli.pipeline.driver;"
    code += "print(sorted({'huggingface_hub', 'transformers', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_address_where_nobody_listens_is_not_reachable(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert not hub.reachable()
