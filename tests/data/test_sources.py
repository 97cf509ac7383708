"""Folders and the hub: real calls of `datasets` with the download replaced; hashes of sources.

Reading of files is tested in test_files.py.
"""

import gzip
import json

import pytest

from rlhf_cli.artifacts.manifest import read_manifest
from rlhf_cli.config.schema import Source
from rlhf_cli.data.records import DataError
from rlhf_cli.data.sources import local_files, source_hash
from rlhf_cli.stages.reading import spec_of
from rlhf_cli.tiny_world import code_hash
from tests.support.artifacts import finished_stage
from tests.support.data_sources import read, values

datasets = pytest.importorskip("datasets")
ROWS = [{"prompt": "a", "response": "b"}, {"prompt": "c", "response": "d"}]


@pytest.fixture(autouse=True)
def cache_in_tmp(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_a_saved_data_set_is_read(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    found = read(tmp_path / "saved")
    assert [row for _, row in found] == ROWS
    assert str(found[1][0]).endswith("saved row 2")


def test_a_saved_dictionary_gives_the_requested_split(tmp_path):
    both = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:1])}
    datasets.DatasetDict(both).save_to_disk(str(tmp_path / "saved"))
    path = str(tmp_path / "saved")
    assert values(path=path) == ROWS
    assert values(path=path, split="test") == ROWS[:1]
    with pytest.raises(DataError, match="no split 'dev'; set split to one of train, test"):
        values(path=path, split="dev")


def test_a_folder_with_the_layout_of_the_hub_is_read_by_load_dataset(tmp_path):
    folder = tmp_path / "repo"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    assert values(path=str(folder)) == ROWS
    assert values(path=str(folder), split="test[:1]") == ROWS[:1]
    with pytest.raises(DataError, match=r'split=dev\) could not be loaded: Unknown split "dev"'):
        values(path=str(folder), split="dev")


def test_all_keys_of_a_hub_source_are_passed_to_load_dataset(monkeypatch):
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


def test_the_default_split_is_train(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        datasets, "load_dataset", lambda path, name=None, **named: seen.update(named) or iter(ROWS)
    )
    assert values(path="owner/name") == ROWS
    assert seen["split"] == "train"


def test_an_error_of_the_hub_is_refused_in_one_line_with_the_remedy():
    with pytest.raises(DataError) as error:
        values(path="owner/name-that-is-nowhere", config="main")
    assert "data source owner/name-that-is-nowhere (config=main" in str(error.value)
    assert "give the path of a local file" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_hash_of_a_hub_source_covers_every_key(config):
    def digest(**source):
        cfg = config(demonstrations=[Source(path="owner/name", **source)])
        return spec_of(cfg, "demonstrations").contents()["demonstrations"].popitem()[1]

    seen = {digest(), digest(split="test"), digest(config="main"), digest(revision="abc")}
    assert len(seen) == 4


def test_files_of_a_folder_are_read_with_their_lines(tmp_path):
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps(ROWS[0]) + "\noops\n")
    found = read(folder)
    assert [str(origin) for origin, _ in found] == [f"{folder}/train.jsonl:{n}" for n in (1, 2)]
    assert found[1][1].reason == "not valid JSON"


@pytest.mark.parametrize("named", ["../secret.jsonl", "{tmp_path}/secret.jsonl"])
def test_a_readme_that_names_files_outside_its_folder_is_refused(tmp_path, named):
    (tmp_path / "secret.jsonl").write_text(json.dumps(ROWS[0]))
    folder = tmp_path / "repo"
    folder.mkdir()
    head = f"- config_name: default\n  data_files: {named.format(tmp_path=tmp_path)}"
    (folder / "README.md").write_text(f"---\nconfigs:\n{head}\n---\n")
    with pytest.raises(
        DataError, match=r"README\.md of .*repo names .*which is outside the folder"
    ):
        values(path=str(folder))


def test_a_readme_may_name_files_inside_its_folder(tmp_path):
    folder = tmp_path / "repo"
    (folder / "part").mkdir(parents=True)
    (folder / "part" / "x.jsonl").write_text(json.dumps(ROWS[0]))
    head = "- config_name: default\n  data_files: part/*.jsonl"
    (folder / "README.md").write_text(f"---\nconfigs:\n{head}\n---\n")
    assert values(path=str(folder)) == ROWS[:1]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("data-00000-of-00001.arrow", None),
        ("data-00000-of-00001.arrow", b"{"),
        ("state.json", b"{"),
    ],
)
def test_a_saved_data_set_that_is_damaged_is_refused_by_name(tmp_path, name, damage):
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    broken = tmp_path / "saved" / name
    broken.unlink()
    if damage is not None:
        broken.write_bytes(damage)
    with pytest.raises(
        DataError, match=r"saved cannot be read .*missing or damaged: copy it again"
    ):
        values(path=str(tmp_path / "saved"))


def test_the_hh_repository_is_read_without_its_red_team_attempts(tmp_path):
    parts = ["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"]
    for part in parts:
        (tmp_path / "repo" / part).mkdir(parents=True)
        for side in ("train", "test"):
            row = json.dumps({"chosen": part, "rejected": side}).encode()
            (tmp_path / "repo" / part / f"{side}.jsonl.gz").write_bytes(gzip.compress(row))
    (tmp_path / "repo" / "red-team-attempts").mkdir()
    attempts = tmp_path / "repo" / "red-team-attempts" / "red_team_attempts.jsonl.gz"
    attempts.write_bytes(gzip.compress(b'{"transcript": "x"}'))
    (tmp_path / "repo" / "README.md").write_text("---\nlicense: mit\n---\n")
    repo = str(tmp_path / "repo")
    assert [row["chosen"] for row in values(path=repo)] == parts
    assert [row["rejected"] for row in values(path=repo, split="test")] == ["test"] * 4
    assert values(path=repo, data_dir="helpful-base") == [
        {"chosen": "helpful-base", "rejected": "train"}
    ]


def test_a_table_is_read_as_it_is_generated():
    found = read("tiny_world:fit/eval")
    assert str(found[0][0]) == "tiny_world:fit/eval row 1"
    assert found[0][1].keys() == {"text", "size", "answer", "choices"}
    assert len(values(path="tiny_world:fit/eval", limit=3)) == 3
    assert local_files(Source(path="tiny_world:fit")) == []


def test_a_table_is_hashed_by_the_code_that_generates_it(monkeypatch):
    one, other = (source_hash(Source(path=f"tiny_world:{name}")) for name in ("fit", "sums"))
    assert one != other
    monkeypatch.setattr("rlhf_cli.tiny_world.code_hash", lambda: code_hash() + "changed")
    assert source_hash(Source(path="tiny_world:fit")) != one


MADE = "".join(json.dumps(row) + "\n" for row in ROWS)


def test_the_folder_of_a_stage_stands_for_the_data_it_made(tmp_path):
    files = {"data/demonstrations.jsonl": MADE, "curve.json": "[]"}
    made = finished_stage(tmp_path / "best_of_n", files)
    assert values(path=str(made)) == ROWS
    source = Source(path=str(made))
    assert source_hash(source) == read_manifest(made).digest
    other = finished_stage(tmp_path / "other", files | {"curve.json": "[1]"})
    assert source_hash(Source(path=str(other))) == source_hash(source)
    third = finished_stage(tmp_path / "third", {"data/demonstrations.jsonl": MADE * 2})
    assert source_hash(Source(path=str(third))) != source_hash(source)


def test_data_of_a_stage_that_was_changed_is_refused(tmp_path):
    made = finished_stage(tmp_path / "best_of_n", {"data/demonstrations.jsonl": MADE})
    file = made / "data" / "demonstrations.jsonl"
    file.write_text(MADE.replace('"b"', '"B"'))
    with pytest.raises(DataError, match=r"jsonl was changed after it was written; run the stage"):
        values(path=str(made))
    with pytest.raises(DataError, match="was changed"):
        source_hash(Source(path=str(made)))


def test_a_stage_without_data_or_with_several_files_is_no_source(tmp_path):
    sft = finished_stage(tmp_path / "sft", {"model/config.json": "{}"}, "sft")
    with pytest.raises(DataError, match="is the stage sft, which makes no data; give the folder"):
        values(path=str(sft))
    two = {"data/demonstrations.jsonl": MADE, "data/comparisons.jsonl": MADE}
    both = finished_stage(tmp_path / "both", two)
    with pytest.raises(DataError, match="give the path of one of them"):
        values(path=str(both))
