"""Code that the TRL contenders share: the gate as a callback, and settings without logging."""

from collections.abc import Callable

from gate import Gate
from transformers import TrainerCallback

QUIET = {
    "output_dir": "/tmp/rlhf_benchmark_trl",  # nothing is written: save_strategy is "no"
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "logging_strategy": "no",
    "learning_rate": 1e-8,
    "seed": 0,
}


def settings_without_logging(gate: Gate) -> dict:
    """Return settings that switch logging off, for the device of the job."""
    return QUIET | {"use_cpu": not gate.on_gpu}


class Rounds(TrainerCallback):
    """A callback whose rounds are `steps` optimizer steps with all work of the trainer."""

    def __init__(self, gate: Gate, steps: int, tokens: Callable[[], int]):
        self.gate, self.steps, self.tokens, self.seen = gate, steps, tokens, 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.gate.wait()

    def on_step_end(self, args, state, control, **kwargs):
        self.seen += 1
        if self.seen % self.steps == 0:
            self.gate.done(self.tokens())
            self.gate.wait()


class Counter:
    """A counter of tokens since it was last read."""

    def __init__(self):
        self.tokens = 0

    def add(self, tokens) -> None:
        self.tokens += int(tokens)

    def take(self) -> int:
        taken, self.tokens = self.tokens, 0
        return taken


def text(ids: list[int]) -> str:
    """Return the text that the tokenizer of the benchmark encodes as these ids."""
    return " ".join(f"w{i}" for i in ids)
