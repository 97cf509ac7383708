"""Task files: YAML to `Task`, strictly. Files, folders of them, and the presets of conf/tasks."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rlhf_cli.config.keys import conf_dir, did_you_mean, nearest
from rlhf_cli.config.schema import ConfigError, Source
from rlhf_cli.data.records import DataError
from rlhf_cli.data.tasks.promptsource import promptsource_templates
from rlhf_cli.data.tasks.render import check_syntax
from rlhf_cli.data.tasks.sections import Section, kind_of, load_yaml
from rlhf_cli.data.tasks.task import BETWEEN, METRICS, Task, TaskSource, Template

KEYS = (
    "name", "clusters", "source", "options", "answer", "rationale", "metric", "templates", "groups",
    "turned_around", "held_out", "cot_prompt",
)  # fmt: skip
OF_SOURCE = (
    "path", "columns", "split", "config", "data_dir", "revision", "limit", "unescape", "delimiter",
    "eval_path", "eval_split", "rendered", "item",
)  # fmt: skip
OF_TEMPLATE = ("name", "input", "target", "turned_around")
SUFFIXES = (".yaml", ".yml")


def read_tasks(paths: Iterable[str], *, folder: str | None = None) -> list[Task]:
    """Return the tasks of these files, folders and presets, in their order.

    folder: where presets find files that they name. DataError for whatever a task file does wrong.
    """
    tasks: dict[str, Task] = {}
    for path, data in (found for given in paths for found in _files(given, folder)):
        task = _task(path, load_yaml(path), data)
        if (other := tasks.get(task.name)) is not None:
            raise DataError(
                f"{path}: a task {task.name} is already in {other.file}; give one another name"
            )
        tasks[task.name] = task
    return list(tasks.values())


def preset_names() -> list[str]:
    """Return the names of files and folders in conf/tasks."""
    place = conf_dir() / "tasks"
    found = [p.stem for p in place.glob("*.yaml")] + [p.name for p in place.iterdir() if p.is_dir()]
    return sorted(found)


def _files(given: str, folder: str | None) -> list[tuple[Path, Path]]:
    """Return (task file, the folder that its paths are relative to) of what tasks.files names."""
    path = Path(given).expanduser()
    if path.is_file():
        return [(path, path.parent)]
    if path.is_dir():
        return [(file, file.parent) for file in _inside(path)]
    preset = conf_dir() / "tasks" / given
    data = Path(folder).expanduser() if folder else Path()
    if preset.is_dir():
        return [(file, data) for file in _inside(preset)]
    if preset.with_name(f"{preset.name}.yaml").is_file():
        return [(preset.with_name(f"{preset.name}.yaml"), data)]
    meant = nearest(given, preset_names())
    raise DataError(
        f"tasks.files: {given} is no file, no folder and no preset{did_you_mean([meant] if meant else [])}"
        + ("" if meant else f"; the presets: {', '.join(preset_names())}")
    )


def _inside(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES)
    if not found:
        raise DataError(f"tasks.files: the folder {folder} holds no .yaml file; name task files")
    return found


def _task(path: Path, content: Any, data: Path) -> Task:
    section = Section(str(path), content, KEYS)
    name = section.text("name", needed=True)
    assert name is not None
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise section.wrong("name", name, "a plain word of letters, digits, _, - and .")
    clusters = section.texts("clusters")
    if not clusters:
        raise DataError(
            f"{path}: task {name} has no clusters, so nothing decides what is held out with it; "
            "write clusters: [its_type]"
        )
    source = _source(path, content.get("source"), data)
    templates = _templates(path, content.get("templates"))
    options = _options(section)
    if not templates and source.rendered is False:
        raise DataError(f"{path}: task {name} has no templates; write at least one")
    answer = section.text("answer", needed=any(t.target is not None for t in templates))
    task = Task(
        name=name,
        clusters=clusters,
        source=source,
        options=options,
        answer=answer,
        rationale=_rationale(section),
        metric=_metric(section, options),
        templates=templates,
        groups=section.texts("groups"),
        turned_around=section.texts("turned_around"),
        held_out=section.flag("held_out", False),
        cot_prompt=_cot_prompt(section, data),
        file=path,
    )
    if templates and all(t.turned_around for t in templates):
        raise DataError(
            f"{path}: all templates of {name} are turned around; one must ask for the answer"
        )
    check_syntax(task)
    return task


def _options(section: Section) -> tuple[str, ...] | str | None:
    value = section.content.get("options")
    if value is None:
        return None
    if isinstance(value, str):
        if not re.fullmatch(r"\s*\{\{.*\}\}\s*", value, re.DOTALL):
            wanted = 'a list, or one expression that gives a list, as "{{ choices }}"'
            raise section.wrong("options", value, wanted)
        return value
    options = section.texts("options")
    if len(options) < 2:
        raise DataError(
            f"{section.where}: options has {len(options)} entry; a choice needs two or more "
            "(null: a free answer)"
        )
    if len(set(options)) < len(options):
        raise DataError(f"{section.where}: options names {_twice(options)!r} twice; leave one out")
    return options


def _twice(values: Iterable[str]) -> str:
    listed = list(values)
    return next(value for i, value in enumerate(listed) if value in listed[:i])


def _rationale(section: Section) -> str | None:
    """Return an expression; a plain name is that of a column."""
    text = section.text("rationale")
    return f"{{{{ {text} }}}}" if text and re.fullmatch(r"\w+", text) else text


def _metric(section: Section, options: object) -> str:
    name = section.text("metric", "exact_match" if options is None else "accuracy")
    assert name is not None
    if name not in METRICS:
        meant = nearest(name, METRICS)
        tail = did_you_mean([meant]) if meant else ""
        raise DataError(f"{section.where}: metric {name} is none of {', '.join(METRICS)}{tail}")
    return name


def _cot_prompt(section: Section, data: Path) -> Path | None:
    text = section.text("cot_prompt")
    return None if text is None else data / Path(text).expanduser()


def _source(path: Path, content: Any, data: Path) -> TaskSource:
    if isinstance(content, str):
        content = {"path": content}
    section = Section(f"{path}: source", content, OF_SOURCE)
    where = section.text("path", needed=True)
    assert where is not None
    columns = section.content.get("columns") or {}
    if not isinstance(columns, dict):
        raise section.wrong("columns", columns, "{name in templates: column of the data}")
    given = {key: section.content.get(key) for key in ("config", "data_dir", "revision", "limit")}
    given |= {"delimiter": section.content.get("delimiter")}
    given |= {"unescape": section.flag("unescape", False)}
    given |= {"columns": {str(k): str(v) for k, v in columns.items()}}

    def named(at: str, split: str | None) -> Source:
        if path.parent != data and Path(at).suffix and not (data / at).exists():
            raise DataError(
                f"the preset {path.stem} reads {at}, which is not in {data.absolute()}; "
                "set tasks.folder to the folder that holds it"
            )
        try:
            return Source(path=_beside(at, data), split=split, **given)
        except ConfigError as error:
            raise DataError(f"{path}: source: {error}") from error

    split, eval_split = section.text("split"), section.text("eval_split")
    eval_path = section.text("eval_path")
    apart = eval_path is not None or eval_split is not None
    return TaskSource(
        train=named(where, split),
        evaluation=named(eval_path or where, eval_split) if apart else None,
        rendered=section.flag("rendered", None),
        item=section.text("item"),
    )


def _beside(path: str, folder: Path) -> str:
    """Return a path from the folder of its task file; a hub id, or a scheme, as it is."""
    place = folder / Path(path).expanduser()
    is_file = place.exists() or "*" in path or path.startswith((".", "/", "~"))
    return str(place) if is_file or Path(path).suffix else path


def _templates(path: Path, content: Any) -> tuple[Template, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return promptsource_templates(path.parent / Path(content).expanduser())
    if not isinstance(content, list):
        raise DataError(
            f"{path}: templates is {kind_of(content)}; it must be a list, or the path of a "
            "promptsource file"
        )
    found = [_template(path, number, one) for number, one in enumerate(content)]
    names = [template.name for template in found]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: two templates are named {_twice(names)}; rename one")
    return tuple(found)


def _template(path: Path, number: int, content: Any) -> Template:
    section = Section(f"{path}: templates[{number}]", content, OF_TEMPLATE)
    name, text = section.text("name", needed=True), section.text("input", needed=True)
    assert name is not None and text is not None
    target = section.text("target", needed=BETWEEN not in text)
    return Template(
        name=name, input=text, target=target, turned_around=section.flag("turned_around", False)
    )
