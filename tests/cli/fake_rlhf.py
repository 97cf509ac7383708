"""`rlhf` with stages that need no torch: `fake_rlhf.py run` behaves like the command."""

import sys
from dataclasses import replace
from types import MappingProxyType

from rlhf_cli.cli import main
from rlhf_cli.config import stage_table
from rlhf_cli.pipeline import driver, plan

FAKES = MappingProxyType(
    {name: replace(spec, module="fake_stage") for name, spec in stage_table.STAGES.items()}
)

if __name__ == "__main__":
    for module in (stage_table, plan, driver):
        module.STAGES = FAKES
    sys.exit(main())
