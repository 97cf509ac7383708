"""`rlhf report`: runs as one HTML file that needs neither network nor other files.

Names, commands and texts of runs are data: they stand in the page as JSON, from which its script makes
text. The content security policy admits the styles and scripts of this file alone, by a nonce.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf_cli import __version__
from rlhf_cli.artifacts.manifest import read_manifest
from rlhf_cli.artifacts.store import write_errors, write_text
from rlhf_cli.config.completion import OF_REPORT
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.printable import one_line
from rlhf_cli.report.page_content import content_of
from rlhf_cli.report.places import find_run
from rlhf_cli.report.run_files import read_files
from rlhf_cli.report.run_state import RunState, read_run
from rlhf_cli.report.show import finite
from rlhf_cli.report.show_request import parse_places, places_parser
from rlhf_cli.report.task_study import task_study
from rlhf_cli.telemetry.console import line

HERE = Path(__file__).parent
LIBRARIES = HERE / "assets"
PAGE = "report.html"
STYLE, SCRIPTS = "page.css", ("page_charts.js", "page_answers.js", "page.js")
# The hash of the style element that Plot adds to each chart, for the content security policy.
PLOT_STYLE = "sha256-jSYQUrW7J0b3jPqhZP9C2Xh1PyJKHKXd4s0fpGGKrww="


def parse(words: list[str]) -> argparse.Namespace:
    """Return places, out and runs_dir; an option that does not exist is refused."""
    parser = places_parser()
    parser.add_argument("--out", type=Path)
    return parse_places(parser, words, command="report", options=OF_REPORT)


def report(asked: argparse.Namespace, stages: tuple[str, ...]) -> None:
    """Write the page of the runs that were asked for, and print its path."""
    if not asked.places:
        raise UserError("rlhf report needs a run: rlhf report RUN; rlhf show lists the runs")
    folders = list(dict.fromkeys(find_run(one, asked.runs_dir, stages) for one in asked.places))
    runs = [_begun(read_run(folder, stages)) for folder in folders]
    out = (asked.out or _place(folders)).expanduser()
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file in it, {out / PAGE}")
    text = page_of(runs)
    with write_errors(out, "give another file by --out FILE"):
        write_text(out, text)
    line(str(out), whole=True)


def write_page(run: Path, stages: tuple[str, ...]) -> Path:
    """Write the page of a run whose stages have just been made or verified, and return its path.

    The files of models, which may be large, are not hashed again.
    """
    write_text(run / PAGE, page_of([read_run(run, stages, opened=read_manifest)]))
    return run / PAGE


def page_of(runs: Sequence[RunState]) -> str:
    """Return the page of these runs, each of which has a finished stage."""
    study = task_study([run.folder for run in runs if "evaluate" in run.manifests])
    return render(content_of([read_files(run) for run in runs], study))


def _begun(run: RunState) -> RunState:
    """Return the run; refuse one of which no stage can be read."""
    if run.manifests:
        return run
    reason = f": {run.problems[0]}" if run.problems else f": rlhf run name={run.name} makes them"
    raise UserError(f"{run.folder} has no finished stage{reason}")


def _place(folders: Sequence[Path]) -> Path:
    """Return the page's place: in the run, of several in the folder of all of them."""
    if len(folders) == 1:
        return folders[0] / PAGE
    parents = {folder.resolve().parent for folder in folders}
    if len(parents) > 1:
        raise UserError("these runs are in different folders: give the page's file by --out FILE")
    return folders[0].parent / PAGE


def render(content: dict[str, Any]) -> str:
    """Return the page. The same content gives the same page: the nonce is the hash of what it holds."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from jinja2.utils import htmlsafe_json_dumps
    from markupsafe import Markup

    style, *scripts = ((HERE / name).read_text(encoding="utf-8") for name in (STYLE, *SCRIPTS))
    try:
        text = htmlsafe_json_dumps(content, allow_nan=False)
    except ValueError:  # a number that is not finite
        text = htmlsafe_json_dumps(finite(content), allow_nan=False)
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html.j2").render(
        title=one_line(content["title"]),
        version=__version__,
        content=text,
        nonce=hashlib.sha256("".join([style, *scripts, text]).encode()).hexdigest(),
        plot_style=PLOT_STYLE,
        style=Markup(style),
        script=Markup("\n".join(scripts)),
        libraries=[
            one
            | {
                key: Markup((LIBRARIES / one[file]).read_text(encoding="utf-8"))
                for key, file in (("text", "file"), ("notice", "license"))
            }
            for one in libraries()
        ],
    )


def libraries() -> list[dict[str, str]]:
    """Return the committed libraries in the order of their use, each with version, source and hash."""
    return json.loads((LIBRARIES / "libraries.json").read_text(encoding="utf-8"))
