"""Parse `rlhf show WORDS` and print the result."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rlhf_cli.config.completion import OF_SHOW
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.keys import did_you_mean, nearest
from rlhf_cli.report.compare import compare, differences
from rlhf_cli.report.places import find_run
from rlhf_cli.report.run_state import Headlines, read_run
from rlhf_cli.report.show import RUNS, as_json, print_json, show, show_runs
from rlhf_cli.report.study_table import print_compared
from rlhf_cli.report.task_study import task_study
from rlhf_cli.report.time_table import read_time, show_time


def parse(words: list[str]) -> argparse.Namespace:
    """Return places, time, json and runs_dir; an option that does not exist is refused."""
    parser = places_parser()
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parse_places(parser, words, command="show", options=OF_SHOW)


def places_parser() -> argparse.ArgumentParser:
    """Return a parser of the names or folders of runs, and of the folder that names are looked up in."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("places", nargs="*")
    parser.add_argument("--runs-dir", type=Path, default=RUNS)
    return parser


def parse_places(
    parser: argparse.ArgumentParser, words: list[str], *, command: str, options: Sequence[str]
) -> argparse.Namespace:
    """Return the parsed words of a command with these options."""
    try:
        found, unknown = parser.parse_known_intermixed_args(words)
    except argparse.ArgumentError as error:
        raise UserError(f"rlhf {command}: {error}") from error
    if unknown:
        meant = nearest(unknown[0].partition("=")[0], options)
        tail = did_you_mean([meant]) if meant else f": rlhf {command} --help lists them"
        raise UserError(f"rlhf {command} has no option {unknown[0]}{tail}")
    return _without_settings(found)


def _without_settings(found: argparse.Namespace) -> argparse.Namespace:
    """Apply runs_dir=DIR as `rlhf run` does and leave any other setting alone."""
    for word in [word for word in found.places if "=" in word]:
        key, _, value = word.partition("=")
        if key == "runs_dir":
            found.runs_dir = Path(value)
            found.places.remove(word)
    return found


def answer(asked: argparse.Namespace, headlines: Headlines) -> None:
    """Print the page or the JSON that was asked for."""
    if asked.time:
        _answer_time(asked, tuple(headlines))
    elif len(asked.places) > 1:
        _answer_comparison(asked, headlines)
    elif asked.json:
        place = asked.places[0] if asked.places else None
        print_json(as_json(place, asked.runs_dir, headlines))
    elif asked.places:
        show(asked.places[0], asked.runs_dir, headlines)
    else:
        show_runs(asked.runs_dir, tuple(headlines))


def _answer_time(asked: argparse.Namespace, stages: tuple[str, ...]) -> None:
    if not asked.places:
        raise UserError("--time needs a run: rlhf show RUN --time; rlhf show lists the runs")
    runs = [find_run(place, asked.runs_dir, stages) for place in asked.places]
    if asked.json:
        print_json({str(run): [asdict(one) for one in read_time(run, stages)] for run in runs})
        return
    for run in runs:
        show_time(run, stages)


def _answer_comparison(asked: argparse.Namespace, headlines: Headlines) -> None:
    stages = tuple(headlines)
    runs = [read_run(find_run(p, asked.runs_dir, stages), stages) for p in asked.places]
    columns = compare(runs, headlines)
    study = task_study([run.folder for run in runs])
    if asked.json:
        apart = differences(columns)
        print_json({"runs": [run.as_json() for run in runs], "differences": apart, "study": study})
    else:
        print_compared(columns, study)
