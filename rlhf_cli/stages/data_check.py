"""`rlhf data check`: every row of every source read, judged and tokenised, nothing trained."""

import json
import shlex
import sys

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.hub import require_hub
from rlhf_cli.config.schema import Config
from rlhf_cli.data.load import check_all
from rlhf_cli.data.report import EXAMPLES, Report
from rlhf_cli.data.spec import ROLES
from rlhf_cli.stages import STAGES, StageSpec
from rlhf_cli.stages.check_request import CheckRequest
from rlhf_cli.stages.plan import Planner
from rlhf_cli.stages.requirements import require_source, roles_of
from rlhf_cli.telemetry.console import line


def check_data(cfg: Config, request: CheckRequest) -> None:
    """Print the report of every role; an error when a run with the same words would refuse."""
    require_hub(cfg, ROLES)
    from rlhf_cli.stages.context import open_context  # torch: only when rows are to be tokenised

    specs = _specs(cfg, request)
    num_examples = None if request.every_row else EXAMPLES
    if not request.as_json:
        for path, (role, why) in request.roles.items():
            line(f"{path}: {role} ({why})")
    reports = check_all(cfg, open_context(cfg).renderer, num_examples=num_examples)
    refused = _refused(cfg, specs, reports)
    if request.as_json:
        _write_json(specs, reports, refused)
    else:
        _tell(reports)
    if refused:
        raise UserError(refused)
    if not request.as_json:
        line(_taken(request, specs), style="green")


def _specs(cfg: Config, request: CheckRequest) -> list[StageSpec]:
    """The stages that a run would have: those asked for, or those that the files are enough for."""
    if not request.any_stage:
        return Planner(cfg=cfg).chosen()
    there = {role for role, _ in request.roles.values()}
    there |= {"prompts"} if "comparisons" in there else set()
    return [s for s in STAGES.values() if there.issuperset(roles_of(cfg, [s]))]


def _refused(cfg: Config, specs: list[StageSpec], reports: list[Report]) -> str | None:
    """The line with which a run would refuse, of the first stage that would."""
    known = {report.role: report for report in reports}
    for role in roles_of(cfg, specs):
        try:
            require_source(cfg, role)
        except UserError as error:
            enough = [s.name for s in STAGES.values() if known.keys() >= set(roles_of(cfg, [s]))]
            hint = f"; the data is enough for stage=[{','.join(enough)}]" if enough else ""
            return f"{error}{hint}"
        if verdict := known[role].verdict():
            return verdict
    return None


def _tell(reports: list[Report]) -> None:
    for report in reports:
        line(report.headline(), style="bold")
        for indent, text, style in report.details():
            line(" " * indent + text, style=style)


def _write_json(specs: list[StageSpec], reports: list[Report], refused: str | None) -> None:
    found = {
        "stages": [spec.name for spec in specs],
        "refused": refused,
        "roles": [report.as_json() for report in reports],
    }
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def _taken(request: CheckRequest, specs: list[StageSpec]) -> str:
    if not request.any_stage:
        return "a run would take this data"
    names = ", ".join(spec.name for spec in specs)
    return f"a run would take this data, for {names}: rlhf run {shlex.join(request.words)} ..."
