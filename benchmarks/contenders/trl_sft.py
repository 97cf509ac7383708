"""TRL's SFTTrainer on tokenised demonstrations."""

from gate import Gate

gate = Gate()

from importlib.util import find_spec  # noqa: E402

from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402
from trl_parts import Rounds, settings_without_logging  # noqa: E402


def rows() -> list[dict]:
    return [
        {
            "input_ids": row["prompt"] + row["chosen"],
            "completion_mask": [0] * len(row["prompt"]) + [1] * len(row["chosen"]),
        }
        for row in gate.rows()
    ]


def attention(wanted: str) -> str:
    """Return the attention; best: flash attention where it can be imported."""
    found = wanted == "best" and gate.on_gpu and find_spec("flash_attn") is not None
    return "flash_attention_2" if found else "sdpa"


def main() -> None:
    job, data = gate.job, rows()
    given = {"per_device_train_batch_size": job["batch"], "max_length": 1024} | job["options"]
    tokens = sum(len(row["input_ids"]) for row in data)
    rounds = Rounds(gate, len(data) // job["batch"], lambda: tokens)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            job["model"],
            dtype="float32",
            attn_implementation=attention(given.pop("attention", "sdpa")),
        ),
        args=SFTConfig(
            **settings_without_logging(gate),
            completion_only_loss=True,
            num_train_epochs=100000,
            **given,
        ),
        train_dataset=Dataset.from_list(data),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        callbacks=[rounds],
    )
    rounds.steps = -(-len(trainer.train_dataset) // job["batch"])  # packing leaves fewer rows
    trainer.train()


main()
