"""TRL's SFTTrainer on demonstrations that are tokenised already."""

from gate import Gate

gate = Gate()

from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402
from trl_parts import QUIET, Rounds  # noqa: E402


def rows() -> list[dict]:
    return [
        {
            "input_ids": row["prompt"] + row["chosen"],
            "completion_mask": [0] * len(row["prompt"]) + [1] * len(row["chosen"]),
        }
        for row in gate.rows()
    ]


def main() -> None:
    job, data = gate.job, rows()
    given = {"per_device_train_batch_size": job["batch"], "max_length": 1024} | job["options"]
    tokens = sum(len(row["input_ids"]) for row in data)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(job["model"], dtype="float32"),
        args=SFTConfig(**QUIET, completion_only_loss=True, num_train_epochs=100000, **given),
        train_dataset=Dataset.from_list(data),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        callbacks=[Rounds(gate, len(data) // job["batch"], lambda: tokens)],
    )
    trainer.train()


main()
