"""Manifests, fingerprints and checkpoints made by hand."""

from pathlib import Path

from rlhf_cli.artifacts import checkpoints
from rlhf_cli.artifacts.fingerprint import Fingerprint
from rlhf_cli.artifacts.manifest import FINISHED, StageManifest
from rlhf_cli.artifacts.publication import publish


def manifest(stage: str = "sft") -> StageManifest:
    return StageManifest(
        stage=stage, status=FINISHED, version="0", commit=None, config={}, data={},
        parents={}, origins={}, tokenizer_hash=None, template_hash=None, seed=1, step=3,
        started="", finished="", metrics={"loss": 0.25},
    )  # fmt: skip


def finished_stage(folder: Path, files: dict[str, str], stage: str = "best_of_n") -> Path:
    """Return the folder of a finished stage with these files."""
    work = folder.with_name(f"{folder.name}.work")
    for name, text in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    publish(work, folder, manifest(stage))
    return folder


def fingerprint(**changes) -> Fingerprint:
    made_of = {"config": {"sft.lr": 1.0, "seed": 1}, "data": {"data.prompts": {"a": "1"}}}
    return Fingerprint(**(made_of | {"parents": {"sft": "d"}, "version": "0"} | changes))


def save(work: Path, step: int, keep: int = 2, content: bytes | None = None) -> Path:
    folder = checkpoints.create(work, step)
    path = folder / "model-00001-of-00001.safetensors"
    with checkpoints.writing_file(path):
        path.write_bytes(content or b"%d" % step * 50)
    return checkpoints.commit(work, step, {"step": step, "best": [0.5, step]}, keep)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
