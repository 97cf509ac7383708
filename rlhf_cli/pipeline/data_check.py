"""`rlhf data check`: every row of every source read, judged and tokenised, nothing trained."""

import json
import shlex
import sys
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from rich.padding import Padding

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.hub import require_hub
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_spec import StageSpec
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.data.cache import making
from rlhf_cli.data.duplicates import twins, twins_across
from rlhf_cli.data.prepare import prepare
from rlhf_cli.data.record_files import Records
from rlhf_cli.data.records import DataError
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.report import EXAMPLES, DataReport
from rlhf_cli.data.spec import ROLES
from rlhf_cli.pipeline.check_request import CheckRequest
from rlhf_cli.pipeline.plan import Planner
from rlhf_cli.pipeline.requirements import require_source, roles_of
from rlhf_cli.pipeline.template_check import TemplateExample, template_examples
from rlhf_cli.stages.reading import counted, records_of, spec_of
from rlhf_cli.telemetry.console import console, line


def check_data(cfg: Config, request: CheckRequest) -> None:
    """Print the report of every role; an error when a run with the same words would refuse."""
    require_hub(cfg, ROLES)
    from rlhf_cli.stages.context import open_context  # torch: only when rows are to be tokenised

    specs = _specs(cfg, request)
    num_examples = None if request.every_row else EXAMPLES
    if not request.as_json:
        for path, (role, why) in request.roles.items():
            line(f"{path}: {role} ({why})")
    silent = request.as_json or not console().is_terminal
    renderer = open_context(cfg).renderer
    reports = check_all(cfg, renderer, num_examples=num_examples, silent=silent)
    refused = _refused(cfg, specs, reports)
    examples = template_examples(cfg, renderer)
    if request.as_json:
        _write_json(specs, reports, refused, {e.title: _plain(renderer, e) for e in examples})
    else:
        _print_reports(reports)
        _print_templates(renderer, examples)
    if refused:
        raise UserError(refused)
    if not request.as_json:
        _print_passed(request, specs)


def check_all(
    cfg: Config,
    renderer: Renderer,
    *,
    num_examples: int | None = EXAMPLES,
    silent: bool = True,
) -> list[DataReport]:
    """Return a report on every role that has sources, whatever is wrong with it."""
    specs = {role: spec_of(cfg, role) for role in ROLES}
    reports: dict[str, DataReport] = {}
    found: dict[str, Records] = {}
    with tempfile.TemporaryDirectory(prefix="rlhf-") as folder:
        cache = Path(folder)
        for role in (role for role in ROLES if specs[role].sources):
            try:
                found[role] = records_of(
                    specs[role], cache, num_examples=num_examples, silent=silent
                )
                reports[role] = found[role].report
            except DataError as error:
                reports[role] = DataReport(role=role, problems=[str(error)])
        own = {role: one for role, one in found.items() if specs[role].read_as == role}
        repeated = [twin for role, records in own.items() for twin in twins(role, records)]
        split = {role: one for role, one in found.items() if role != "pretraining"}
        for twin in [*repeated, *twins_across(split)]:
            reports[twin.role].note(twin.origin, twin.what, twin.detail)
        for role, records in found.items():
            with making(cache, f"{role}-rows") as work:
                rows = prepare(records, renderer, cfg.data, work)
                counted(f"tokenising data.{role}", rows, silent=silent)
    return list(reports.values())


def _specs(cfg: Config, request: CheckRequest) -> list[StageSpec]:
    """Return the stages that a run would have: those asked for, or those that the files are enough for."""
    if not request.any_stage:
        return Planner(cfg=cfg).chosen()
    there = {role for role, _ in request.roles.values()}
    there |= {"prompts"} if "comparisons" in there else set()
    return _enough_for(cfg, there)


def _enough_for(cfg: Config, roles: Collection[str]) -> list[StageSpec]:
    """The stages of stage=all that need no other roles."""
    ours = [spec for spec in STAGES.values() if spec.default]
    return [spec for spec in ours if set(roles_of(cfg, [spec])) <= set(roles)]


def _refused(cfg: Config, specs: list[StageSpec], reports: list[DataReport]) -> str | None:
    """Return the line with which a run would refuse, of the first stage that would."""
    known = {report.role: report for report in reports}
    for role in roles_of(cfg, specs):
        try:
            require_source(cfg, role)
        except UserError as error:
            enough = [spec.name for spec in _enough_for(cfg, known)]
            hint = f"; the data is enough for stage=[{','.join(enough)}]" if enough else ""
            return f"{error}{hint}"
        if verdict := known[role].verdict():
            return verdict
    return None


def _print_reports(reports: list[DataReport]) -> None:
    for report in reports:
        line(report.headline(), style="bold")
        for indent, text, style in report.details():
            line(" " * indent + text, style=style)


def _print_templates(renderer: Renderer, examples: Iterable[TemplateExample]) -> None:
    """Print an example of every template of the task files, its supervised tokens marked."""
    from rlhf_cli.stages.samples import example

    for one in examples:
        line(one.title, style="bold")
        if one.problem:
            line(f"  {one.problem}", style="red")
        else:
            console().print(Padding(example(renderer, one.ids, one.loss_mask), (0, 4)))


def _plain(renderer: Renderer, one: TemplateExample) -> str:
    from rlhf_cli.stages.samples import plain

    return one.problem or plain(renderer, one.ids, one.loss_mask)


def _write_json(
    specs: list[StageSpec],
    reports: list[DataReport],
    refused: str | None,
    templates: dict[str, str],
) -> None:
    found: dict[str, Any] = {
        "stages": [spec.name for spec in specs],
        "refused": refused,
        "roles": [report.as_json() for report in reports],
    }
    found |= {"templates": templates} if templates else {}
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def _print_passed(request: CheckRequest, specs: list[StageSpec]) -> None:
    """Print that the data can be used, and for files named alone the command that does so."""
    names = ",".join(spec.name for spec in specs)
    line("data check passed" + (f" for {names}; run it with" * request.any_stage), style="green")
    if request.any_stage:
        line(f"  rlhf run {shlex.join([*request.words, f'stage=[{names}]'])}", whole=True)
