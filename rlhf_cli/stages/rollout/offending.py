"""The samples behind a number that is not finite, kept for the user before the stage stops."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_cli.artifacts.layout import OFFENDING
from rlhf_cli.artifacts.store import write_text
from rlhf_cli.config.errors import UserError
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.rollout.checks import NotFinite


@contextmanager
def offending_kept(context: StageContext, stage: str, out: Path) -> Iterator[None]:
    """Where a number inside the block is not finite, save its samples and name the file."""
    try:
        yield
    except NotFinite as error:
        place = save_offending(error, context, out)
        remedy = f"Lower {stage}.optim.lr, raise {stage}.kl.coef, or use runtime.dtype=float32"
        raise UserError(f"{error}; the samples are in {place}. {remedy}") from error


def save_offending(error: NotFinite, context: StageContext, out: Path) -> Path:
    """Write the samples behind a number that is not finite: texts, token ids, score."""
    rollout, place = error.rollout, out / OFFENDING
    rows = [
        {
            "prompt": context.renderer.tokenizer.decode(rollout.prompts[i][rollout.prompt_mask[i]]),
            "response_ids": rollout.responses[i][rollout.response_mask[i]].tolist(),
            "response": context.renderer.tokenizer.decode(
                rollout.responses[i][rollout.response_mask[i]]
            ),
            "score": str(float(rollout.scores[i])),
        }
        for i in error.rows
    ]
    if context.world.is_main:
        write_text(place, json.dumps({"reason": str(error), "samples": rows}, indent=2))
    return place
