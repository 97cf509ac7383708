"""The commands of `rlhf`. An error is one line on stderr saying what to do, and an exit code:

2 for a request that cannot be carried out as asked, 1 for a run that failed, 130 for Ctrl-C.
Nothing slow is imported before a command needs it: `rlhf --help` must start fast.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_cli import __version__
from rlhf_cli.config.environment import TRACEBACK
from rlhf_cli.config.errors import ExitCode, UserError
from rlhf_cli.config.printable import drop_output, one_line, ready_streams

if TYPE_CHECKING:
    from rlhf_cli.config.schema.run import Config


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    ready_streams()
    try:
        code = _dispatch(words) or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _complain("stopped", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        drop_output()
        return 0
    except UserError as error:
        return _complain(str(error), error.code)
    except Exception as error:  # noqa: BLE001 - a newcomer never meets a traceback unasked
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return _complain(f"unexpected {reason} (RLHF_TRACEBACK=1 shows where)", ExitCode.FAILURE)


def _complain(message: str, code: int) -> int:
    if os.environ.get(TRACEBACK) == "1":
        traceback.print_exc()
    print(f"rlhf: {one_line(message)}", file=sys.stderr)
    return code


def _dispatch(words: list[str]) -> int | None:
    verb, rest = (words[0], words[1:]) if words else ("--help", [])
    if verb in ("-sc", "--shell-completion"):
        return _complete(words)
    if verb not in VERBS:
        return _unknown_verb(verb)
    if "--version" in rest:
        return _version(rest)
    return VERBS[verb](rest)


def _unknown_verb(verb: str) -> int:
    from rlhf_cli.config.keys import nearest
    from rlhf_cli.config.overrides import YAML
    from rlhf_cli.config.stage_table import STAGES
    from rlhf_cli.config.suggestions import COMMANDS, OTHER_METHODS, STAGE_WORDS

    if "=" in verb or verb.startswith(("+", "~", "-")) or verb.endswith(YAML):
        raise UserError(f"{verb!r} is no command: did you mean rlhf run {verb}?")
    word = verb.lower().replace("-", "_")
    if stage := word if word in STAGES else STAGE_WORDS.get(word):
        raise UserError(f"{verb!r} is no command: did you mean rlhf run stage={stage}?")
    if word in COMMANDS:
        raise UserError(f"there is no command {verb!r}: {COMMANDS[word]}")
    if word in OTHER_METHODS:
        raise UserError(f"{verb!r} is not there: the stages are {', '.join(STAGES)}")
    meant = nearest(verb, [name for name in VERBS if not name.startswith("-")])
    tail = f": did you mean rlhf {meant}?" if meant else ": rlhf --help lists the commands"
    raise UserError(f"{verb!r} is no command{tail}")


def _help(rest: list[str]) -> None:
    from rlhf_cli.report.help import print_help

    print_help()


def _version(rest: list[str]) -> None:
    print(f"rlhf {__version__}")


def _run(rest: list[str]) -> int | None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # "save and continue", before anything runs
    if wants_help(rest):
        from rlhf_cli.config.stage_table import STAGES
        from rlhf_cli.report.help import print_run_help

        return print_run_help({spec.name: spec.title for spec in STAGES.values()})
    from rlhf_cli.config.command_line import compose_each
    from rlhf_cli.pipeline.driver import run
    from rlhf_cli.pipeline.messages import close_sweep

    made: list[Path] = []

    def job(cfg: "Config") -> None:
        if folder := run(cfg, command=["rlhf", "run", *rest]):
            made.append(folder)

    try:
        return compose_each(rest, job)
    finally:
        if len(made) > 1:
            close_sweep(made)


def _config(rest: list[str]) -> int | None:
    from rlhf_cli.config.command_line import compose_each
    from rlhf_cli.config.compose import freeze
    from rlhf_cli.report.config_page import print_config, split_sections

    if wants_help(rest):
        from rlhf_cli.report.help import print_config_help

        return print_config_help()
    sections, overrides = split_sections(rest)
    return compose_each(overrides, lambda cfg: print_config(freeze(cfg), sections))


def _show(rest: list[str]) -> None:
    from rlhf_cli.config.stage_table import STAGES
    from rlhf_cli.report.help import print_show_help
    from rlhf_cli.report.show_request import answer, parse

    if wants_help(rest):
        print_show_help()
    else:
        answer(parse(rest), {name: spec.headline for name, spec in STAGES.items()})


def _report(rest: list[str]) -> None:
    from rlhf_cli.config.stage_table import STAGES

    if wants_help(rest):
        from rlhf_cli.report.help import print_report_help

        print_report_help()
    else:
        from rlhf_cli.report.page import parse, report

        report(parse(rest), tuple(STAGES))


def _lm_eval(rest: list[str]) -> None:
    if wants_help(rest):
        from rlhf_cli.report.help import print_lm_eval_help

        print_lm_eval_help()
        return
    from rlhf_cli.pipeline.lm_eval_request import read_request

    request = read_request(rest)
    from rlhf_cli.evaluation.lm_harness import evaluate
    from rlhf_cli.report.lm_eval_table import keep_and_print, print_request

    print_request(request)
    keep_and_print(request, evaluate(request))


def _data(rest: list[str]) -> int | None:
    if rest[:1] not in ([], ["check"]) and not wants_help(rest):
        raise UserError(f"rlhf data {rest[0]} is no command: did you mean rlhf data check?")
    if wants_help(rest) or rest[:1] != ["check"]:
        from rlhf_cli.report.help import print_data_help

        print_data_help()
        return 0 if wants_help(rest) else ExitCode.USAGE
    from rlhf_cli.config.command_line import compose_each
    from rlhf_cli.pipeline.check_request import read_words
    from rlhf_cli.pipeline.data_check import check_data

    request = read_words(rest[1:])
    return compose_each(request.words, lambda cfg: check_data(cfg, request))


def _complete(words: list[str]) -> int | None:
    from rlhf_cli.config.command_line import complete

    return complete(words)


def wants_help(words: list[str]) -> bool:
    return "--help" in words or "-h" in words


VERBS: dict[str, Callable[[list[str]], int | None]] = {
    "run": _run,
    "config": _config,
    "show": _show,
    "report": _report,
    "lm-eval": _lm_eval,
    "data": _data,
    "--help": _help,
    "-h": _help,
    "help": _help,
    "--version": _version,
}
