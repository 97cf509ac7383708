"""TRL's experimental PPOTrainer (up to TRL 1.12), 2 epochs of 2 minibatches per iteration."""

from gate import Gate

gate = Gate()

from datasets import Dataset  # noqa: E402
from material import END, PAD  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer  # noqa: E402
from trl_parts import Counter, Rounds, settings_without_logging  # noqa: E402


def counted(counter: Counter):
    """Return the sampling of TRL, with its response tokens counted."""
    original = ppo_trainer.batch_generation

    def batch_generation(model, queries, *rest):
        found, logits = original(model, queries, *rest)
        counter.add((found[:, queries.shape[1] :] != PAD).sum())
        return found, logits

    return batch_generation


def settings(job: dict) -> dict:
    """Return settings with one accumulation step; with more, TRL joins the minibatches."""
    rollout = 2 * job["batch"]
    return {
        "per_device_train_batch_size": rollout,
        "gradient_accumulation_steps": 1,
        "num_mini_batches": 2,
        "num_ppo_epochs": 2,
        "local_rollout_forward_batch_size": rollout,
        "response_length": job["new_tokens"],
        "temperature": 1.0,
        "stop_token_id": END,
        "missing_eos_penalty": 1.0,
        "num_sample_generations": 0,
        "total_episodes": 10**6,
    } | job["options"]


def main() -> None:
    job, counter = gate.job, Counter()
    ppo_trainer.batch_generation = counted(counter)
    tokenizer = AutoTokenizer.from_pretrained(job["model"], padding_side="left")

    def causal():
        return AutoModelForCausalLM.from_pretrained(job["model"], dtype="float32")

    def scalar():
        return AutoModelForSequenceClassification.from_pretrained(
            job["reward"], num_labels=1, dtype="float32"
        )

    data = Dataset.from_list([{"input_ids": row["prompt"]} for row in gate.rows()])
    trainer = PPOTrainer(
        args=PPOConfig(**settings_without_logging(gate), **settings(job)),
        processing_class=tokenizer,
        model=causal(),
        ref_model=causal(),
        reward_model=scalar(),
        value_model=scalar(),
        train_dataset=data,
        eval_dataset=data,
        callbacks=[Rounds(gate, 1, counter.take)],
    )
    trainer.train()


main()
