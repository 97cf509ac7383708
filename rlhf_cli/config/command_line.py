"""Command-line words -> Hydra -> `Config`, with all of Hydra's grammar and none of its litter.

Hydra writes nothing but a sweep's multirun.yaml, and its errors are retold in one line.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlhf_cli.config.compose import conf_dir, resolve
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.explain import explain
from rlhf_cli.config.keys import did_you_mean, nearest
from rlhf_cli.config.printable import one_line
from rlhf_cli.config.schema import Config, ConfigError

NO_LITTER = (
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.sweep.dir=${runs_dir}/.sweeps/${now:%Y-%m-%d_%H-%M-%S}",
    "hydra.sweep.subdir=.",
)
FLAGS = (
    "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r", "--multirun", "-m",
    "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
    "--experimental-rerun", "--info", "-i", "--hydra-help", "--version",
)  # fmt: skip
VALUED = (
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn",
    "--config-dir", "-cd", "--experimental-rerun",
)  # fmt: skip
SWEPT = ",([{$"  # a value with one of these is a sweep, a list or an interpolation, not a name


class _EndOfSweep(BaseException):
    """Leaves Hydra's sweep at once; a job's ordinary exception would let the later ones run."""


def compose_each(words: list[str], job: Callable[[Config], None]) -> None:
    """Call `job` with the configuration, once for every job of a sweep; raise what went wrong."""
    _check_flags(words)
    failures: list[Exception] = []

    def task(composed) -> None:
        try:
            job(_named(resolve(composed), words))
        except Exception as error:  # noqa: BLE001 - raised again below, past Hydra's own words
            failures.append(error)
            _go_on_or_stop(error)

    with suppress(_EndOfSweep):
        _hydra([*with_model(words), *NO_LITTER, *_resolved(words)], task)
    if len(failures) > 1:
        raise UserError(f"{len(failures)} runs of the sweep failed; the first: {failures[0]}")
    if failures:
        raise failures[0]


def _go_on_or_stop(error: Exception) -> None:
    """A failed job of a sweep is told and the next one starts; Ctrl-C ends them all."""
    if getattr(error, "code", None) == 130 or not _sweeping():
        raise _EndOfSweep from error
    print(f"rlhf: {one_line(str(error))}", file=sys.stderr)


def _hydra(words: list[str], task: Callable) -> None:
    """Run Hydra on `words`; whatever Hydra itself refuses is one ConfigError."""
    import hydra

    app = hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")
    with _as_command_line(_options_first(words)):
        try:
            app(task)()
        except UserError:
            raise
        except Exception as error:
            raise ConfigError(explain(error)) from error


@contextmanager
def _as_command_line(words: list[str]) -> Iterator[None]:
    """Hydra reads sys.argv, and hides its exceptions unless this variable is set."""
    argv, shown = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["rlhf", *words]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        os.environ.pop("HYDRA_FULL_ERROR")
        if shown is not None:
            os.environ["HYDRA_FULL_ERROR"] = shown


def _options_first(words: list[str]) -> list[str]:
    """argparse refuses overrides on both sides of an option."""
    options, overrides = [], []
    for word, before in zip(words, ["", *words], strict=False):
        is_option = word.startswith("-") or before in VALUED
        (options if is_option else overrides).append(word)
    return [*options, *overrides]


def _sweeping() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def choices() -> dict[str, str]:
    """group -> the file it was taken from, for the configuration that is being composed now."""
    from hydra.core.hydra_config import HydraConfig

    return dict(HydraConfig.get().runtime.choices) if HydraConfig.initialized() else {}


def _named(config: Config, words: list[str]) -> Config:
    """Each job of a sweep is a run of its own: its name ends with what the sweep gave it."""
    if _sweeping():
        from hydra.core.hydra_config import HydraConfig

        swept = [o for o in HydraConfig.get().overrides.task if o not in with_model(words)]
        own = [o.replace("/", "_") for o in swept if not o.startswith("name=")]
        config.name = "-".join([config.name, *own])
    return config


def _check_flags(words: list[str]) -> None:
    for word in words:
        flag = word.partition("=")[0]
        if flag.startswith("-") and flag not in FLAGS:
            meant = nearest(flag, FLAGS, cutoff=0.75)
            raise ConfigError(f"unknown option {flag}{did_you_mean([meant] if meant else [])}")


def _resolved(words: list[str]) -> list[str]:
    """`--cfg job` shows values, not interpolations."""
    asked = any(word.partition("=")[0] in ("--cfg", "-c") for word in words)
    return ["--resolve"] if asked and "--resolve" not in words else []


def with_model(words: list[str]) -> list[str]:
    """model=<hub id or folder> is model=generic model.path=<it>; so is a lone model.path=<it>."""
    result: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        is_other = key == "model" and equals and _is_no_preset(value.strip("'\""), words)
        result += ["model=generic", f"model.path={_quoted(value)}"] if is_other else [word]
    keys = [word.partition("=")[0] for word in result]
    return ["model=generic", *result] if "model.path" in keys and "model" not in keys else result


def _is_no_preset(value: str, words: list[str]) -> bool:
    presets = _presets("model", words)
    if value in presets or not value or value == "null" or any(sign in value for sign in SWEPT):
        return False
    if "/" in value or Path(value).expanduser().is_dir():
        return True
    if meant := nearest(value, presets):
        raise ConfigError(
            f"model={value} is no preset and no folder: did you mean model={meant}? "
            f"(for the hub model of that name: model.path={value}; presets: {', '.join(presets)})"
        )
    return True


def _presets(group: str, words: list[str]) -> list[str]:
    """Choices of a group: the shipped ones, and those of --config-dir."""
    folders = [conf_dir(), *(Path(own) for own in _values_of(words, ("--config-dir", "-cd")))]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def _values_of(words: list[str], flags: tuple[str, ...]) -> Iterator[str]:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in flags and following:
            yield following
        elif word.partition("=")[0] in flags and "=" in word:
            yield word.partition("=")[2]


def _quoted(value: str) -> str:
    if value[:1] in ("'", '"'):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def complete(words: list[str]) -> None:
    """Shell completion: Hydra completes keys and values, the verb is taken out of its way."""
    from rlhf_cli.config.completion import own_words, without_verb

    typed = os.environ.get("COMP_LINE", "")
    asked = any(word.startswith("query") for word in words)
    if asked and (own := own_words(typed)) is not None:
        print(" ".join(own))
        return
    if asked:
        os.environ["COMP_LINE"] = without_verb(typed)
    _hydra(words, lambda composed: None)
