"""`rlhf` whose stages are ranked_stage.py: `ranked_rlhf.py run` behaves like the command."""

import sys
from dataclasses import replace
from types import MappingProxyType

from rlhf_cli import stages
from rlhf_cli.cli import main
from rlhf_cli.stages import pipeline, plan

FAKES = MappingProxyType(
    {name: replace(spec, module="ranked_stage") for name, spec in stages.STAGES.items()}
)

if __name__ == "__main__":
    for module in (stages, plan, pipeline):
        module.STAGES = FAKES
    sys.exit(main())
