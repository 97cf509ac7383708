"""What the shell offers after TAB, before Hydra is asked: commands, options, choices, paths, runs."""

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from rlhf_cli.config.keys import COMMANDS, GROUPS, schema_keys
from rlhf_cli.config.overrides import FLAGS, YAML, presets, values_of
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_table import REPLACEABLE, STAGES
from rlhf_cli.config.suites import CLASSIFIERS, SECTION, SUITES

COMPOSING = ("run", "config", "data check")
RUNS = Path("runs")
OF_SHOW = ("--time", "--json", "--runs-dir", "--help")
OF_REPORT = ("--out", "--runs-dir", "--help")
OF_LM_EVAL = (
    "--limit", "--shots", "--batch-size", "--tasks-dir", "--chat", "--no-chat", "--out",
    "--runs-dir", "--help",
)  # fmt: skip
OF_CHECK = ("--all", "--json")
OPTIONS = {"show": OF_SHOW, "report": OF_REPORT, "lm-eval": OF_LM_EVAL}
PLACES = (
    *(f"parents.{name}" for name in REPLACEABLE), "model.path", "model.tokenizer",
    *(f"{SECTION}.{name}" for name in SUITES), *(f"{SECTION}.{name}" for name in CLASSIFIERS),
    "sft.reward_model", "evaluation.diversity.embedder", "evaluation.diversity.nli", "runs_dir",
    "data.template",
)  # fmt: skip
FIXED = {
    "stage": ("all", *STAGES),
    "runtime.device": ("auto", "cpu", "cuda", "mps"),
    "runtime.dtype": ("auto", "float32", "bfloat16"),
}


def own_words(typed: str) -> list[str] | None:
    """Return completions of this project's own words; None where Hydra knows better: keys."""
    words = typed.split()[1:]
    open_word = words[-1] if words and not typed.endswith(" ") else ""
    before = words[: len(words) - bool(open_word)]
    if not before:
        return _beginning(COMMANDS, open_word)
    if before == ["data"]:
        return ["check"]
    if options := OPTIONS.get(before[0]):
        return _of_places(open_word, before, options)
    return _of_request(open_word, before)


def _of_places(word: str, before: list[str], options: Iterable[str]) -> list[str]:
    """Return options, names of runs, and folders where a folder is begun."""
    if word.startswith("-"):
        return _beginning(options, word)
    if before[-1] in ("--runs-dir", "--tasks-dir"):
        return _folders(word)
    if before[-1] == "--out":
        return _places(word)
    if before[0] == "lm-eval":
        return _models(word)
    given = list(values_of(before, ("--runs-dir", "runs_dir")))
    names = _beginning(run_names(Path(given[-1]) if given else RUNS), word)
    return names or _folders(word)


def _models(word: str) -> list[str]:
    """Return folders, and in that of a run its base model, which has no folder there."""
    folder, slash, _ = word.rpartition("/")
    is_run = slash and any(Path(folder, stage).is_dir() for stage in STAGES)
    return _folders(word) + (_beginning([f"{folder}/base"], word) if is_run else [])


def _of_request(word: str, before: list[str]) -> list[str] | None:
    """Return those of a command that composes: options, values of keys, files of experiments or of data."""
    checks = before[:2] == ["data", "check"]
    if before[-1] in ("--config-dir", "-cd"):
        return _folders(word)
    if word.startswith("-"):
        options = [flag for flag in FLAGS if flag.startswith("--")]
        return _beginning([*OF_CHECK, *options] if checks else options, word)
    key, equals, value = word.partition("=")
    if equals:
        found = _values(key, value, before)
        return None if found is None else [f"{key}={one}" for one in found]
    if any(known.startswith(word) for known in schema_keys()):
        return None
    return [place for place in _places(word) if checks or place.endswith(("/", *YAML))] or None


def _values(key: str, value: str, before: list[str]) -> list[str] | None:
    """Return what may stand behind `key=`, beginning with `value`; None for a value of any other kind."""
    if key in GROUPS:
        found = _beginning(presets(key, before), value)
        endings = {"experiment": ("/", *YAML), "model": ("/",)}.get(key, ())
        is_place = value.startswith((".", "/", "~")) or not found
        return found + [p for p in _places(value) if is_place and p.endswith(endings or "\0")]
    if key == "name":
        given = [word.partition("=")[2] for word in before if word.startswith("runs_dir=")]
        return _beginning(run_names(Path(given[-1]) if given else RUNS), value)
    if key in PLACES:
        return _places(value)
    choices = FIXED.get(key) or _choices(_type_of(key))
    return _beginning(choices, value) if choices else None


def _choices(kind: Any) -> tuple[str, ...]:
    if kind is bool:
        return ("true", "false")
    is_enum = isinstance(kind, type) and issubclass(kind, Enum)
    return tuple(kind.__members__) if is_enum else ()


def _type_of(key: str) -> Any:
    """Return the type of a key of the schema, without its "or null"; None for no key."""
    kind: Any = Config
    for name in key.split("."):
        hints = get_type_hints(kind) if isinstance(kind, type) else {}
        kind = hints.get(name)
    return next((one for one in get_args(kind) if isinstance(one, type)), kind)


def _places(begun: str) -> list[str]:
    """Return files and folders whose path begins like this; folders end with a slash."""
    head, slash, tail = begun.rpartition("/")
    folder = Path(head or ("/" if slash else ".")).expanduser()
    if not folder.is_dir():
        return []
    hidden = tail.startswith(".")
    return sorted(
        f"{head}{slash}{path.name}{'/' if path.is_dir() else ''}"
        for path in folder.iterdir()
        if path.name.startswith(tail) and (hidden or not path.name.startswith("."))
    )


def _folders(begun: str) -> list[str]:
    return [place for place in _places(begun) if place.endswith("/")]


def _beginning(words: Iterable[str], begun: str) -> list[str]:
    return [word for word in words if word.startswith(begun)]


def without_verb(typed: str) -> str:
    """Return the line without the command, "rlhf stage=" of "rlhf run stage=": Hydra has no commands."""
    program, _, rest = typed.partition(" ")
    for verb in COMPOSING:
        if rest.startswith(f"{verb} "):
            return f"{program} {rest.removeprefix(verb).lstrip()}"
    return typed


def run_names(runs_dir: Path) -> list[str]:
    """Return the folders of runs, sorted by name."""
    if not runs_dir.is_dir():
        return []
    return sorted(p.name for p in runs_dir.iterdir() if p.is_dir() and not p.name.startswith("."))
