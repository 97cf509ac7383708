"""Rationales to known answers: written by a policy, checked, and left as demonstrations."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.layout import DRAWN
from rlhf_cli.artifacts.store import model_folder
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema.run import Config
from rlhf_cli.core.means import mean_of_known
from rlhf_cli.core.randomness import stream_seed
from rlhf_cli.evaluation.rationale_checks import Rationale, figures, verdicts
from rlhf_cli.evaluation.rationale_gain import Scorer
from rlhf_cli.evaluation.rationale_questions import (
    AnsweredQuestion,
    AnsweredQuestions,
    read_rationale,
)
from rlhf_cli.evaluation.task_questions import counted
from rlhf_cli.report.rationale_table import write_rationale_figures
from rlhf_cli.runtime.engine import Network
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.stages.context import (
    StageContext,
    open_context,
    open_renderer,
    parent_model,
    room_of,
)
from rlhf_cli.stages.drawn_files import append_drawn, keep_drawn, read_drawn
from rlhf_cli.stages.dry_run import Preview
from rlhf_cli.stages.rationale_files import write_rationales
from rlhf_cli.stages.samples import example, sample_to_use
from rlhf_cli.stages.stage_run import open_run
from rlhf_cli.stages.task_reading import explained_rows, explained_tasks
from rlhf_cli.telemetry.recorder import Recorder

ROWS = 64  # per step; what is drawn is saved after each, and does not depend on the other steps


@dataclass(slots=True, frozen=True, kw_only=True)
class Asked:
    """The questions of all tasks, and what was left out of each task."""

    questions: list[AnsweredQuestion]
    left_out: dict[str, Counter[str]]

    def steps(self) -> list[list[AnsweredQuestion]]:
        """Return the questions in steps, which are the same for any number of processes."""
        return [self.questions[i : i + ROWS] for i in range(0, len(self.questions), ROWS)]

    def notes(self) -> list[str]:
        """Return a line for each task about its rows and exemplars that were left out."""
        return [
            f"{name}: {found}"
            for name, left_out in self.left_out.items()
            if (found := counted(left_out))
        ]


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Draw the rationales step by step; write data/demonstrations.jsonl, all of them and the table."""
    folder = policy_folder(cfg, inputs)
    context = open_context(cfg, folder)
    asked = ask(context)
    steps = asked.steps()
    network = context.network(context.causal_lm(folder))
    scorer = open_scorer(context, network)
    with open_run(
        context, out, stage="rationales", engines={}, total_steps=len(steps)
    ) as stage_run:
        done = stage_run.resumed.step if stage_run.resumed else 0
        if not done:
            context.print_notes(stage_run.recorder, network)
        if context.world.is_main:
            keep_drawn(out / DRAWN, done)
        for step, questions in enumerate(steps[done:], done + 1):
            found = scorer.scored(draw(context, network, questions, step))
            if context.world.is_main:
                append_drawn(out / DRAWN, step, [asdict(one) for one in found])
            stage_run.recorder.log(step_metrics(found), step)
            stage_run.saver.after_step(step, always=True)
        rows = read_drawn(out / DRAWN) if context.world.is_main else []
        found = [Rationale(**row) for row in rows]
        dropped = verdicts(found, cfg.rationales)
        show_samples(stage_run.recorder, found, dropped, cfg.samples)
    if not context.world.is_main:
        return {}
    write_rationales(out, found, dropped)
    content = closing_figures(cfg, asked, found, dropped)
    write_rationale_figures(out, content)
    return metrics_of(content["all"])


def policy_folder(cfg: Config, inputs: dict[str, Path]) -> Path | None:
    """Return the model that writes the rationales; None for the base model."""
    return None if cfg.rationales.of == "base" else parent_model(inputs, cfg.rationales.of)


def ask(context: StageContext) -> Asked:
    """Return the questions of all tasks; UserError where there are none."""
    questions, left_out = [], {}
    for task in explained_tasks(context.cfg):
        heartbeat(f"reading task {task.name}")
        with context.status(f"reading task {task.name}"):
            of_task = AnsweredQuestions(
                rows=explained_rows(context.cfg, task),
                settings=context.cfg.rationales,
                shots_as=context.cfg.tasks.shots_as,
                renderer=context.renderer,
                data=context.cfg.data,
                seed=context.cfg.seed,
            )
            found = list(of_task.questions())
        if not found:
            raise UserError(
                f"{task.file}: rationales can be written for no row of task {task.name}: "
                f"{counted(of_task.left_out)}; change its templates or the limits "
                "data.max_prompt_tokens and data.max_response_tokens"
            )
        questions += found
        left_out[task.name] = of_task.left_out
    return Asked(questions=questions, left_out=left_out)


def open_scorer(context: StageContext, network: Network) -> Scorer:
    """Return the model that judges, with the tokens that it was trained with."""
    cfg, name = context.cfg, context.cfg.rationales.scorer
    renderer, judge = context.renderer, network
    if name != "same":
        folder = model_folder(Path(name).expanduser())
        renderer = open_renderer(cfg, folder)
        judge = context.network(context.causal_lm(folder))
    return Scorer(
        network=judge,
        renderer=renderer,
        data=cfg.data,
        room=room_of(judge.model.config),
        batch=cfg.rationales.batch,
        world=context.world,
    )


def draw(
    context: StageContext, network: Network, questions: list[AnsweredQuestion], step: int
) -> list[Rationale]:
    """Sample the rationales of a step's rows, those of a row one after the other."""
    cfg, settings = context.cfg, context.cfg.rationales
    tries = sample_to_use(
        context,
        network,
        [one.prompt_ids for one in questions],
        temperature=settings.temperature,
        batch=settings.batch,
        seeds=[stream_seed(cfg.seed, "rationales", step, i) for i in range(settings.samples)],
    )
    return [
        read_rationale(one, answer, renderer=context.renderer, data=cfg.data)
        for one, answers in zip(questions, zip(*tries, strict=True), strict=True)
        for answer in answers
    ]


def step_metrics(found: Sequence[Rationale]) -> dict[str, float]:
    """Return what is shown of a step."""
    complete = {"rationales/complete": sum(one.is_complete for one in found) / len(found)}
    gain = mean_of_known(one.gain for one in found)
    return complete if gain is None else complete | {"rationales/gain": gain}


def show_samples(
    recorder: Recorder, found: Sequence[Rationale], dropped: Sequence[str | None], num: int
) -> None:
    """Show a few questions with a rationale, and what became of it; one per row."""
    rows = {(one.task, one.row): i for i, one in reversed(list(enumerate(found)))}
    recorder.samples(
        "rationales",
        [
            {
                "question": found[i].question,
                "answer": found[i].answer,
                "rationale": found[i].rationale,
                "dropped": dropped[i] or "no",
            }
            for i in sorted(rows.values())[:num]
        ],
    )


def closing_figures(
    cfg: Config, asked: Asked, found: Sequence[Rationale], dropped: Sequence[str | None]
) -> dict[str, Any]:
    """Return the figures over all tasks and of each, as JSON values."""
    pairs = list(zip(found, dropped, strict=True))

    def of(task: str) -> list[dict[str, Any]]:
        mine = [(one, why) for one, why in pairs if one.task == task]
        return figures([one for one, _ in mine], [why for _, why in mine], cfg.rationales)

    return {
        "title": f"Rationales of {cfg.rationales.of}, {cfg.rationales.samples} per row",
        "all": figures(found, dropped, cfg.rationales),
        "tasks": {name: of(name) for name in asked.left_out},
        "notes": asked.notes(),
    }


def metrics_of(steps: Sequence[dict]) -> dict[str, float]:
    """Return the figures as numbers of the manifest."""
    first, last = steps[0], steps[-1]
    left = {f"rationales/left/{step['step']}": step["rationales"] for step in steps[1:]}
    known = {"rationales/generated": first["rationales"], **left}
    known |= {"rationales/kept": last["rationales"], "rationales/rows": last["rows"]}
    maybe = {"rationales/gain": last["gain"], "rationales/gain_stated": last["gain_stated"]}
    maybe |= {
        f"rationales/{which}/{unit}/{step['step']}": share
        for step in steps
        for which in ("right", "dropped_right")
        for unit, share in step[which].items()
    }
    return known | {name: value for name, value in maybe.items() if value is not None}


def preview(cfg: Config, inputs: dict[str, Path]) -> Preview:
    """Return what a dry run shows: how many rows, and the prompt of the first one."""
    known = cfg.rationales.of == "base" or cfg.rationales.of in inputs
    context = open_context(cfg, policy_folder(cfg, inputs) if known else None)
    asked = ask(context)
    ids, num = asked.questions[0].prompt_ids, len(asked.questions)
    return Preview(
        facts={
            "rows": f"{num} of {len(asked.left_out)} task{'s' * (len(asked.left_out) > 1)}",
            "rationales": f"{cfg.rationales.samples} per row, {num * cfg.rationales.samples} in all",
            "steps": f"{len(asked.steps())}, saved after each",
        },
        example=example(context.renderer, ids, [False] * len(ids)),
        notes=asked.notes(),
    )
