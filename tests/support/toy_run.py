"""A run in this process: real planner, pipeline, saver, recorder and export, a model of four arms.

A stage takes a hundredth of a second, so that it can be disturbed at every single call of the system.
"""

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from rlhf_cli import worker
from rlhf_cli.artifacts.store import FREE, write_errors
from rlhf_cli.config import stage_table
from rlhf_cli.config.compose import thaw
from rlhf_cli.config.schema import Save
from rlhf_cli.config.schema.run import Config
from rlhf_cli.launch.exit_report import RunResult
from rlhf_cli.models.export import export
from rlhf_cli.pipeline import driver, plan
from rlhf_cli.runtime import watchdog
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.stage_run import open_run
from rlhf_cli.telemetry.timing import Clock
from tests.support.configuration import composed
from tests.support.tabular import engine, optim, policy_network

STEPS = 2
TOYS = MappingProxyType(
    {name: replace(spec, module=__name__) for name, spec in stage_table.STAGES.items()}
)


class Tokenizer:
    """A tokenizer of which only the file matters."""

    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")


def run(cfg: Config, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Raise the first arm's probability, from where the parent left it."""
    policy = engine(policy_network(torch.full((4,), 0.25)), optim(cfg.sft.optim.lr))
    if "sft" in inputs:
        parent = load_file(inputs["sft"] / "model" / "model.safetensors")
        policy.put("lm_head.weight", parent["lm_head.weight"])
    engines = {"policy": policy}
    context, loss = SimpleNamespace(cfg=cfg, world=World(), clock=Clock()), 0.0
    with open_run(context, out, stage="sft", engines=engines, total_steps=STEPS) as stage_run:
        for step in range(policy.steps + 1, STEPS + 1):
            loss = policy(lambda model: -model(torch.tensor([[0]])).logits[0, 0].log_softmax(0)[0])
            policy.backward(loss, last=True)
            policy.step(1.0)
            stage_run.recorder.log({"toy/loss": float(loss.detach())}, step)
            stage_run.saver.after_step(step)
        with write_errors(out / "model", FREE):
            export(
                policy.model, policy.weights(), Tokenizer(), out / "model", end_ids=[1], pad_id=0
            )
    return {"toy/steps": float(policy.steps)}


@cache
def thaw_once(text: str) -> Config:
    """Return the configuration of a worker; the real function is slow."""
    return thaw(json.loads(text))


def work_here(job: Path, runtime, *, coordinator=None) -> RunResult:
    """Run the worker of a stage in this process."""
    code = worker.main(str(job))
    left = job.parent / "failure.json"
    reason = json.loads(left.read_text())["reason"] if code and left.exists() else None
    return RunResult(code=code, interrupted=False, reason=reason)


def patch(patched: pytest.MonkeyPatch) -> None:
    """Make all runs of this process toy runs, without a way back."""
    for module in (stage_table, plan, driver):
        patched.setattr(module, "STAGES", TOYS)
    patched.setattr(driver, "run_workers", work_here)
    patched.setattr(driver, "checkout_commit", lambda: None)
    patched.setattr(worker, "thaw", lambda content: thaw_once(json.dumps(content)))
    patched.setattr(watchdog, "watch", lambda *place, several: None)
    patched.setattr(worker, "raise_on_first_signal", lambda: None)
    # a killed process loses nothing that it has written
    patched.setattr(os, "fsync", lambda handle: None)
    patched.setattr(worker, "_quiet_libraries", lambda: None)


def toy_run(
    *, lr: float = 0.1, keep_replaced: int = 1, dry_run: bool = False, stages=("sft", "rm")
) -> None:
    """Run `rlhf run` with toy stages that save after every step, in the working folder."""
    cfg = composed("experiment=smoke")
    save = Save(every_steps=1, every_minutes=None, keep=1, keep_replaced=keep_replaced)
    sft = replace(cfg.sft, optim=replace(cfg.sft.optim, lr=lr))
    cfg = replace(
        cfg,
        runs_dir="runs",
        name="run",
        dry_run=dry_run,
        stage=list(stages),
        save=save,
        sft=sft,
    )
    driver.run(cfg, command=["rlhf", "run"])


def finished(folder: Path) -> dict[str, object]:
    """Return every file of the finished stages below `folder`, without times; not the page of the run.

    Files that could not be removed have a name that ends with .gone and do not count.
    """
    found, run = {}, folder / "runs" / "run"
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        rest = name.startswith(".") or ".gone/" in name
        if path.is_file() and not rest and path.name not in ("manifest.json", "report.html"):
            found[name] = _rows(path) if path.name == "metrics.jsonl" else path.read_bytes()
    return found


def _rows(path: Path) -> list[dict]:
    """Return the lines of the steps, without times and the lines of starts."""
    timed = ("time", "speed/")
    rows = (json.loads(line) for line in path.read_text().splitlines())
    return [
        {k: v for k, v in row.items() if not k.startswith(timed)} for row in rows if "step" in row
    ]
