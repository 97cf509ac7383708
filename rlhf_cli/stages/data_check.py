"""`rlhf data check`: every row of every source read, judged and tokenised, nothing trained."""

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.hub import require_hub
from rlhf_cli.config.schema import Config
from rlhf_cli.data.gather import ROLES
from rlhf_cli.data.load import check_all
from rlhf_cli.telemetry.console import console, line


def check_data(cfg: Config) -> None:
    """Print the report of every role; an error when a run would refuse this data."""
    require_hub(cfg, ROLES)
    from rlhf_cli.stages.setting import open_setting  # torch: only when rows are to be tokenised

    verdicts = []
    for report in check_all(cfg, open_setting(cfg).renderer):
        if console().is_terminal:
            console().print(report.table())
        else:
            line(report.plain())
        verdicts.append(report.verdict())
    refused = [verdict for verdict in verdicts if verdict]
    if refused:
        raise UserError(refused[0])
    line("a run would take this data", style="green")
