"""TRL's RLOO and GRPO for scale: no value model, 4 responses per prompt, 2 epochs of 2 steps."""

from gate import Gate

gate = Gate()

from datasets import Dataset  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer  # noqa: E402
from trl_parts import Counter, Rounds, settings_without_logging, text  # noqa: E402

TRAINERS = {"rloo": (RLOOTrainer, RLOOConfig), "grpo": (GRPOTrainer, GRPOConfig)}


def settings(job: dict) -> dict:
    return {
        "per_device_train_batch_size": job["batch"],
        "steps_per_generation": 2,
        "num_iterations": 2,
        "num_generations": 4,
        "max_completion_length": job["new_tokens"],
        "temperature": 1.0,
        "beta": 0.05,
        "num_train_epochs": 100000,
    } | {name: value for name, value in job["options"].items() if name != "method"}


def main() -> None:
    job, counter = gate.job, Counter()
    trainer_class, config_class = TRAINERS[job["options"]["method"]]
    reward_tokenizer = AutoTokenizer.from_pretrained(job["reward"])

    class Counted(trainer_class):
        def _generate_and_score_completions(self, inputs):
            found = super()._generate_and_score_completions(inputs)
            counter.add(found["completion_mask"].sum())
            return found

    Counted(
        model=AutoModelForCausalLM.from_pretrained(job["model"], dtype="float32"),
        reward_funcs=AutoModelForSequenceClassification.from_pretrained(
            job["reward"], num_labels=1, dtype="float32"
        ),
        args=config_class(**settings_without_logging(gate), **settings(job)),
        train_dataset=Dataset.from_list([{"prompt": text(row["prompt"])} for row in gate.rows()]),
        processing_class=AutoTokenizer.from_pretrained(job["model"], padding_side="left"),
        reward_processing_classes=reward_tokenizer,
        callbacks=[Rounds(gate, 4, counter.take)],
    ).train()


main()
