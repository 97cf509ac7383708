"""`rlhf` whose stages are those of a module: `fake_rlhf.py MODULE run` behaves like the command."""

import sys
from dataclasses import replace
from types import MappingProxyType

from rlhf_cli.cli import main
from rlhf_cli.config import stage_table
from rlhf_cli.pipeline import driver, plan

if __name__ == "__main__":
    module, *words = sys.argv[1:]
    stages = {name: replace(spec, module=module) for name, spec in stage_table.STAGES.items()}
    for reader in (stage_table, plan, driver):
        reader.STAGES = MappingProxyType(stages)
    sys.exit(main(words))
