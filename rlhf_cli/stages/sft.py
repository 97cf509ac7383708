"""Step 1, supervised fine-tuning: raise the likelihood of the demonstrations' responses."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rlhf_cli.artifacts.layout import MODEL
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Batching, SelectBy
from rlhf_cli.config.schema.run import Config
from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.data.collate import BatchOptions, of_epoch, sft_batches
from rlhf_cli.data.encode import EncodedDemonstration
from rlhf_cli.data.order import num_batches, num_steps, steps_after
from rlhf_cli.models.capabilities import separates_packed_texts
from rlhf_cli.models.forward import reads_unpadded
from rlhf_cli.models.reward_head import transformers_has_class
from rlhf_cli.runtime.engine import Engine
from rlhf_cli.stages.context import Encoded, StageContext, open_context
from rlhf_cli.stages.dry_run import Preview
from rlhf_cli.stages.samples import BeforeAfter, example, prompts_of
from rlhf_cli.stages.saving import Saver
from rlhf_cli.stages.sft_selection import (
    ScoreSelector,
    SelectedEpoch,
    note_selected,
    require_selection,
    selection_value,
)
from rlhf_cli.stages.stage_run import open_run
from rlhf_cli.stages.training import (
    count_targets,
    lr_factor,
    mean_loss,
    require_finite_loss,
    token_loss,
    work_on_texts,
)
from rlhf_cli.telemetry.recorder import Recorder

Step = list[SFTBatch]


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Train on the demonstrations, keep the selected epoch, write model/."""
    context = open_context(cfg)
    context.require_whole_shares({"sft.batch.size": cfg.sft.batch.size})
    data = context.encoded("demonstrations")
    engine = context.engine(context.causal_lm(dropout=cfg.sft.dropout), cfg.sft.optim)
    training = Training.of(context, engine, data, out)
    with open_run(
        context,
        out,
        stage="sft",
        engines={"model": engine},
        total_steps=training.total_steps,
        samples=training.samples,
    ) as stage_run:
        recorder = stage_run.recorder
        if stage_run.resumed:
            training.load_state_dict(stage_run.resumed.state)
        else:
            data.print_report(recorder)
            context.print_notes(recorder, engine)
            check_model(context, engine, recorder)
            training.samples.sample("before", engine)
        fit(training, recorder, stage_run.saver)
        note_selected(training.selected, cfg, recorder)
        training.samples.show(recorder)
        if cfg.sft.select_by is SelectBy.last:
            context.export(engine, out / MODEL)
    return training.selected.metrics


def total_steps(cfg: Config, num_demonstrations: int) -> int:
    """Return how many optimizer steps the stage takes."""
    sft = cfg.sft
    return num_steps(num_demonstrations, sft.batch.size, epochs=sft.epochs, max_steps=sft.max_steps)


def check_model(context: StageContext, engine: Engine, recorder: Recorder) -> None:
    """Refuse what this model cannot do, and name the remedy, before training."""
    cfg, config = context.cfg, engine.model.config
    if cfg.sft.batching is Batching.packed and not engine(separates_packed_texts):
        raise UserError(
            f"sft.batching=packed: {type(engine.model).__name__} lets the texts of a row see each other; "
            "use sft.batching=grouped"
        )
    if "rm" in cfg.stage and cfg.parents.rm is None and not transformers_has_class(config):
        recorder.note(
            f"transformers has no class of reward models for {config.model_type}: ours is made of its "
            "generic parts; rlhf_cli.models.load.load_reward_model loads it (docs/models.md)"
        )


def steps_of(
    context: StageContext,
    train: Sequence[EncodedDemonstration],
    epoch: int,
    *,
    padded: bool = False,
) -> Sequence[Step]:
    """Return one epoch: a list of optimizer steps, each a list of this process's microbatches.

    padded: the model reads padding.
    """
    cfg = context.cfg
    options = BatchOptions(
        batch=cfg.sft.batch,
        pad_id=context.renderer.pad_id,
        seed=cfg.seed,
        epoch=epoch,
        share=context.world.share,
        padded=padded,
    )
    return sft_batches(
        train,
        options,
        batching=cfg.sft.batching,
        loss_on=cfg.sft.loss_on,
        max_tokens=cfg.data.max_prompt_tokens + cfg.data.max_response_tokens,
    )


@dataclass(slots=True, kw_only=True)
class Training:
    """What is trained, on what, and the epoch selected so far. selector: of select_by=rm_score."""

    context: StageContext
    engine: Engine
    train: Sequence[EncodedDemonstration]
    select: Sequence[EncodedDemonstration]
    samples: BeforeAfter
    selector: ScoreSelector | None
    out: Path
    steps_per_epoch: int
    total_steps: int
    selected: SelectedEpoch | None = None

    @classmethod
    def of(cls, context: StageContext, engine: Engine, data: Encoded, out: Path) -> "Training":
        cfg = context.cfg
        by_score = cfg.sft.select_by is SelectBy.rm_score
        most = max(cfg.samples, cfg.evaluation.prompts if by_score else 1)
        prompts = prompts_of(context, data.select, most=most)
        require_selection(cfg, data.select, prompts)
        num = len(of_epoch(data.train, 0))
        return cls(
            context=context,
            engine=engine,
            train=data.train,
            select=data.select,
            samples=BeforeAfter(context=context, prompts=prompts[: cfg.samples]),
            selector=ScoreSelector(context, prompts) if by_score else None,
            out=out,
            steps_per_epoch=num_batches(num, cfg.sft.batch.size),
            total_steps=total_steps(cfg, num),
        )

    @property
    def padded(self) -> bool:
        """Return whether the model reads padding."""
        return not reads_unpadded(self.engine.model)

    def state_dict(self) -> dict:
        return {"selected": self.selected and asdict(self.selected)}

    def load_state_dict(self, state: dict) -> None:
        self.selected = state["selected"] and SelectedEpoch(**state["selected"])

    def tensors(self) -> dict:
        return {}


def fit(training: Training, recorder: Recorder, saver: Saver) -> None:
    """Run all epochs; after each compute the selection value and keep the weights if none were better."""
    context, engine = training.context, training.engine
    cfg, per_epoch, total = context.cfg.sft, training.steps_per_epoch, training.total_steps
    for step, microbatches in steps_after(
        engine.steps,
        per_epoch=per_epoch,
        total=total,
        steps_of=lambda epoch: steps_of(context, training.train, epoch, padded=training.padded),
    ):
        context.seed_dropout("sft", step)
        with context.clock.phase("learn"):
            metrics = learn(engine, microbatches, lr_factor(cfg.schedule, step - 1, total))
        context.clock.count(**work_on_texts(engine, microbatches))
        if step % per_epoch == 0 or step == total:
            metrics |= end_epoch(training, step, metrics)
        recorder.log(metrics, step)
        saver.after_step(step, training)


def learn(engine: Engine, microbatches: Step, factor: float) -> dict[str, float]:
    """Take one optimizer step; every supervised token of the whole step weighs the same."""
    engine.train()
    found = token_loss(engine, microbatches)
    require_finite_loss(found.loss, "sft")
    norm = engine.step(factor)
    return {
        "sft/loss": found.loss,
        "sft/lr": engine.peak_lr * factor,
        "sft/grad_norm": norm,
        "sft/tokens": found.tokens,
    } | engine.device.peak_memory()


def end_epoch(training: Training, step: int, metrics: dict[str, float]) -> dict[str, float]:
    """Evaluate the weights at the end of an epoch or of the stage; keep them if none were better."""
    select_by = training.context.cfg.sft.select_by
    found = {"sft/epoch": step / training.steps_per_epoch} | selection_loss(training)
    if training.selector is not None:
        found["sft/rm_score"] = training.selector.mean_score(training.engine)
    value = selection_value(found, select_by, step)
    if training.selected is None or value > training.selected.value:
        training.selected = SelectedEpoch(metrics=metrics | found, value=value)
        if select_by is not SelectBy.last:
            training.context.export(training.engine, training.out / MODEL)
        if select_by is not SelectBy.last or step == training.total_steps:
            training.samples.sample("after", training.engine)
    return found


def selection_loss(training: Training) -> dict[str, float]:
    """Return the mean negative log-likelihood per supervised token of the selection demonstrations."""
    if not training.select:
        return {}
    with training.context.clock.phase("score"):
        steps = steps_of(training.context, training.select, epoch=0, padded=training.padded)
        return {
            "sft/eval_loss": mean_loss(training.engine, [one for step in steps for one in step])
        }


def preview(cfg: Config, inputs: dict[str, Path]) -> Preview:
    """Return what a dry run shows: counts, steps, one demonstration with its supervised tokens."""
    context = open_context(cfg)
    data = context.encoded("demonstrations")
    num = len(of_epoch(data.train, 0))
    steps = steps_of(context, data.train, epoch=0, padded=cfg.runtime.reference_implementation)
    first = steps[0][0]
    return Preview(
        facts={
            "demonstrations": f"{num} to train on, {len(data.select)} to select by, "
            f"{len(data.held_out)} held out",
            "optimizer steps": f"{len(steps)} per epoch, {total_steps(cfg, num)} in total",
            "supervised tokens": f"{sum(count_targets(step) for step in steps)} per epoch",
            "first microbatch": " x ".join(str(n) for n in first.tokens.shape)
            + f", {int(first.mask.sum())} tokens",
        },
        example=example(context.renderer, data.train[0].ids, data.train[0].loss_mask),
        notes=data.report.plain().splitlines(),
    )
