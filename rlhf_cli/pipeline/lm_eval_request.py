"""The words of `rlhf lm-eval`: which model, which tasks, how; refused where they cannot be carried out.

Neither torch nor the lm-evaluation-harness is imported here.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from rlhf_cli.artifacts.fingerprint import model_hash
from rlhf_cli.artifacts.layout import BEST, CONFIG, MANIFEST, MODEL, lm_eval_file, work_folder
from rlhf_cli.artifacts.lm_eval import BASE, read_scores, weights_hash
from rlhf_cli.artifacts.manifest import ArtifactError, StageManifest, load_json, read_manifest
from rlhf_cli.artifacts.store import verified
from rlhf_cli.config.completion import OF_LM_EVAL
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.hub import LOCAL_MODELS, goes_offline, is_cached
from rlhf_cli.config.stage_spec import Makes
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.evaluation.lm_request import EvaluatedModel, LmEvalRequest
from rlhf_cli.pipeline.model_folders import (
    local_config,
    may_be_hub_id,
    needs_code,
    require_kind,
    require_weights,
    shipped,
)
from rlhf_cli.report.places import is_run, known_runs
from rlhf_cli.report.show_request import parse_places, places_parser

INSTALL = "pip install 'rlhf-cli[lm-eval]'"
BATCH = 8
POLICIES = tuple(name for name, spec in STAGES.items() if spec.makes is Makes.policy)
EXAMPLE = "rlhf lm-eval runs/NAME/ppo hellaswag"


def read_request(words: list[str]) -> LmEvalRequest:
    """Return what the words ask for; UserError where it is already known that it cannot be done."""
    asked = _parse(words)
    if not asked.places:
        raise UserError(f"rlhf lm-eval needs a model and tasks: {EXAMPLE}")
    place, *tasks = asked.places
    tasks = [name for word in tasks for name in word.split(",") if name]
    if not tasks:
        raise UserError(f"rlhf lm-eval {place} needs the name of a task: {EXAMPLE}")
    if asked.tasks_dir and not asked.tasks_dir.expanduser().is_dir():
        raise UserError(f"--tasks-dir {asked.tasks_dir}: no such folder")
    _require_installed()
    model = find_model(place, asked.runs_dir)
    chat = model.chat if asked.chat is None else asked.chat
    beside = lm_eval_file(model.run, model.name) if model.run else None
    out = asked.out.expanduser() if asked.out else beside
    _require_writable(out, model)
    return LmEvalRequest(
        model=model,
        tasks=tuple(dict.fromkeys(tasks)),
        tasks_dir=asked.tasks_dir and asked.tasks_dir.expanduser(),
        limit=asked.limit,
        shots=asked.shots,
        batch=asked.batch_size,
        chat=chat,
        out=out,
    )


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = places_parser()
    parser.add_argument("--limit", type=_number(1))
    parser.add_argument("--shots", type=_number(0))
    parser.add_argument("--batch-size", type=_number(1), default=BATCH)
    parser.add_argument("--tasks-dir", type=Path)
    parser.add_argument("--chat", action=argparse.BooleanOptionalAction)
    parser.add_argument("--out", type=Path)
    return parse_places(parser, list(words), command="lm-eval", options=OF_LM_EVAL)


def _number(least: int):
    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is no whole number from {least} on")
        return int(text)

    return whole


def _require_installed() -> None:
    if find_spec("lm_eval") is None:
        raise UserError(f"rlhf lm-eval needs the lm-evaluation-harness: {INSTALL}")


def _require_writable(out: Path | None, model: EvaluatedModel) -> None:
    """Refuse a file that cannot be added to before hours are spent on what it would hold."""
    if out is None:
        return
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file in it, {out / 'lm_eval.json'}")
    there = next(folder for folder in out.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"{out} cannot be written: give another file by --out FILE")
    old = read_scores(out)
    if old is not None and old.model != model.name:
        raise UserError(f"{out} has figures of {old.model}: give another file by --out FILE")


def find_model(place: str, runs_dir: Path) -> EvaluatedModel:
    """Return the model that `place` means: of a run, by its folder or below runs_dir; or any other."""
    stages = tuple(STAGES)
    for folder in (runs_dir / place, Path(place).expanduser()):
        if found := _of_run(folder, stages):
            return found
    for folder in (runs_dir / place, Path(place).expanduser()):
        if is_run(folder, stages):
            raise UserError(f"{folder} is a run: give a model of it ({_models_of(folder)})")
    return _other(place, runs_dir, stages)


def _of_run(folder: Path, stages: Sequence[str]) -> EvaluatedModel | None:
    """Return the model of a run; None where the folder is in no run."""
    if folder.name == MODEL and (folder.parent / MANIFEST).is_file():
        folder = folder.parent
    run, name, inside = folder.parent, folder.name, ""
    if name == BEST and run.name in stages:
        run, name, inside = run.parent, run.name, BEST
    if (run / name / MANIFEST).is_file():
        return _of_stage(run, name, inside)
    if not is_run(run, stages):
        return None
    if name == BASE and not folder.exists():
        return _base_of(run)
    if name in stages:
        done = "did not finish" if work_folder(run, name).exists() else "is not there"
        raise UserError(
            f"the stage {name} of {run} {done}: `rlhf run` with its words makes it; there are "
            f"{_models_of(run)}"
        )
    if not folder.exists():
        raise UserError(f"{run} has no model {name!r}: give one of {_models_of(run)}")
    return None


def _of_stage(run: Path, name: str, inside: str) -> EvaluatedModel:
    manifest = verified(run / name)
    if manifest.stage not in POLICIES:
        raise UserError(
            f"{run / name} is the stage {manifest.stage}, which has no language model: give one of "
            f"{_models_of(run)}"
        )
    folder = inside or MODEL
    if not any(file.startswith(f"{folder}/") for file in manifest.files):
        raise UserError(
            f"{run / name} has no {inside}/: its watch chose no weights; give {run / name}"
        )
    return EvaluatedModel(
        name=f"{name}/{inside}" if inside else name,
        path=str(run / name / folder),
        run=run,
        weights=weights_hash(manifest, folder),
        chat=True,
        system=_settings(run / name).get("data", {}).get("system"),
    )


def _base_of(run: Path) -> EvaluatedModel:
    """Return the base model that the stages of a run were made of."""
    for name, manifest in _finished(run):
        if BASE in manifest.parents:
            model = _settings(run / name).get("model", {})
            path, revision = manifest.origins[BASE], model.get("revision")
            if model_hash(shipped(path), revision) != manifest.parents[BASE]:
                raise UserError(
                    f"{path}, the base model of {run}, was changed or moved since {name} was made: "
                    "give its folder"
                )
            other = _other(path, run.parent, tuple(STAGES), revision)
            weights = manifest.parents[BASE]
            tokenizer = model.get("tokenizer")
            return replace(other, name=BASE, run=run, weights=weights, tokenizer=tokenizer)
    raise UserError(f"no finished stage of {run} names its base model: give the model's folder")


def _finished(run: Path) -> list[tuple[str, StageManifest]]:
    """Return the finished stages of a run; their files are not verified."""
    found = []
    for name in STAGES:
        try:
            found.append((name, read_manifest(run / name)))
        except ArtifactError:
            continue
    return found


def _models_of(run: Path) -> str:
    """Return the models of a run that can be evaluated, for the end of an error line."""
    done = _finished(run)
    names = [BASE] if any(BASE in one.parents for _, one in done) else []
    for name, manifest in done:
        if name in POLICIES:
            best = any(file.startswith(f"{BEST}/") for file in manifest.files)
            names += [name, f"{name}/{BEST}"] if best else [name]
    return ", ".join(str(run / name) for name in names) or "none yet"


def _settings(stage: Path) -> dict:
    """Return the configuration of a stage."""
    try:
        return load_json(stage / CONFIG)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{stage / CONFIG} cannot be read", "run its stage again") from error


def _other(
    place: str, runs_dir: Path, stages: Sequence[str], revision: str | None = None
) -> EvaluatedModel:
    """Return a model of no run: a folder, a hub id, or the name of one in this package."""
    config = local_config(place)
    if not config and not may_be_hub_id(place):
        raise UserError(
            f"{place} is no model: neither a stage of a run, nor a folder with config.json, nor a "
            f"hub id (org/name); {known_runs(runs_dir, stages)}"
        )
    if config:
        require_kind(place, config, scores=False)
        require_weights(place, Path(shipped(place)).expanduser())
    elif goes_offline() and not is_cached("models", place):
        raise UserError(
            f"{place} is no local folder, the hub cannot be reached and its cache does not hold it: "
            f"where there is a connection, `hf download {place} --local-dir DIR`; then give DIR"
        )
    if needs_code(config):
        raise UserError(f"{place} needs Python code of its own, which is not run here")
    path = shipped(place) if place in LOCAL_MODELS else place
    return EvaluatedModel(
        name=place, path=path, revision=revision, weights=model_hash(shipped(place), revision)
    )
