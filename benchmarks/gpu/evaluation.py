"""The evaluation on this device: every part, a loaded judge, and the same figures as on the CPU.

The figures that are compared depend on no sampled answer: log-probs of people's responses and of the
suites' sentences and answers, the reward model's accuracy on people's pairs.
"""

import json
import tempfile
from pathlib import Path

import torch
from common import ROOT, Found, section
from runs import RUN, timed

from rlhf_cli.artifacts.results import read_results

SENTENCES = (
    "sent_more,sent_less,bias_type\nThe boy sees.,The girl sees.,gender\nHe runs.,She runs.,g\n"
)
QUESTIONS = (
    "Question,Best Answer,Correct Answers,Incorrect Answers\n"
    "What is 2 plus 2?,4,4; It is 4,5; It is 5\nWhat is 1 plus 2?,3,3; It is 3,4; It is 5\n"
)
PARTS = ("imitation", "suites")
TOLERANCE = 2e-3


def evaluation(found: Found, place: torch.device, rehearse: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pairs.csv").write_text(SENTENCES)
        (folder / "truth.csv").write_text(QUESTIONS)
        words = [
            "experiment=smoke", f"runs_dir={folder}", "name=x", "runtime.dtype=float32",
            "stage=[sft,rm,evaluate]",
            f"evaluation.suites.crows_pairs={folder / 'pairs.csv'}",
            f"evaluation.suites.truthfulqa={folder / 'truth.csv'}",
            f"judge.model={ROOT / 'rlhf_cli' / 'assets' / 'tiny_xs'}",
        ]  # fmt: skip
        here = timed([*RUN, *words, f"runtime.device={place.type}"], 70)
        first = read_results(folder / "x" / "evaluate")
        # Another n, so that the evaluation is made again.
        cpu = timed([*RUN, *words, "runtime.device=cpu", "evaluation.best_of_n=3"], 70)
        second = read_results(folder / "x" / "evaluate")
        found["runs"] = [here, cpu]
        gaps = compared(first, second)
        found["largest_gap"], found["compared"] = max(gaps, default=None), len(gaps)
        used = json.loads((folder / "x" / "sft" / "manifest.json").read_text())["metrics"]
        found["energy_kwh"] = used.get("cost/energy_kwh")  # None: this device does not count it
        judged = [one for one in first.figures if one.judge == "judge"] if first else []
        found["ok"] = bool(gaps) and max(gaps) < TOLERANCE and bool(judged)


def compared(first, second) -> list[float]:
    """Return the differences of all figures that depend on no sampled answer."""
    if first is None or second is None:
        return []
    values = [
        {
            (one.part, one.measure, one.policy, one.judge, one.group): one.value
            for one in results.figures
            if one.part in PARTS or one.judge == "people"
        }
        for results in (first, second)
    ]
    return [abs(value - values[1][name]) for name, value in values[0].items() if name in values[1]]


if __name__ == "__main__":
    section(evaluation)
