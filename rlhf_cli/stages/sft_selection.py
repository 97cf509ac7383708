"""Which epoch of SFT is kept: the last, or the best by the loss or by a reward model's scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_cli.artifacts.store import member_folders
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import SelectBy
from rlhf_cli.config.schema.run import Config
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.runtime.engine import Network
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.reward_scorer import RewardModel
from rlhf_cli.stages.samples import sample_answers
from rlhf_cli.telemetry.progress import short
from rlhf_cli.telemetry.recorder import Recorder


@dataclass(slots=True, kw_only=True)
class SelectedEpoch:
    """The epoch that is kept. value: what it was selected by, larger is better."""

    metrics: dict[str, float]
    value: float


def require_selection(cfg: Config, select: Sequence, prompts: list) -> None:
    """Refuse to select an epoch where there is nothing to select by; raw texts have no prompt."""
    needed = {SelectBy.eval_loss: select, SelectBy.rm_score: prompts}
    if not needed.get(cfg.sft.select_by, [True]):
        raise UserError(
            f"sft.select_by={cfg.sft.select_by.name}: no demonstration is left to select by "
            f"(data.select_fraction={cfg.data.select_fraction:g} splits by the opening question); "
            "add rows with other questions, or use sft.select_by=last"
        )


def selection_value(metrics: dict[str, float], select_by: SelectBy, step: int) -> float:
    """Return what an epoch is selected by; InstructGPT used reward-model scores, not validation loss."""
    if select_by is SelectBy.eval_loss:
        return -metrics["sft/eval_loss"]
    return metrics["sft/rm_score"] if select_by is SelectBy.rm_score else float(step)


def note_selected(selected: SelectedEpoch, cfg: Config, recorder: Recorder) -> None:
    """Print which epoch was kept and by which number, where there was a choice."""
    if cfg.sft.select_by is not SelectBy.last:
        epoch, by = selected.metrics["sft/epoch"], f"sft/{cfg.sft.select_by.name}"
        recorder.note(
            f"kept epoch {epoch:.0f} of {cfg.sft.epochs}, the best by {by} "
            f"{short(selected.metrics[by])}"
        )


class ScoreSelector:
    """A reward model that scores the policy's answers to prompts of the selection side (rm_score)."""

    def __init__(self, context: StageContext, prompts: list[EncodedPrompt]):
        folders = member_folders(Path(context.cfg.sft.reward_model))
        self.context = context
        self.prompts = prompts[: context.cfg.evaluation.prompts]
        self.reward = RewardModel.load(context, folders, self.prompts)

    def mean_score(self, network: Network) -> float:
        """Return the mean score of one sampled answer per prompt."""
        answers = sample_answers(self.context, network, self.prompts, self.context.cfg.seed)
        return float(self.reward.score_answers(answers).mean())
