"""The hub without a connection: cached files are used, missing ones refused at once."""

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
from tests.support.suites import suites

ROLES = ("demonstrations", "comparisons")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
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


def test_an_unavailable_model_is_refused_with_how_to_use_a_local_one():
    with pytest.raises(UserError) as error:
        hub.require_hub(composed("model=gpt2"), ROLES, unreachable)
    assert "model.path=openai-community/gpt2 is no local folder" in str(error.value)
    assert "`hf download openai-community/gpt2 --local-dir DIR`; then model.path=DIR" in str(
        error.value
    )


@pytest.mark.parametrize("name", ["embedder", "nli"])
def test_an_unavailable_model_that_compares_responses_is_refused(name):
    cfg = composed()
    setattr(cfg.evaluation.diversity, name, "org/one")
    with pytest.raises(
        UserError, match=rf"^evaluation\.diversity\.{name}=org/one is no local fold"
    ):
        hub.require_hub(cfg, ROLES, unreachable)


def test_an_unavailable_data_set_is_refused_with_its_key():
    with pytest.raises(UserError, match=r"^data\.comparisons\[1\]\.path: org/set is no local file"):
        hub.require_hub(from_hub("org/set"), ROLES, unreachable)
    hub.require_hub(from_hub("org/set"), ("demonstrations",), unreachable)


def test_an_unavailable_judge_is_refused_unless_a_server_has_it():
    with pytest.raises(UserError, match=r"^judge\.model=org/judge is no local folder"):
        hub.require_hub(composed("judge.model=org/judge"), ROLES, unreachable)
    served = composed("judge.model=org/judge", "judge.url='http://x/v1'")
    hub.require_hub(served, ROLES, unreachable)


@pytest.mark.parametrize(
    "folder", ["hub/datasets--org--set/snapshots/main/data", "datasets/org___set"]
)
def test_a_cached_data_set_is_used_offline(empty_cache, folder):
    (empty_cache / folder).mkdir(parents=True)
    hub.require_hub(from_hub("org/set"), ROLES, unreachable)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_cached_model_is_used_offline_unless_its_download_is_incomplete(empty_cache):
    kept = empty_cache / "hub" / "models--openai-community--gpt2"
    (kept / "blobs").mkdir(parents=True)
    with pytest.raises(UserError, match="its cache does not hold it"):  # an incomplete download
        hub.require_hub(composed("model=gpt2"), ROLES, unreachable)
    (kept / "snapshots" / "main" / "config.json").mkdir(parents=True)
    hub.require_hub(composed("model=gpt2"), ROLES, unreachable)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_with_a_connection_the_hub_is_used():
    hub.require_hub(composed("model=gpt2"), ROLES, lambda: True)
    assert os.environ["HF_HUB_OFFLINE"] == "0"


def test_the_connection_is_not_tested_where_everything_is_local(empty_cache):
    def never() -> bool:
        raise AssertionError("asked")

    hub.require_hub(composed(), ROLES, never)
    (empty_cache / "org" / "set").mkdir(parents=True)
    hub.require_hub(from_hub("org/set"), ROLES, never)
    hub.require_hub(from_hub("some/file.parquet"), ROLES, never)


def test_the_connection_is_not_tested_in_offline_mode(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="the hub cannot be reached"):
        hub.require_hub(composed("model=gpt2"), ROLES, lambda: True)


def test_reachable_gives_up_on_a_slow_name_lookup(monkeypatch):
    """A lookup may take half a minute without a connection; its daemon thread delays no exit."""
    monkeypatch.setattr(hub, "SECONDS", 0.05)
    monkeypatch.setattr(hub, "_answers", lambda endpoint: time.sleep(1) or True)
    before, started = threading.enumerate(), time.monotonic()
    assert not hub.reachable()
    assert time.monotonic() - started < 0.9
    assert all(thread.daemon for thread in threading.enumerate() if thread not in before)


def test_the_hub_client_is_not_imported_before_the_connection_is_tested():
    """The client reads the offline mode once, when it is imported."""
    code = "import sys, rlhf_cli.pipeline.data_check, rlhf_cli.pipeline.driver;"
    code += "print(sorted({'huggingface_hub', 'transformers', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_endpoint_that_refuses_connections_is_not_reachable(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert not hub.reachable()


def test_an_unavailable_text_classifier_is_refused_where_a_suite_uses_it():
    cfg = composed()
    cfg.data = replace(cfg.data, comparisons=[])
    cfg.evaluation.suites = suites(toxicity="a.jsonl", toxicity_model="org/toxic")
    with pytest.raises(
        UserError, match=r"^evaluation\.suites\.toxicity_model=org/toxic is no local"
    ):
        hub.require_hub(cfg, ROLES, unreachable)
    cfg.evaluation.suites = suites(xstest="a.csv", toxicity_model="org/toxic")
    hub.require_hub(cfg, ROLES, unreachable)
