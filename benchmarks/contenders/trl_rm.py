"""TRL's RewardTrainer on tokenised comparisons."""

from gate import Gate

gate = Gate()

from datasets import Dataset  # noqa: E402
from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: E402
from trl import RewardConfig, RewardTrainer  # noqa: E402
from trl_parts import Rounds, settings_without_logging  # noqa: E402


def rows() -> list[dict]:
    return [
        {f"{side}_ids": row["prompt"] + row[side] for side in ("chosen", "rejected")}
        for row in gate.rows()
    ]


def main() -> None:
    job, data = gate.job, rows()
    given = {"per_device_train_batch_size": job["batch"], "max_length": 1024} | job["options"]
    if given.get("train_sampling_strategy") == "group_by_length":
        data = [row | {"length": max(map(len, row.values()))} for row in data]
    tokens = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in data)
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(
            job["reward"], num_labels=1, dtype="float32"
        ),
        args=RewardConfig(**settings_without_logging(gate), num_train_epochs=100000, **given),
        train_dataset=Dataset.from_list(data),
        processing_class=AutoTokenizer.from_pretrained(job["reward"]),
        callbacks=[Rounds(gate, len(data) // job["batch"], lambda: tokens)],
    )
    trainer.train()


main()
