"""The prompts of the evaluation: held-out ones, and sets that are unlike those of training."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

import numpy as np

from rlhf_cli.config.evaluate_stage import OOD
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.stages.context import StageContext

Encoded = TypeVar("Encoded")

UNSEEN = (
    "unseen tasks"  # prompts that the data themselves hold out, of tasks that no stage trains on
)


@dataclass(slots=True, kw_only=True)
class PromptSets:
    """prompts: those of the closing table first, then each set of evaluation.ood.

    num_held_out: how many are of the table. ood: {name: indices} of all that are unlike those of
    training. notes: what was left out.
    """

    prompts: list[EncodedPrompt]
    num_held_out: int
    ood: dict[str, list[int]]
    notes: list[str]

    @property
    def held_out(self) -> list[int]:
        """Return the indices of the prompts of the closing table."""
        return list(range(self.num_held_out))

    @property
    def familiar(self) -> list[int]:
        """Return the indices of held-out prompts that are like those of training."""
        unseen = {i for index in self.ood.values() for i in index}
        return [i for i in self.held_out if i not in unseen]

    @property
    def names(self) -> list[str | None]:
        """Return the name of each prompt's set of evaluation.ood, None for the held-out ones."""
        named = {i: name for name, index in self.ood.items() for i in index}
        return [named.get(i) if i >= self.num_held_out else None for i in range(len(self.prompts))]


def open_prompts(context: StageContext) -> PromptSets:
    """Return evaluation.prompts of the held-out prompts, and as many of each set, drawn by the seed."""
    prompts = held_out_prompts(context)
    sets = PromptSets(prompts=prompts, num_held_out=len(prompts), ood={}, notes=[])
    unseen = [i for i, prompt in enumerate(prompts) if prompt.record.meta.get("held_out")]
    if 0 < len(unseen) < len(prompts):
        sets.ood[UNSEEN] = unseen
    if prompts and context.cfg.evaluation.ood:
        asked = questions_of_training(context)
        for one in context.cfg.evaluation.ood:
            _add(sets, context, one.name, asked)
    return sets


def held_out_prompts(context: StageContext) -> list[EncodedPrompt]:
    """Return evaluation.prompts of the held-out prompts, drawn by the seed; none if only tasks are."""
    if "prompts" not in STAGES["evaluate"].data(context.cfg):
        return []
    return drawn(context.encoded("prompts").held_out, context.cfg)


def drawn(records: Sequence[Encoded], cfg: Config) -> list[Encoded]:
    """Return evaluation.prompts of these, or all, in an order drawn by the seed."""
    return Random(cfg.seed).sample(records, min(cfg.evaluation.prompts, len(records)))


def questions_of_training(context: StageContext) -> np.ndarray:
    """Return the numbers of the questions that any stage trains on or selects by."""
    cfg, found = context.cfg, [np.zeros(0, dtype=np.uint64)]
    for role in ("demonstrations", "comparisons", "prompts"):
        if getattr(cfg.data, role):
            encoded = context.encoded(role)
            found += [encoded.train.questions, encoded.select.questions]
    return np.concatenate(found)


def _add(sets: PromptSets, context: StageContext, name: str, asked: np.ndarray) -> None:
    """Add a set without the prompts that training asked too, which are counted in a note."""
    rows = context.encoded(OOD + name).train
    new = np.flatnonzero(~np.isin(rows.questions, asked)).tolist()
    if left_out := len(rows) - len(new):
        sets.notes.append(
            f"{name}: {left_out} of {len(rows)} prompts left out, because training asks them too"
        )
    chosen = drawn([rows[i] for i in new], context.cfg)
    if not chosen:
        sets.notes.append(f"{name}: no prompt is left to evaluate")
        return
    first = len(sets.prompts)
    sets.prompts += chosen
    sets.ood[name] = list(range(first, first + len(chosen)))
