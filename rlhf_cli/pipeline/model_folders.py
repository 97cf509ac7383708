"""Model folders as far as they are known without torch: their kind, their weights, their code."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.layout import MANIFEST
from rlhf_cli.artifacts.manifest import ArtifactError, StageManifest
from rlhf_cli.artifacts.store import open_stage
from rlhf_cli.config.hub import LOCAL_MODELS
from rlhf_cli.config.keys import PACKAGE
from rlhf_cli.config.schema import Model
from rlhf_cli.config.suites import SECTION
from rlhf_cli.evaluation.suites.labels import label_weights

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
TOKENIZERS = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt",
    "spiece.model",
)  # fmt: skip
REMEDY = "give a Hugging Face folder or a hub id with safetensors weights"


def shipped(path: str) -> str:
    """Return the folder of a model inside this package, for another path the path."""
    return str(PACKAGE / "assets" / path) if path in LOCAL_MODELS else path


def may_be_hub_id(place: str) -> bool:
    """Return whether owner/name can mean the hub: nothing of that name is here, nor a folder to look in."""
    folder = Path(place).expanduser()
    return bool(HUB_ID.fullmatch(place)) and not folder.exists() and not folder.parent.is_dir()


def external(key: str, place: str, stage: str, model: Model) -> StageManifest | None:
    """Return the manifest of a stage's folder, verified; None for a model folder or a hub id."""
    folder = Path(place).expanduser()
    if (folder / MANIFEST).is_file():
        return open_stage(folder, key, stage=stage)
    if not (folder / "config.json").is_file() and not may_be_hub_id(place):
        raise ArtifactError(
            f"{key}={place} is no finished stage (no {MANIFEST}) and no model (no config.json)",
            f"give a stage folder such as runs/<name>/{stage}, a model folder, or a hub id (org/name)",
        )
    require_model(key, place, model, scores=stage == "rm")
    return None


def require_model(
    key: str, place: str, model: Model, *, scores: bool = False, has_tokenizer: bool = True
) -> None:
    """Refuse a local folder that cannot be loaded as asked; what a hub id holds a worker finds out."""
    folder, label = Path(shipped(place)).expanduser(), f"{key}={place}"
    if not _is_local(label, place):
        return
    config = read_json(folder / "config.json", label)
    require_kind(label, config, scores=scores)
    if has_tokenizer:
        own = "set model.tokenizer=<a folder or hub id>" if key == "model.path" else "add them"
        _require_tokenizer(label, folder, own)
    if needs_code(config) and not model.trust_remote_code:
        raise ArtifactError(
            f"{label} needs Python code of its own ({config['auto_map']})"[:200],
            "read it, then set model.trust_remote_code=true, or choose another model",
        )
    require_weights(label, folder)


def require_classifier(key: str, place: str) -> None:
    """Refuse a local folder that is no text classifier for a key of evaluation.suites.

    Code from its folder is never run.
    """
    folder, label = Path(place).expanduser(), f"{SECTION}.{key}={place}"
    if not _is_local(label, place):
        return
    config = read_json(folder / "config.json", label)
    # Without names transformers has two labels of its own.
    label_weights(key, place, config.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"})
    _require_tokenizer(label, folder, "add them")
    if needs_code(config):
        found = f"{label} needs Python code of its own, which is not run"
        raise ArtifactError(found, "choose another classifier")
    require_weights(label, folder)


def _is_local(label: str, place: str) -> bool:
    """Return whether a model is here; refuse what is neither here nor a hub id."""
    folder = Path(shipped(place)).expanduser()
    if not folder.exists():
        if place in LOCAL_MODELS:
            raise ArtifactError(
                f"{label}: this model is not among the files of the package",
                f"make base-model SIZE={place}",
            )
        if "/" in place and not may_be_hub_id(place):
            raise ArtifactError(f"{label}: there is no such folder", REMEDY)
        return False
    if not (folder / "config.json").is_file():
        found = "a file" if folder.is_file() else "a folder without config.json"
        raise ArtifactError(f"{label} is {found}, and no model", REMEDY)
    return True


def _require_tokenizer(label: str, folder: Path, remedy: str) -> None:
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise ArtifactError(f"{label} has no tokenizer files", remedy)


def local_config(place: str) -> dict[str, Any]:
    """Return the config.json of a model folder; nothing of a hub id."""
    file = Path(shipped(place)).expanduser() / "config.json"
    return read_json(file, place) if file.is_file() else {}


def require_kind(label: str, config: dict[str, Any], *, scores: bool) -> None:
    """Refuse a model of the wrong kind by its config.json. A worker looks at its weights."""
    named = (config.get("architectures") or [None])[0]
    if named is None:
        return
    head = named.endswith(("ForSequenceClassification", "RewardModel"))
    if head and not scores:
        raise ArtifactError(
            f"{label} is a {named}, which has no language-model head",
            "give a causal language model",
        )
    outputs = len(config.get("id2label", "01")) if head else 0  # transformers leaves out two
    if scores and outputs != 1:
        found = f"with {outputs} outputs" if head else "and no reward model"
        raise ArtifactError(
            f"{label} is a {named} {found}",
            "give a reward model: AutoModelForSequenceClassification with one output",
        )


def needs_code(config: dict[str, Any]) -> bool:
    """Return whether transformers has no class of its own for what auto_map names."""
    package = find_spec("transformers")
    assert package is not None and package.origin is not None
    own = str(config.get("model_type", "")).replace("-", "_")
    known = own and (Path(package.origin).parent / "models" / own).is_dir()
    return "auto_map" in config and not known


def require_weights(label: str, folder: Path) -> None:
    """Refuse weights that are not safetensors, lack a file, or are shorter than their headers state."""
    if (folder / INDEX).is_file():
        names = sorted(set(read_json(folder / INDEX, label).get("weight_map", {}).values()))
    else:
        names = [WHOLE]
    for name in names:
        if not (folder / name).is_file():
            raise ArtifactError(f"{label} has no {name}", REMEDY)
        if problem := damage(folder / name):
            raise ArtifactError(
                f"{label}: {name} is damaged: {problem}", "copy or download it again"
            )


def damage(path: Path) -> str | None:
    """Return what is wrong with a safetensors file by its header; its tensors are not read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            return f"{size} bytes do not hold its header"
        try:
            header = json.loads(file.read(length))
            ends = [t["data_offsets"][1] for k, t in header.items() if k != "__metadata__"]
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return "its header cannot be read"
    expected = 8 + length + max(ends, default=0)
    return None if expected == size else f"{size} bytes instead of {expected}"


def read_json(path: Path, label: str) -> dict[str, Any]:
    """Return the object of a JSON file of a model."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{label}: {path.name} is not valid JSON", "copy or download it again"
        ) from error
    if not isinstance(found, dict):
        raise ArtifactError(
            f"{label}: {path.name} holds no JSON object", "copy or download it again"
        )
    return found
