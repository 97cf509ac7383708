"""Command-line words -> Hydra -> `Config`, with all of Hydra's grammar and none of its litter.

Hydra writes nothing but a sweep's multirun.yaml, and its errors are retold in one line.
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

from rlhf_cli.config.compose import conf_dir, resolve
from rlhf_cli.config.errors import ExitCode, UserError
from rlhf_cli.config.explain import explain
from rlhf_cli.config.printable import one_line
from rlhf_cli.config.schema import Config, ConfigError, is_folder_name
from rlhf_cli.config.words import VALUED, experiment_files, spelled_out

NO_LITTER = (
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.sweep.dir=${runs_dir}/.sweeps/${now:%Y-%m-%d_%H-%M-%S}",
    "hydra.sweep.subdir=.",
)


class _EndOfSweep(BaseException):
    """Leaves Hydra's sweep at once; a job's ordinary exception would let the later ones run."""


def compose_each(words: list[str], job: Callable[[Config], None]) -> None:
    """Call `job` with the configuration, once for every job of a sweep; raise what went wrong."""
    failures: list[Exception] = []

    def task(composed) -> None:
        try:
            job(_named(resolve(composed), words))
        except Exception as error:  # noqa: BLE001 - raised again below, past Hydra's own words
            failures.append(error)
            _go_on_or_stop(error)

    with suppress(_EndOfSweep):
        _hydra(words, task)
    if len(failures) > 1:
        raise UserError(f"{len(failures)} runs of the sweep failed; the first: {failures[0]}")
    if failures:
        raise failures[0]


def _go_on_or_stop(error: Exception) -> None:
    """A failed job of a sweep is told and the next one starts; Ctrl-C ends them all."""
    if _is_interruption(error) or not _sweeping():
        raise _EndOfSweep from error
    print(f"rlhf: {one_line(str(error))}", file=sys.stderr)


def _is_interruption(error: Exception) -> bool:
    return isinstance(error, UserError) and error.code == ExitCode.INTERRUPTED


def _hydra(words: list[str], task: Callable) -> None:
    """Let Hydra do what `words` ask; whatever Hydra itself refuses is one ConfigError."""
    from hydra.core.global_hydra import GlobalHydra

    try:
        with _errors_retold():
            args = _arguments(words)
            hydra = _opened(args, experiment_files(words))
            _carry_out(hydra, args, task)
    finally:
        GlobalHydra.instance().clear()


@contextmanager
def _errors_retold() -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(explain(error)) from error


def _arguments(words: list[str]) -> Namespace:
    """Hydra's own options; argparse refuses overrides on both sides of an option."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.error = _refuse
    args = parser.parse_args(_options_first(spelled_out(words)))
    args.parser = parser
    args.own_files = bool(args.config_dir or args.config_name or experiment_files(words))
    if not args.shell_completion:
        args.overrides += NO_LITTER
    return args


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}: rlhf run --help lists the options")


def _opened(args: Namespace, experiments: list[Path]) -> Any:
    """Hydra, looking first into the user's own files, then into ours."""
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery

    from rlhf_cli.config import own_files

    version.setbase("1.3")
    own_files.register()
    path = create_config_search_path(str(conf_dir()))
    own = [("own", Path(args.config_dir).expanduser().resolve())] if args.config_dir else []
    if own and not own[0][1].is_dir():
        raise ConfigError(f"--config-dir {args.config_dir}: no such folder")
    for scheme, place in own + [("experiment-file", file.resolve()) for file in experiments]:
        path.prepend("command-line", f"{scheme}://{place}", SearchPathQuery(provider="main"))
    return Hydra.create_main_hydra2("rlhf", path)


def _carry_out(hydra: Any, args: Namespace, task: Callable) -> None:
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
        task(_alone(_composed(hydra, args, name)))


def _composed(hydra: Any, args: Namespace, name: str) -> Any:
    """The values of all files and words, and Hydra's own settings, which files may hardly change."""
    from hydra.types import RunMode

    from rlhf_cli.config.own_files import require_own_settings

    mode = RunMode.MULTIRUN if args.multirun else RunMode.RUN
    args.overrides.append(f"hydra.mode={mode.name}")
    composed = hydra.compose_config(config_name=name, overrides=args.overrides, run_mode=mode)
    if args.own_files:
        pristine = hydra.compose_config(
            config_name=None, overrides=[*NO_LITTER, f"hydra.mode={mode.name}"], run_mode=mode
        )
        require_own_settings(composed, pristine)
    return composed


def _alone(composed: Any) -> Any:
    """Our own values; Hydra's are told to `HydraConfig`, for `choices` and interpolations."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    HydraConfig.instance().set_config(composed)
    own = composed.copy()
    with open_dict(own):
        del own["hydra"]
    return own


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
    """group -> the file it was taken from, for the configuration that is being composed now."""
    from hydra.core.hydra_config import HydraConfig

    return dict(HydraConfig.get().runtime.choices) if HydraConfig.initialized() else {}


def _named(config: Config, words: list[str]) -> Config:
    """Each job of a sweep is a run of its own: its name ends with what the sweep gave it."""
    if not _sweeping():
        return config
    from hydra.core.hydra_config import HydraConfig

    given = spelled_out(words)
    swept = [o for o in HydraConfig.get().overrides.task if o not in given]
    own = [re.sub(r"['\"]", "", o).replace("/", "_") for o in swept if not o.startswith("name=")]
    name = "-".join([config.name, *own])
    if not is_folder_name(name):  # too long, as a rule
        name = f"{config.name[:100]}-{sha256(name.encode()).hexdigest()[:12]}"
    return replace(config, name=name)


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
