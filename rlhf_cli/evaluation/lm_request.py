"""What `rlhf lm-eval` was asked for, as values: the model, the tasks, and how they are asked."""

from dataclasses import dataclass
from pathlib import Path

SPACE = " "


@dataclass(slots=True, frozen=True, kw_only=True)
class EvaluatedModel:
    """The model to evaluate. name: base, a stage, <stage>/best, or where it is. path: what is loaded.

    run: the run that it is of, None for another model. weights: their hash. chat: whether it was
    trained with a chat template. system: the system text that it was trained with.
    """

    name: str
    path: str
    revision: str | None = None
    tokenizer: str | None = None
    run: Path | None = None
    weights: str
    chat: bool = False
    system: str | None = None

    @property
    def title(self) -> str:
        return self.name if self.run is None else f"{self.run.resolve().name}/{self.name}"


@dataclass(slots=True, frozen=True, kw_only=True)
class ChatSpacing:
    """What separates the generation prompt of a chat template from a response. header: part of the prompt.

    A template may end a prompt with "Assistant:" and begin the response with " Paris". The harness joins
    prompt and option without a space where a template is applied, so that the model would be asked for
    "Assistant:Paris", which it never saw. space: that of the response, or nothing.
    """

    header: str
    space: str


@dataclass(slots=True, frozen=True, kw_only=True)
class LmEvalRequest:
    """A command. shots, limit: None for the task's own number and for all questions.

    chat: whether the model's chat template is applied. out: the file that keeps the figures.
    """

    model: EvaluatedModel
    tasks: tuple[str, ...]
    tasks_dir: Path | None
    limit: int | None
    shots: int | None
    batch: int
    chat: bool
    out: Path | None
