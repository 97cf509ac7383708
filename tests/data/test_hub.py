"""The hub path: real calls of `datasets`, on folders and with the download replaced."""

import json

import pytest

from rlhf_cli.config.schema import Source
from rlhf_cli.data.records import DataError
from rlhf_cli.data.sources import rows
from rlhf_cli.data.spec import spec_of

datasets = pytest.importorskip("datasets")
ROWS = [{"prompt": "a", "response": "b"}, {"prompt": "c", "response": "d"}]


@pytest.fixture(autouse=True)
def cache_in_tmp(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def values(**source):
    return [row for _, row in rows(Source(**source))]


def test_a_saved_data_set_is_read_as_it_is(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    found = list(rows(Source(path=str(tmp_path / "saved"))))
    assert [row for _, row in found] == ROWS
    assert str(found[1][0]).endswith("saved row 2")


def test_a_saved_dictionary_gives_the_split_asked_for(tmp_path):
    both = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:1])}
    datasets.DatasetDict(both).save_to_disk(str(tmp_path / "saved"))
    path = str(tmp_path / "saved")
    assert values(path=path) == ROWS
    assert values(path=path, split="test") == ROWS[:1]
    with pytest.raises(DataError, match="no split 'dev'; set split to one of train, test"):
        values(path=path, split="dev")


def test_a_folder_in_the_hubs_own_layout_goes_through_load_dataset(tmp_path):
    folder = tmp_path / "repo"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    assert values(path=str(folder)) == ROWS
    assert values(path=str(folder), split="test[:1]") == ROWS[:1]
    with pytest.raises(DataError, match=r'split=dev\) could not be loaded: Unknown split "dev"'):
        values(path=str(folder), split="dev")


def test_an_address_reaches_load_dataset_whole(monkeypatch):
    calls = []

    def load_dataset(path, name=None, **named):
        calls.append((path, name, named))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = values(
        path="owner/name", config="main", data_dir="part", split="test", revision="abc", limit=1
    )
    assert found == ROWS[:1]
    assert calls == [
        ("owner/name", "main", {"data_dir": "part", "split": "test", "revision": "abc"})
    ]


def test_without_a_split_train_is_asked_for(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        datasets, "load_dataset", lambda path, name=None, **named: seen.update(named) or iter(ROWS)
    )
    assert values(path="owner/name") == ROWS
    assert seen["split"] == "train"


def test_what_the_hub_says_becomes_one_line_with_the_remedy():
    with pytest.raises(DataError) as error:
        values(path="owner/name-that-is-nowhere", config="main")
    assert "data source owner/name-that-is-nowhere (config=main" in str(error.value)
    assert "give the path of a local file" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_hash_of_an_address_changes_with_every_part_of_it(config):
    def digest(**source):
        cfg = config(demonstrations=[Source(path="owner/name", **source)])
        return spec_of(cfg, "demonstrations").contents()["demonstrations"].popitem()[1]

    seen = {digest(), digest(split="test"), digest(config="main"), digest(revision="abc")}
    assert len(seen) == 4
