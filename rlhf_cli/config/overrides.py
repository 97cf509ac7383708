"""Command-line arguments in Hydra's syntax: options, overrides, models, experiment files."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from rlhf_cli.config.keys import GROUPS, conf_dir, did_you_mean, nearest, nearest_keys
from rlhf_cli.config.schema import ConfigError
from rlhf_cli.config.stage_table import STAGES

FLAGS = (
    "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r", "--multirun", "-m",
    "--config-name", "-cn", "--config-dir", "-cd", "--info", "-i", "--hydra-help",
    "--shell-completion", "-sc",
)  # fmt: skip
VALUED = ("--cfg", "-c", "--package", "-p", "--config-name", "-cn", "--config-dir", "-cd")
DEFAULT_VALUES = {
    ("--cfg", "-c"): ("job", "hydra", "all"),
    ("--info", "-i"): ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
TAKING = (*VALUED, "--info", "-i")
YAML = (".yaml", ".yml")
SWEPT = ",([{$"  # a value with one of these is a sweep, a list or an interpolation, not a name
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def spelled_out(words: list[str]) -> list[str]:
    """Return the arguments with our additions to Hydra's syntax written in that syntax."""
    _check_flags(words)
    _check_bare(words)
    _check_groups(words)
    return _with_experiment(with_model(_with_flag_values(words)))


def _check_flags(words: list[str]) -> None:
    for word in words:
        flag = word.partition("=")[0]
        if flag in ("--config", "-f"):
            raise ConfigError(f"unknown option {flag}: a file of your own stands alone: my.yaml")
        if flag.startswith("-") and flag not in FLAGS:
            meant = nearest(flag, FLAGS, cutoff=0.75)
            raise ConfigError(f"unknown option {flag}{did_you_mean([meant] if meant else [])}")


def _check_bare(words: list[str]) -> None:
    """Refuse an argument without "=": it may be a stage, a preset, or the end of a key."""
    for word, before in zip(words, ["", *words], strict=False):
        if "=" in word or word.startswith(("-", "~")) or word.endswith(YAML) or before in TAKING:
            continue
        stage = [f"stage={word}"] if word in ("all", *STAGES) else []
        chosen = [f"{group}={word}" for group in GROUPS if word in presets(group, words)]
        meant = stage or chosen or [f"{key}=..." for key in nearest_keys(word)[:1]]
        raise ConfigError(f"cannot read {word!r}: expected key=value{did_you_mean(meant)}")


def _check_groups(words: list[str]) -> None:
    """Refuse Hydra's settings other than launcher and sweeper, and groups without a preset."""
    for word in words:
        key, equals, value = word.lstrip("+~").partition("=")
        if equals and not key:
            raise ConfigError(f"cannot read {word!r}: expected key=value, and the key is missing")
        if re.match(r"hydra[./]", key) and not re.match(r"hydra[./](launcher|sweeper)\b", key):
            from rlhf_cli.config.user_files import hydras_own

            raise ConfigError(hydras_own(key))
        if key in GROUPS and equals and value.strip("'\"") in ("", "null", "~"):
            raise ConfigError(
                f"{key}={value} is no choice: {key} is one of {', '.join(presets(key, words))}"
            )


def _with_flag_values(words: list[str]) -> list[str]:
    """Add the default of a bare `--cfg` or `--info`; argparse would take the next argument."""
    result = []
    for word, following in pairwise([*words, ""]):
        values = next((known for flags, known in DEFAULT_VALUES.items() if word in flags), None)
        result.append(f"{_long(word)}={values[0]}" if values and following not in values else word)
    return result


def _long(flag: str) -> str:
    return {"-c": "--cfg", "-i": "--info"}.get(flag, flag)


def with_model(words: list[str]) -> list[str]:
    """Replace model=<hub id or folder>, and model.path=<it> alone, by model=generic model.path=<it>."""
    result: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        is_other = key == "model" and equals and _is_no_preset(value.strip("'\""), words)
        result += ["model=generic", f"model.path={_quoted(value)}"] if is_other else [word]
    keys = [word.partition("=")[0] for word in result]
    return ["model=generic", *result] if "model.path" in keys and "model" not in keys else result


def _is_no_preset(value: str, words: list[str]) -> bool:
    known = presets("model", words)
    if value in known or any(sign in value for sign in SWEPT):
        return False
    place = Path(value).expanduser()
    if place.is_dir():
        return True
    if place.is_file():
        raise ConfigError(f"model={value} is a file: give its folder")
    if value.startswith((".", "/", "~")) or (value.count("/") and not HUB_ID.fullmatch(value)):
        raise ConfigError(f"model={value}: no such folder")
    if "/" in value:
        return True
    near = nearest(value, known)
    meant = [one for one in known if value.lower() in one] or ([near] if near else [])
    raise ConfigError(
        f"model={value} is no preset and no folder{did_you_mean([f'model={m}' for m in meant])} "
        f"(a hub model is org/name, or model.path={value}; presets: {', '.join(known)})"
    )


def presets(group: str, words: list[str]) -> list[str]:
    """Return the presets of a group: the shipped ones, and those of --config-dir."""
    own = [Path(folder).expanduser() for folder in values_of(words, ("--config-dir", "-cd"))]
    return sorted(
        {path.stem for folder in [conf_dir(), *own] for path in (folder / group).glob("*.yaml")}
    )


def values_of(words: list[str], flags: tuple[str, ...]) -> Iterator[str]:
    for word, following in pairwise([*words, ""]):
        if word in flags and following:
            yield following
        elif word.partition("=")[0] in flags and "=" in word:
            yield word.partition("=")[2]


def _quoted(value: str) -> str:
    if value[:1] in ("'", '"'):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def experiment_files(words: list[str]) -> list[Path]:
    """Return the files named by arguments such as my.yaml and experiment=folder/my.yaml."""
    return [path for word in words for path in _files_of(word, words)]


def _files_of(word: str, words: list[str]) -> list[Path]:
    key, equals, value = word.partition("=")
    if not equals and word.endswith(YAML) and not word.startswith("-"):
        if any(word in (given, following) for given, following in _with_values(words)):
            return []
        return [_existing(word)]
    if key != "experiment":
        return []
    return [
        _existing(part)
        for part in value.strip("[]").replace("'", "").replace('"', "").split(",")
        if part.endswith(YAML) and not _is_preset_file(part, words)
    ]


def _with_values(words: list[str]) -> Iterator[tuple[str, str]]:
    """Return (option, value) of the options that take a value, which is no experiment."""
    return ((w, f) for w, f in pairwise([*words, ""]) if w in VALUED)


def _is_preset_file(part: str, words: list[str]) -> bool:
    """Return whether it is try.yaml of a folder of presets, and not of the current folder."""
    return not Path(part).is_file() and Path(part).stem in presets("experiment", words)


def _existing(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(f"{name}: no such file")
    return path


def _with_experiment(words: list[str]) -> list[str]:
    """Return the arguments with each file as the preset that `user_files` offers for it."""
    from rlhf_cli.config.user_files import choice_of

    result: list[str] = []
    for word in words:
        for path in _files_of(word, words):
            given = next(name for name in _names_in(word) if Path(name).expanduser() == path)
            word = word.replace(given, f"'{choice_of(path)}'", 1)
            word = word if word.startswith("experiment=") else f"experiment={word}"
        result.append(word)
    chosen = [word for word in result if word.startswith("experiment=")]
    if len(chosen) > 1 and len(chosen) > sum(word.startswith("experiment=") for word in words):
        raise ConfigError(f"two experiments are given, {' and '.join(chosen)}: give one")
    return result


def _names_in(word: str) -> list[str]:
    return re.split(r"[\[\],'\"]", word.removeprefix("experiment="))
