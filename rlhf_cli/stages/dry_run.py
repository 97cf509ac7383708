"""dry_run=true: print each selected stage's data and number of steps; nothing is trained."""

from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name

from rich.padding import Padding
from rich.text import Text

from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.telemetry.console import console, line, status


@dataclass(slots=True, kw_only=True)
class Preview:
    """What a stage shows of itself in a dry run.

    facts: label -> value, e.g. {"optimizer steps": "86"}. example: one as the model reads it, with its
    supervised tokens coloured. notes: cautions before the start.
    """

    facts: dict[str, str]
    example: Text | None = None
    notes: list[str] = field(default_factory=list)


def show_previews(cfg: Config, modules: dict[str, str], inputs: dict[str, Path]) -> None:
    """Load and tokenise one batch of each stage and print what it would learn from.

    modules: stage -> its module . inputs: stage -> folder, of the parents that exist
    """
    for name, module in modules.items():
        spec = STAGES[name]
        line(f"{name}: {spec.title}", style="bold")
        known = {parent: inputs[parent] for parent in spec.parents(cfg) if parent in inputs}
        with status("loading the libraries"):
            stage = resolve_name(module)
        _print(stage.preview(cfg, known))


def _print(preview: Preview) -> None:
    width = max((len(label) for label in preview.facts), default=0)
    for label, value in preview.facts.items():
        line(f"  {label:<{width}}  {value}")
    if preview.example is not None:
        console().print(Padding(preview.example, (1, 4)))
    for note in preview.notes:
        line(f"  {note}", style="yellow")
