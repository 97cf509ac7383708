"""The study of instruction tuning on the screen: paradigms by cluster means, curves and scale."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rich.table import Table
from rich.text import Text

from rlhf_cli.config.printable import one_line
from rlhf_cli.report.compare import Column
from rlhf_cli.report.comparison_page import print_comparison
from rlhf_cli.report.table import framed, number, print_notes
from rlhf_cli.report.task_table import heading_of
from rlhf_cli.telemetry.console import console, plain_name, print_blocks

PARADIGMS = {
    "prompting": "prompting",
    "finetuned": "finetuned on the task",
    "instruction_tuned": "instruction tuned",
}
NOTES = (
    "prompting: base model; instruction tuned: SFT on tasks of other clusters",
    "±: standard deviation over templates",
    "[low, high]: 95 % interval over seeds, of one run over rows",
)
MEAN = "mean of clusters"
CURVES = {
    "clusters": "unseen clusters, by number of clusters trained on",
    "templates": "unseen clusters, by templates per task",
}
MOST_SIDE_BY_SIDE = 12
Found = Mapping[str, Any]


def print_study(study: Found) -> None:
    """Print the paradigms where there are several, the curves and the scale that a study has."""
    if means := compared(study):
        clusters = list(means[0]["clusters"])
        several = clusters if len(clusters) > 1 else []
        print_blocks([MEAN, *several], lambda some: _means_table(means, some))
        print_notes(NOTES)
    for key, title in CURVES.items():
        if points := study.get(f"{key}_curve"):
            _print_points(title, points, {key: partial(_text, key)} | FIGURES)
    if scale := study.get("scale"):
        _print_points("unseen clusters, by model", scale["points"], OF_MODELS | FIGURES)
        slopes = ", ".join(f"{name} {slope:.3f}" for name, slope in scale["slopes"].items())
        print_notes([f"slope of log loss over log parameters: {slopes or 'not known'}"])


def print_compared(columns: Sequence[Column], study: Found) -> None:
    """Print runs side by side, then what they have of a study; of many runs with one that alone."""
    if not study or len(columns) <= MOST_SIDE_BY_SIDE:
        print_comparison(columns)
    print_study(study)


def compared(study: Found) -> Sequence[Found]:
    """Return the means of the paradigms where there is more than one paradigm."""
    means = study.get("means", ())
    return means if len({bar["paradigm"] for bar in means}) > 1 else ()


def _means_table(means: Sequence[Found], columns: Sequence[str]) -> Table:
    table = framed("three paradigms: direct answers, mean of clusters and each cluster")
    for name in columns:
        table.add_column(heading_of(name), justify="right", no_wrap=True)
    for bar in means:
        about = one_line(f"{bar['model']}, {bar['shots']}-shot, runs: {bar['runs']}")
        label = Text.assemble(PARADIGMS[bar["paradigm"]], (f"\n{about}", "dim"))
        cells = (_cell(bar) if n == MEAN else f"{bar['clusters'][n]:.2f}" for n in columns)
        table.add_row(label, *cells)
    return table


def _cell(bar: Found) -> Text:
    spread = bar["template_std"]
    return Text.assemble(
        number(bar["value"], bar["high"] - bar["low"]),
        ("" if spread is None else f" ±{spread:.2f}", "dim"),
        (f"\n{interval(bar)}", "dim"),
    )


def _print_points(
    title: str, points: Sequence[Found], columns: Mapping[str, Callable[[Found], str]]
) -> None:
    """Print a curve as a table with a line per point. columns: {heading: the text of a point}."""
    table = framed(title, first=next(iter(columns)))
    for name in list(columns)[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for point in points:
        table.add_row(*(plain_name(text_of(point)) for text_of in columns.values()))
    console().print(table)


def _text(key: str, point: Found) -> str:
    return str(point[key])


def interval(point: Found) -> str:
    """Return [0.45, 0.55]."""
    width = point["high"] - point["low"]
    return f"[{number(point['low'], width)}, {number(point['high'], width)}]"


FIGURES: dict[str, Callable[[Found], str]] = {
    "accuracy": lambda p: number(p.get("value", p.get("accuracy")), p["high"] - p["low"]),
    "95 % interval": interval,
    "runs": lambda p: str(p["runs"]),
}
OF_MODELS: dict[str, Callable[[Found], str]] = {
    "model": lambda p: f"{p['model']}, {'tuned' if p['tuned'] else 'base'}",
    "parameters": lambda p: f"{p['parameters']:,}",
    "loss": lambda p: "-" if p["loss"] is None else f"{p['loss']:.3f}",
}
