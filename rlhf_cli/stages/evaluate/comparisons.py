"""The held-out comparisons of an evaluation, and their responses as answers that a reward model scores."""

from collections.abc import Iterable

from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.evaluate.prompt_sets import drawn


def held_out_comparisons(context: StageContext) -> list[EncodedComparison]:
    """Return evaluation.prompts of the held-out comparisons, drawn by the seed; none without any."""
    if "comparisons" not in STAGES["evaluate"].data(context.cfg):
        return []
    return drawn(context.encoded("comparisons").held_out, context.cfg)


def compared_answers(comparisons: Iterable[EncodedComparison], renderer: Renderer) -> list[Answer]:
    """Return every response of every comparison, in order, as an answer to its prompt."""
    return [
        Answer(
            prompt_ids=one.prompt_ids,
            ids=ids,
            text=text,
            finished=bool(ids) and ids[-1] in renderer.end_ids,
        )
        for one in comparisons
        for ids, text in zip(one.response_ids, one.record.responses, strict=True)
    ]
