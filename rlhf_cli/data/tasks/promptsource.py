"""Templates of promptsource: YAML with one jinja text "input ||| target" per template.

Its templates have answer choices of their own ("no ||| yes"), and `original_task: false` marks those
that are turned around. https://github.com/bigscience-workshop/promptsource
"""

from pathlib import Path

from rlhf_cli.data.records import DataError
from rlhf_cli.data.tasks.sections import load_yaml
from rlhf_cli.data.tasks.task import BETWEEN, Template


def promptsource_templates(path: Path) -> tuple[Template, ...]:
    """Return the templates of a promptsource file (templates.yaml)."""
    content = load_yaml(path)
    listed = content.get("templates") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise DataError(f"{path}: no templates; expected a templates.yaml of promptsource")
    return tuple(_template(path, key, one) for key, one in listed.items())


def _template(path: Path, key: str, content: object) -> Template:
    if not isinstance(content, dict) or not isinstance(content.get("jinja"), str):
        raise DataError(f"{path}: template {key} has no text under jinja; copy the file again")
    if BETWEEN not in content["jinja"]:
        raise DataError(f"{path}: template {key} has no {BETWEEN} between input and target")
    metadata = content.get("metadata") or {}
    return Template(
        name=str(content.get("name") or key),
        input=content["jinja"],
        target=None,
        turned_around=metadata.get("original_task") is False,
        options=content.get("answer_choices") or None,
    )
