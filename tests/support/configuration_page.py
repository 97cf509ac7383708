"""The tables of docs/configuration.md, written from conf/: python -m tests.support.configuration_page."""

from collections.abc import Iterator
from pathlib import Path

from rlhf_cli.config.command_line import compose_each
from rlhf_cli.config.compose import freeze
from rlhf_cli.config.keys import conf_dir, covers, flatten
from rlhf_cli.config.schema.run import Config
from rlhf_cli.report.config_page import all_comments, flow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
START = "<!-- The rest of this page is generated from conf/ by `make docs`. -->\n"
PRESETS = ("model", "data", "runtime", "experiment")
GENERAL = {"data": "generic", "model": "generic", "runtime": "auto"}  # they explain every key


def generated() -> str:
    """Return all keys with their defaults and meaning, a table per section, and the presets."""
    found: list[Config] = []
    compose_each([], found.append)
    frozen = freeze(found[0])
    comments = all_comments(conf_dir(), frozen, GENERAL)
    sections = [key for key, value in frozen.items() if isinstance(value, dict)]
    run = {key: value for key, value in frozen.items() if key not in sections}
    parts = ["## All keys\n\nThe defaults are those of `rlhf run` without options.\n"]
    parts += ["\n### The run\n", *_table(run, comments)]
    for name in sections:
        heading = f": {comments[name]}" if name in comments else ""
        parts += [f"\n### `{name}`{heading}\n", *_table({name: frozen[name]}, comments)]
    parts += ["\n## Presets\n"]
    for group in PRESETS:
        parts += [f"\n### `{group}=`\n", "| preset | |", "|---|---|"]
        for path in sorted((conf_dir() / group).glob("*.yaml")):
            parts.append(f"| `{path.stem}` | {_cell(_heading(path))} |")
    return "\n".join(parts) + "\n"


def _table(tree: dict, comments: dict[str, str]) -> Iterator[str]:
    """Yield a row per key, and one above the keys of a section within the section."""
    yield from ("| key | default | meaning |", "|---|---|---|")
    explained = set(tree)
    for key, value in flatten(tree).items():
        for section in sorted(comments.keys() - explained):
            if section != key and covers(section, key):
                explained.add(section)
                yield f"| **`{section}`** | | {_cell(comments[section])} |"
        yield f"| `{key}` | `{flow(value)}` | {_cell(comments.get(key, ''))} |"


def _heading(path: Path) -> str:
    """Return the first comment line of a file that is not Hydra's header."""
    lines = [line.removeprefix("# ") for line in path.read_text().splitlines()]
    return next(line for line in lines if not line.startswith("@package"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").strip()


def page() -> str:
    """Return the page with its tables as they should be now."""
    return PAGE.read_text().partition(START)[0] + START + "\n" + generated()


if __name__ == "__main__":
    PAGE.write_text(page())
