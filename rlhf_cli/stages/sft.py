"""Step 1, supervised fine-tuning: raise the likelihood of the demonstrations' responses."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rlhf_cli.artifacts.layout import MODEL
from rlhf_cli.artifacts.store import model_folder
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Batching, Config, SelectBy, Stage
from rlhf_cli.core.batches import SFTBatch
from rlhf_cli.data.collate import sft_batches
from rlhf_cli.data.encode import EncodedDemonstration, EncodedPrompt
from rlhf_cli.data.order import num_batches, num_steps, steps_after
from rlhf_cli.models.capabilities import separates_packed_texts
from rlhf_cli.models.reward_head import transformers_has_class
from rlhf_cli.models.unpadding.attention import reads_unpadded
from rlhf_cli.report.preview import Preview
from rlhf_cli.runtime.engine import Engine, Network
from rlhf_cli.stages import work
from rlhf_cli.stages.judging import RewardModel
from rlhf_cli.stages.saving import Saver, open_saver
from rlhf_cli.stages.setting import (
    Setting,
    lr_factor,
    open_recorder,
    open_setting,
    require_finite_loss,
)
from rlhf_cli.stages.showing import BeforeAfter, ask, example, prompts_of
from rlhf_cli.stages.tokens import count_targets, mean_loss, token_loss
from rlhf_cli.telemetry.progress import short
from rlhf_cli.telemetry.recorder import Recorder

Step = list[SFTBatch]


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Train on the demonstrations, keep the chosen epoch, write model/."""
    setting = open_setting(cfg)
    setting.require_whole_shares({"sft.batch.size": cfg.sft.batch.size})
    data = setting.encoded("demonstrations")
    engine = setting.engine(setting.causal_lm(dropout=cfg.sft.dropout), cfg.sft.optim)
    course = Course.of(setting, engine, data.train, data.select, out)
    saver = open_saver(setting, out, {"model": engine})
    resumed = saver.resumed
    with open_recorder(
        setting,
        out,
        stage="sft",
        total_steps=course.total,
        resumed=resumed and resumed.recorder,
    ) as recorder:
        saver.recorder_state = recorder.state
        if resumed:
            course.go_on(resumed.state)
        else:
            data.tell(recorder)
            setting.tell(recorder, engine)
            foresee(setting, engine, recorder)
            course.shown.ask_before(engine)
        fit(course, recorder, saver)
        tell_kept(course.kept, cfg, recorder)
        course.shown.tell(recorder)
        if cfg.sft.select_by is SelectBy.last:
            setting.export(engine, out / MODEL)
    return course.kept.metrics


def tell_kept(kept: "Kept", cfg: Config, recorder: Recorder) -> None:
    """Say which epoch was kept, and by which number, where one was chosen."""
    select_by = cfg.sft.select_by
    if select_by is not SelectBy.last:
        number, by = kept.metrics["sft/epoch"], f"sft/{select_by.name}"
        recorder.note(
            f"kept epoch {number:.0f} of {cfg.sft.epochs}, the best by {by} {short(kept.metrics[by])}"
        )


def total_steps(cfg: Config, num_demonstrations: int) -> int:
    """Return how many optimizer steps the stage takes."""
    sft = cfg.sft
    return num_steps(num_demonstrations, sft.batch.size, epochs=sft.epochs, max_steps=sft.max_steps)


def foresee(setting: Setting, engine: Engine, recorder: Recorder) -> None:
    """Refuse before anything is trained what this model cannot do, and say how a reward model is made."""
    cfg, config = setting.cfg, engine.model.config
    if cfg.sft.batching is Batching.packed and not engine(separates_packed_texts):
        raise UserError(
            f"sft.batching=packed: {type(engine.model).__name__} lets the texts of a row see each other; "
            "use sft.batching=grouped"
        )
    if Stage.rm in cfg.stage and cfg.parents.rm is None and not transformers_has_class(config):
        recorder.note(
            f"transformers has no class of reward models for {config.model_type}: ours is made of its "
            "generic parts; rlhf_cli.models.load.load_reward_model loads it (docs/models.md)"
        )


def steps_of(
    setting: Setting, train: Sequence[EncodedDemonstration], epoch: int, *, padded: bool = False
) -> Sequence[Step]:
    """One epoch: a list of optimizer steps, each a list of this process's microbatches.

    padded: the model reads padding.
    """
    cfg = setting.cfg
    return sft_batches(
        train,
        batch=cfg.sft.batch,
        batching=cfg.sft.batching,
        loss_on=cfg.sft.loss_on,
        pad_id=setting.renderer.pad_id,
        max_tokens=cfg.data.max_prompt_tokens + cfg.data.max_response_tokens,
        seed=cfg.seed,
        epoch=epoch,
        share=setting.world.share,
        padded=padded,
    )


@dataclass(slots=True, kw_only=True)
class Kept:
    """The epoch that is kept, and why: `value` is what it was chosen by, larger is better."""

    metrics: dict[str, float]
    value: float


@dataclass(slots=True, kw_only=True)
class Course:
    """The whole of the training, and where it stands: `done` optimizer steps."""

    setting: Setting
    engine: Engine
    train: Sequence[EncodedDemonstration]
    select: Sequence[EncodedDemonstration]
    shown: BeforeAfter
    judge: "Judge | None"
    out: Path
    done: int = 0
    kept: Kept | None = None

    @classmethod
    def of(
        cls, setting: Setting, engine: Engine, train: Sequence, select: Sequence, out: Path
    ) -> "Course":
        cfg = setting.cfg
        judged = cfg.evaluation.prompts if cfg.sft.select_by is SelectBy.rm_score else 1
        prompts = prompts_of(setting, select, most=max(cfg.samples, judged))
        require_selection(cfg, select, prompts)
        return cls(
            setting=setting,
            engine=engine,
            train=train,
            select=select,
            shown=BeforeAfter(setting=setting, prompts=prompts[: cfg.samples]),
            judge=Judge(setting, prompts) if cfg.sft.select_by is SelectBy.rm_score else None,
            out=out,
        )

    @property
    def per_epoch(self) -> int:
        return num_batches(len(self.train), self.setting.cfg.sft.batch.size)

    @property
    def total(self) -> int:
        return total_steps(self.setting.cfg, len(self.train))

    def steps_of(self, epoch: int) -> Sequence[Step]:
        padded = not reads_unpadded(self.engine.model)
        return steps_of(self.setting, self.train, epoch, padded=padded)

    def state(self) -> dict:
        kept = None if self.kept is None else asdict(self.kept)
        return {"done": self.done, "kept": kept, "shown": self.shown.state()}

    def go_on(self, state: dict) -> None:
        self.done, self.shown.texts = state["done"], state["shown"]
        self.kept = None if state["kept"] is None else Kept(**state["kept"])


def fit(course: Course, recorder: Recorder, saver: Saver) -> None:
    """All epochs; after each one the selection loss, and the weights kept if they are the best so far."""
    setting, engine = course.setting, course.engine
    cfg, per_epoch = setting.cfg.sft, course.per_epoch
    for step, microbatches in steps_after(
        course.done, per_epoch=per_epoch, total=course.total, steps_of=course.steps_of
    ):
        setting.seed_dropout("sft", step)
        with setting.clock.part("learn"):
            metrics = learn(engine, microbatches, lr_factor(cfg.schedule, step - 1, course.total))
        setting.clock.count(**work.of_texts(engine, microbatches))
        if step % per_epoch == 0 or step == course.total:
            metrics |= close_epoch(course, step, metrics)
        recorder.log(metrics, step)
        course.done = step
        saver.after_step(step, course.state)


def learn(engine: Engine, microbatches: Step, factor: float) -> dict[str, float]:
    """One optimizer step; every supervised token of the whole step weighs the same."""
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


def close_epoch(course: Course, step: int, metrics: dict[str, float]) -> dict[str, float]:
    """Judge the weights at the end of an epoch or of the stage, and keep them if none were better."""
    select_by = course.setting.cfg.sft.select_by
    found = {"sft/epoch": step / course.per_epoch} | selection_loss(course)
    if course.judge is not None:
        found["sft/rm_score"] = course.judge.mean_score(course.engine)
    value = worth(found, select_by, step)
    if course.kept is None or value > course.kept.value:
        course.kept = Kept(metrics=metrics | found, value=value)
        if select_by is not SelectBy.last:
            course.setting.export(course.engine, course.out / MODEL)
        if select_by is not SelectBy.last or step == course.total:
            course.shown.ask_after(course.engine)
    return found


def selection_loss(course: Course) -> dict[str, float]:
    """Mean negative log-likelihood per supervised token of the demonstrations to select by."""
    if not course.select:
        return {}
    padded = not reads_unpadded(course.engine.model)
    with course.setting.clock.part("score"):
        steps = steps_of(course.setting, course.select, epoch=0, padded=padded)
        return {"sft/eval_loss": mean_loss(course.engine, [one for step in steps for one in step])}


def require_selection(cfg: Config, select: Sequence, prompts: list) -> None:
    """Refuse to choose between epochs where there is nothing to choose by; raw texts have no prompt."""
    needed = {SelectBy.eval_loss: select, SelectBy.rm_score: prompts}
    if not needed.get(cfg.sft.select_by, [True]):
        raise UserError(
            f"sft.select_by={cfg.sft.select_by.name}: no demonstration is left to select by "
            f"(data.select_fraction={cfg.data.select_fraction:g} splits by the opening question); "
            "add rows with other questions, or use sft.select_by=last"
        )


def worth(metrics: dict[str, float], select_by: SelectBy, step: int) -> float:
    """What an epoch is chosen by; InstructGPT chose by reward-model score, not by validation loss."""
    if select_by is SelectBy.eval_loss:
        return -metrics["sft/eval_loss"]
    return metrics["sft/rm_score"] if select_by is SelectBy.rm_score else float(step)


class Judge:
    """A reward model that scores the policy's answers to prompts of the selection side (rm_score)."""

    def __init__(self, setting: Setting, prompts: list[EncodedPrompt]):
        folder = model_folder(Path(setting.cfg.sft.reward_model))
        self.setting = setting
        self.prompts = prompts[: setting.cfg.evaluation.prompts]
        self.reward = RewardModel.load(setting, folder, self.prompts)

    def mean_score(self, network: Network) -> float:
        """Mean score of one sampled answer a prompt."""
        answers = ask(self.setting, network, self.prompts, self.setting.cfg.seed)
        return float(self.reward.score_answers(answers).mean())


def preview(cfg: Config, inputs: dict[str, Path]) -> Preview:
    """What a dry run shows: counts, steps, and one demonstration with its supervised tokens coloured."""
    setting = open_setting(cfg)
    data = setting.encoded("demonstrations")
    steps = steps_of(setting, data.train, epoch=0, padded=cfg.runtime.reference_implementation)
    first = steps[0][0]
    return Preview(
        facts={
            "demonstrations": f"{len(data.train)} to train on, {len(data.select)} to select by, "
            f"{len(data.held_out)} held out",
            "optimizer steps": f"{len(steps)} an epoch, {total_steps(cfg, len(data.train))} in all",
            "supervised tokens": f"{sum(count_targets(step) for step in steps)} an epoch",
            "first microbatch": " x ".join(str(n) for n in first.tokens.shape)
            + f", {int(first.mask.sum())} tokens",
        },
        example=example(setting.renderer, data.train[0].ids, data.train[0].loss_mask),
        notes=data.report.plain().splitlines(),
    )
