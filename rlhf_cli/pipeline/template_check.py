"""One example of every template of the task files, as `rlhf data check` shows it."""

from collections.abc import Iterator
from dataclasses import dataclass

from rlhf_cli.config.schema.run import Config
from rlhf_cli.data.encode import encode_demonstration
from rlhf_cli.data.records import Demonstration, Message, RowError
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.tasks.files import read_tasks
from rlhf_cli.data.tasks.prompts import prompt_of
from rlhf_cli.data.tasks.render import example
from rlhf_cli.data.tasks.rows import TaskRows, task_rows
from rlhf_cli.data.tasks.task import Template


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateExample:
    """A row by a template as token ids, those of the target supervised; or why there is none."""

    task: str
    template: Template
    ids: list[int]
    loss_mask: list[bool]
    problem: str | None = None

    @property
    def title(self) -> str:
        around = ", turned around" if self.template.turned_around else ""
        return f"task {self.task}, template {self.template.name}{around}"


def template_examples(cfg: Config, renderer: Renderer) -> Iterator[TemplateExample]:
    """Yield the first row of every task by each of its templates, without exemplars."""
    for task in read_tasks(cfg.tasks.files, folder=cfg.tasks.folder):
        rows = task_rows(
            task,
            seed=cfg.seed,
            eval_fraction=cfg.data.eval_fraction,
            select_fraction=cfg.data.select_fraction,
        )
        for template in rows.templates:
            yield _shown(rows, template, cfg, renderer)


def _shown(rows: TaskRows, template: Template, cfg: Config, renderer: Renderer) -> TemplateExample:
    problem = "it applies to none of the rows"
    for row in (*rows.train, *rows.select, *rows.evaluation):
        if template not in rows.templates_of(row):
            continue
        try:
            one = example(rows.task, row, template)
            messages, _ = prompt_of(one, (), cfg.tasks.shots_as)
            record = Demonstration((*messages, Message("assistant", one.target)), one.origin)
            found = encode_demonstration(renderer, record, cfg.data)
        except RowError as error:
            problem = f"{row.origin}: {error}"
            continue
        name = rows.task.name
        return TemplateExample(
            task=name, template=template, ids=found.ids, loss_mask=found.loss_mask
        )
    return TemplateExample(
        task=rows.task.name, template=template, ids=[], loss_mask=[], problem=problem
    )
