"""This project, by the code of its stages: SFT and reward-model steps, PPO iterations, sampling."""

from pathlib import Path

from gate import Gate

gate = Gate()

from workloads import (  # noqa: E402
    Material,
    models_of,
    prompts,
    rm_epochs,
    rollouts,
    sampling_params,
    setting_of,
    sft_epochs,
)

from rlhf_cli.stages.ppo.loop import train  # noqa: E402
from rlhf_cli.stages.rollout.episodes import batches  # noqa: E402


def run_epochs(epochs_of, setting, material: Material) -> None:
    """Run rounds of one epoch each, which includes making its batches."""
    epoch, tokens = epochs_of(setting, material)
    number = 0
    while True:
        gate.wait()
        epoch(number)
        gate.done(tokens)
        number += 1


def run_sft(setting, material: Material) -> None:
    run_epochs(sft_epochs, setting, material)


def run_rm(setting, material: Material) -> None:
    run_epochs(rm_epochs, setting, material)


class Recorder:
    """A recorder that ends a round where PPO logs an iteration, and waits for the next."""

    def __init__(self, rows: int):
        self.rows = rows

    def log(self, metrics: dict, step: int) -> None:
        gate.done(round(metrics["objective/response_length"] * self.rows))
        gate.wait()

    def warn(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def run_ppo(setting, material: Material) -> None:
    cfg = setting.cfg.ppo
    models = models_of(setting, material)
    given = batches(setting, prompts(material.rows), cfg)
    gate.wait()
    train(
        models, given, sampling_params(setting, material), cfg, Recorder(cfg.batch.rollout), seed=0
    )


def run_rollout(setting, material: Material) -> None:
    """Run rounds of the sampling of the PPO stage, without scores."""
    rollout = rollouts(setting, models_of(setting, material), material)
    number = 0
    while True:
        gate.wait()
        found = rollout(number)
        gate.done(int(found.response_mask.sum()))
        number += 1


if __name__ == "__main__":
    job = gate.job
    run = {"sft": run_sft, "rm": run_rm, "ppo": run_ppo, "rollout": run_rollout}[job["task"]]
    given = Material(
        model=Path(job["model"]),
        reward=Path(job["reward"]),
        rows=gate.rows(),
        new_tokens=job["new_tokens"],
    )
    words = (f"runtime.device={job['device']}", "runtime.num_threads=1", *job["options"])
    run(setting_of(given, *words), given)
