"""From command-line arguments to `Config`: Hydra's syntax without its output folders.

Hydra writes nothing but a sweep's multirun.yaml, and each of its errors becomes one line.
"""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

from rlhf_cli.config.compose import resolve
from rlhf_cli.config.error_messages import explain
from rlhf_cli.config.errors import ExitCode, UserError
from rlhf_cli.config.keys import conf_dir
from rlhf_cli.config.overrides import VALUED, experiment_files, spelled_out
from rlhf_cli.config.printable import one_line
from rlhf_cli.config.schema import ConfigError
from rlhf_cli.config.schema.run import Config, is_folder_name

NO_OUTPUT_FOLDERS = (
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.sweep.dir=${runs_dir}/.sweeps/${now:%Y-%m-%d_%H-%M-%S}",
    "hydra.sweep.subdir=.",
)


class _EndOfSweep(BaseException):
    """Ends Hydra's sweep immediately; after an ordinary exception of a job the later jobs would run."""


def compose_each(words: list[str], job: Callable[[Config], None]) -> None:
    """Call `job` with the configuration, once per job of a sweep; raise its error."""
    failures: list[Exception] = []

    def task(composed) -> None:
        try:
            job(_named(resolve(composed), words))
        except Exception as error:  # noqa: BLE001 - raised again below, not reported by Hydra
            failures.append(error)
            _continue_or_stop(error)

    with suppress(_EndOfSweep):
        _hydra(words, task)
    if len(failures) > 1:
        raise UserError(f"{len(failures)} runs of the sweep failed; the first: {failures[0]}")
    if failures:
        raise failures[0]


def _continue_or_stop(error: Exception) -> None:
    """Print the error of a failed job, so that the next one starts; end the sweep after Ctrl-C."""
    if _is_interruption(error) or not _sweeping():
        raise _EndOfSweep from error
    print(f"rlhf: {one_line(str(error))}", file=sys.stderr)


def _is_interruption(error: Exception) -> bool:
    return isinstance(error, UserError) and error.code == ExitCode.INTERRUPTED


def _hydra(words: list[str], task: Callable) -> None:
    """Let Hydra process the arguments; raise one ConfigError for whatever Hydra itself refuses."""
    from hydra.core.global_hydra import GlobalHydra

    try:
        with _library_errors_in_one_line():
            args = _arguments(words)
            hydra = _open_hydra(args, experiment_files(words))
            _execute(hydra, args, task)
    finally:
        GlobalHydra.instance().clear()


@contextmanager
def _library_errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(explain(error)) from error


def _arguments(words: list[str]) -> Namespace:
    """Return Hydra's options and overrides; argparse refuses overrides on both sides of an option."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.error = _refuse
    args = parser.parse_args(_options_first(spelled_out(words)))
    args.parser = parser
    args.own_files = bool(args.config_dir or args.config_name or experiment_files(words))
    if not args.shell_completion:
        args.overrides += NO_OUTPUT_FOLDERS
    return args


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}: rlhf run --help lists the options")


def _open_hydra(args: Namespace, experiments: list[Path]) -> Any:
    """Return Hydra with the user's files first on its search path, then the shipped ones."""
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery

    from rlhf_cli.config import user_files

    version.setbase("1.3")
    user_files.register()
    path = create_config_search_path(str(conf_dir()))
    own = [("own", Path(args.config_dir).expanduser().resolve())] if args.config_dir else []
    if own and not own[0][1].is_dir():
        raise ConfigError(f"--config-dir {args.config_dir}: no such folder")
    for scheme, place in own + [("experiment-file", file.resolve()) for file in experiments]:
        path.prepend("command-line", f"{scheme}://{place}", SearchPathQuery(provider="main"))
    return Hydra.create_main_hydra2("rlhf", path)


def _execute(hydra: Any, args: Namespace, task: Callable) -> None:
    name, overrides = args.config_name or "config", args.overrides
    if args.shell_completion:
        hydra.shell_completion(config_name=name, overrides=overrides)
    elif args.hydra_help:
        hydra.hydra_help(config_name=name, args_parser=args.parser, args=args)
    elif args.info:
        hydra.show_info(args.info, config_name=name, overrides=overrides)
    elif args.cfg:
        hydra.show_cfg(
            config_name=name, overrides=overrides, cfg_type=args.cfg, package=args.package,
            resolve=True,
        )  # fmt: skip
    elif args.multirun:
        _composed(hydra, args, name)
        hydra.multirun(config_name=name, task_function=task, overrides=overrides)
    else:
        task(_without_hydra(_composed(hydra, args, name)))


def _composed(hydra: Any, args: Namespace, name: str) -> Any:
    """Return the values of all files and overrides, with Hydra's own settings, checked."""
    from hydra.types import RunMode

    from rlhf_cli.config.user_files import require_own_settings

    mode = RunMode.MULTIRUN if args.multirun else RunMode.RUN
    args.overrides.append(f"hydra.mode={mode.name}")
    composed = hydra.compose_config(config_name=name, overrides=args.overrides, run_mode=mode)
    if args.own_files:
        pristine = hydra.compose_config(
            config_name=None,
            overrides=[*NO_OUTPUT_FOLDERS, f"hydra.mode={mode.name}"],
            run_mode=mode,
        )
        require_own_settings(composed, pristine)
    return composed


def _without_hydra(composed: Any) -> Any:
    """Return the values without Hydra's settings, which `HydraConfig` keeps for `choices`."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    HydraConfig.instance().set_config(composed)
    return OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])


def _options_first(words: list[str]) -> list[str]:
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
    """Return {group: chosen file} of the configuration that is being composed."""
    from hydra.core.hydra_config import HydraConfig

    return dict(HydraConfig.get().runtime.choices) if HydraConfig.initialized() else {}


def _named(config: Config, words: list[str]) -> Config:
    """Return the configuration; in a sweep its name ends with the values of the job."""
    if not _sweeping():
        return config
    from hydra.core.hydra_config import HydraConfig

    given = {key for word in spelled_out(words) for key in _fixed(word)}
    swept = [o for o in HydraConfig.get().overrides.task if o.partition("=")[0] not in given]
    own = [re.sub(r"['\"]", "", o).replace("/", "_") for o in swept if not o.startswith("name=")]
    name = "-".join([config.name, *own])
    if not is_folder_name(name):  # too long, as a rule
        name = f"{config.name[:100]}-{sha256(name.encode()).hexdigest()[:12]}"
    return replace(config, name=name)


def _fixed(word: str) -> list[str]:
    """Return the key of an override that has one value in all jobs; Hydra writes the value differently."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if "=" not in word or word.startswith("-"):
        return []
    override = OverridesParser.create().parse_override(word)
    return [] if override.is_sweep_override() else [override.get_key_element()]


def complete(words: list[str]) -> None:
    """Print shell completions: our own, or Hydra's of keys and values, without the command."""
    from rlhf_cli.config.completion import own_words, without_verb

    typed = os.environ.get("COMP_LINE", "")
    asked = any(word.startswith("query") for word in words)
    if asked and (own := own_words(typed)) is not None:
        print(" ".join(own))
        return
    if asked:
        os.environ["COMP_LINE"] = without_verb(typed)
    _hydra(words, lambda composed: None)
