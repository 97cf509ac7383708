"""The watch over a policy at work: the same held-out prompts, answered every so many iterations.

Its answers are drawn from a random stream of their own, so the training has the same bits with it and
without it. The best weights that show no symptom of over-optimisation are exported as best/.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.layout import BESIDE, BEST, MANIFEST, WATCH
from rlhf_cli.artifacts.manifest import read_manifest
from rlhf_cli.artifacts.store import FREE, remove, write_errors, write_text
from rlhf_cli.config.schema import Watch
from rlhf_cli.core.randomness import permutation, stream_seed
from rlhf_cli.data.embedded import EmbeddedTask, common_task
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.evaluation.behaviour import Behaviour, behaviour, symptoms
from rlhf_cli.evaluation.metrics import measure_answers
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.report.run_state import metric_lines
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.reward_scorer import SCORE_LIMIT, RewardModel, open_judge
from rlhf_cli.stages.samples import log_ratios, sample_each
from rlhf_cli.telemetry.recorder import Recorder

DRAWS = 2  # responses per prompt: of two it is known how alike they are
VOCAB = 50257  # of GPT-2, for the number of n-grams that would be distinct by chance (Kirk et al.)
CHECK = "check"

Row = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class PolicyWatch:
    """check: the reward model of parents.check, if any. reference: the SFT model, None where the KL is
    not measured. score_limit: the 99.9th percentile of the scores of people's responses.

    rows: of every look so far. exported: the iteration whose weights are best/.
    """

    context: StageContext
    settings: Watch
    prompts: list[EncodedPrompt]
    reward: RewardModel
    check: RewardModel | None
    reference: Network | None
    score_limit: float | None
    out: Path
    recorder: Recorder
    rows: list[Row] = field(default_factory=list)
    exported: int | None = None

    def look(self, policy: Engine, done: int, *, last: bool = False) -> None:
        """Answer the prompts where it is time to: after `done` iterations, 0 before the first."""
        if not self.prompts or self._has(done):
            return
        if not last and done % self.settings.every:
            return
        row = self._row(policy, done)
        if row["symptoms"] and done:
            self.recorder.warn(f"watch after iteration {done}: {', '.join(row['symptoms'])}")
        if row["best"]:
            self._export(policy, done)
        self.rows.append(row)
        if self.context.world.is_main:
            text = "".join(json.dumps(one) + "\n" for one in self.rows)
            with write_errors(self.out / WATCH, FREE):
                write_text(self.out / WATCH, text)

    def resume(self, done: int) -> None:
        """Take up the looks of an interrupted attempt up to iteration `done`; later ones come again."""
        world, found = self.context.world, None
        if world.is_main:
            found = list(metric_lines(self.out / WATCH))
        found = world.broadcast(found) or []
        self.rows = [row for row in found if row["iteration"] <= done]
        best = [row["iteration"] for row in found if row["best"]]
        self.exported = best[-1] if best and best[-1] <= done else None
        if self.exported is None and world.is_main:
            remove(self.out / BEST)  # of weights that the resumed training reaches again
        world.barrier()

    def finish(self) -> dict[str, float]:
        """Print which weights are best; return that as metrics of the manifest."""
        best = [row for row in self.rows if row["best"]]
        if not best:
            if len(self.rows) > 1:
                self.recorder.warn("no look at the policy was without a symptom: there is no best/")
            return {}
        row, key = best[-1], self._key
        if self.exported != row["iteration"]:
            self.recorder.warn("the best weights were lost when the stage was interrupted")
            return {}
        num = self.rows[-1]["iteration"]
        self.recorder.note(
            f"best weights: after iteration {row['iteration']} of {num}, by {key} {row[key]:+.3f}: "
            f"{BEST}/"
        )
        return {"watch/best_iteration": float(row["iteration"]), f"watch/best_{key}": row[key]}

    @property
    def _key(self) -> str:
        """Return what is best by; the true utility never chooses."""
        return CHECK if self.check is not None else "score"

    def _has(self, done: int) -> bool:
        return any(row["iteration"] == done for row in self.rows)

    def _row(self, policy: Engine, done: int) -> Row:
        """Return what the policy's answers are like now."""
        seed = self.context.cfg.seed
        seeds = [stream_seed(seed, "watch", i) for i in range(DRAWS)]
        tries = sample_each(self.context, policy, self.prompts, seeds)
        answers = [one for some in tries for one in some]
        scores = self.reward.score_answers(answers, counted=False)
        now = behaviour(tries, scores, score_limit=self.score_limit, vocab=VOCAB)
        row = {"iteration": done, "score": float(scores.mean())}
        if self.check is not None:
            row[CHECK] = float(self.check.score_answers(answers, counted=False).mean())
        row |= self._utility(tries) | self._kl(policy, answers) | now.as_row()
        before = Behaviour.of_row(self.rows[0]) if self.rows else now
        row["symptoms"] = [one.name for one in symptoms(now, before) if one.found]
        return row | {"best": self._is_best(row)}

    def _utility(self, tries: list[list[Answer]]) -> dict[str, float]:
        """Return the mean true utility, where the prompts are of an embedded task."""
        records = [prompt.record for prompt in self.prompts]
        task: EmbeddedTask | None = common_task(one.origin.source for one in records)
        if task is None:
            return {}
        values = [
            value for some in tries for value in measure_answers(task, records, some)[task.UTILITY]
        ]
        return {task.UTILITY: sum(values) / len(values)}

    def _kl(self, policy: Engine, answers: list[Answer]) -> dict[str, float]:
        if self.reference is None:
            return {}
        found = log_ratios(self.context, policy, self.reference, answers)
        self.reference.offload()
        return {"kl": float(found.mean())}

    def _is_best(self, row: Row) -> bool:
        """Return whether these weights are the ones to take, of all so far."""
        budget, kl = self.settings.kl_budget, row.get("kl", -math.inf)
        if not row["iteration"] or row["symptoms"] or (budget is not None and kl > budget):
            return False
        return all(row[self._key] > other[self._key] for other in self.rows if other["best"])

    def _export(self, policy: Engine, done: int) -> None:
        """Replace best/ by the present weights; the old ones stay until the new ones are written."""
        beside = self.out / f".{BEST}{BESIDE}"
        world = self.context.world
        if world.is_main:
            remove(beside)
        self.context.export(policy, beside)
        if world.is_main:
            with write_errors(self.out / BEST, FREE):
                remove(self.out / BEST)
                beside.rename(self.out / BEST)
        world.barrier()
        self.exported = done


def open_watch(
    context: StageContext,
    settings: Watch,
    prompts: list[EncodedPrompt],
    *,
    reward: RewardModel,
    reference: Network | None,
    rm: Path,
    out: Path,
    recorder: Recorder,
) -> PolicyWatch:
    """Return the watch of a section, which without prompts does nothing. rm: the stage of `reward`."""
    place, by = context.cfg.parents.check, settings.by.name
    check = open_judge(context, place, prompts) if place and prompts and by != "score" else None
    return PolicyWatch(
        context=context,
        settings=settings,
        prompts=prompts,
        reward=reward,
        check=check,
        reference=reference,
        score_limit=score_limit_of(rm),
        out=out,
        recorder=recorder,
    )


def watched_prompts(
    context: StageContext, settings: Watch, held_out: list[EncodedPrompt]
) -> list[EncodedPrompt]:
    """Return the held-out prompts of a watch, drawn by the seed; none where it is off."""
    if settings.every is None:
        return []
    order = permutation(len(held_out), context.cfg.seed, "watch", "prompts")
    return [held_out[i] for i in order[: settings.prompts].tolist()]


def score_limit_of(rm: Path) -> float | None:
    """Return the 99.9th percentile of the scores of people's responses; None of a model folder."""
    known = (rm / MANIFEST).is_file()
    return read_manifest(rm).metrics.get(SCORE_LIMIT) if known else None
