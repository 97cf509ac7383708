"""The accuracy and calibration of a reward model on held-out comparisons, in numbers and three lines."""

import torch
from torch import Tensor

from rlhf_cli.config.printable import one_line
from rlhf_cli.config.schema.run import Config
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.evaluation.comparisons import SPLITS, report, scored_rankings
from rlhf_cli.evaluation.respond import reward_scores
from rlhf_cli.runtime.engine import Network
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.samples import last_turn
from rlhf_cli.telemetry.recorder import Recorder

FORWARD = 64  # sequences per forward pass when only scores are wanted
SHOWN = 6  # groups of a split that are printed, those with the most pairs; report.json has all


def scores_of(
    context: StageContext, network: Network, comparisons: list[EncodedComparison]
) -> Tensor:
    """Return the scores (n,) of every response of every comparison, in order."""
    return reward_scores(
        network,
        sequences(comparisons),
        pad_id=context.renderer.pad_id,
        batch=FORWARD,
        world=context.world,
    )


def mean_scores(by_member: list[Tensor]) -> Tensor:
    """Return the members' mean score of each response, (n,)."""
    return torch.stack(by_member).mean(0)


def report_on(cfg: Config, held_out: list[EncodedComparison], by_member: list[Tensor]) -> dict:
    """Return the report on the scores of held-out comparisons; of several members, on their mean.

    members: what each reaches alone, of several.
    """
    rm = cfg.rm
    found, *alone = (
        report(scored_rankings(held_out, scores), ties=rm.ties.name, tie_param=rm.tie_param)
        for scores in (mean_scores(by_member), *(by_member if len(by_member) > 1 else ()))
    )
    return found | ({"members": alone} if alone else {})


def sequences(comparisons: list[EncodedComparison]) -> list[list[int]]:
    """Return every response of every comparison, in order."""
    return [ids for one in comparisons for ids in one.sequences()]


def print_report(recorder: Recorder, cfg: Config, found: dict, shifts: list[float]) -> None:
    """Print the report in three lines, what each member of an ensemble reaches alone, and the splits."""
    anchors = "demonstrations" if cfg.data.demonstrations else "preferred responses"
    moved = ", ".join(f"{-shift:+.3f}" for shift in shifts)
    recorder.note(f"scores shifted by {moved}: the {anchors} now score 0 on average")
    if not found["num_pairs"]:
        recorder.warn("no held-out pairs to evaluate the reward model on: raise data.eval_fraction")
        return
    if alone := [one["accuracy"][0] for one in found.get("members", ())]:
        each = ", ".join(f"{accuracy:.1%}" for accuracy in alone)
        recorder.note(f"held-out accuracy of each member: {each}; of their mean score:")
    text = f"held-out accuracy {interval_text(found['accuracy'])} on {found['num_pairs']} pairs"
    if found["accuracy_ceiling"]:
        text += f"; the annotators' noise allows {found['accuracy_ceiling'][0]:.1%}"
    recorder.note(text)
    recorder.note(
        f"preferring the longer response would give {found['length_baseline'][0]:.1%}; "
        f"score and length correlate {found['score_length_correlation']:+.2f}; ECE {found['ece']:.3f}"
    )
    for split in SPLITS:
        for text in split_lines(split, found[f"accuracy_by_{split}"]):
            recorder.note(text)


def split_lines(split: str, groups: dict[str, dict]) -> list[str]:
    """Return a line for each of the largest groups of a split; none where there is only one group."""
    if len(groups) < 2:
        return []
    largest = sorted(groups, key=lambda name: (-groups[name]["num_pairs"], name))[:SHOWN]
    lines = [
        f"{split} {one_line(name)}: accuracy {interval_text(groups[name]['accuracy'])} "
        f"on {groups[name]['num_pairs']} pairs"
        for name in largest
    ]
    left = len(groups) - len(largest)
    return lines + ([f"{left} more of {split} in report.json"] if left else [])


def interval_text(interval: tuple[float, float, float]) -> str:
    mean, low, high = interval
    return f"{mean:.1%} ({low:.1%} to {high:.1%})"


def scored_sample(
    cfg: Config, held_out: list[EncodedComparison], scores: Tensor
) -> list[dict[str, str]]:
    """Return the responses of a held-out comparison, best score first, with their scores (n,)."""
    rows = []
    few = held_out[: min(1, cfg.samples)]
    for one, found in zip(few, scored_rankings(held_out, scores), strict=False):
        row = {"prompt": last_turn(one.record.prompt)}
        for rank, place in enumerate(found.scores.argsort(descending=True).tolist(), start=1):
            row[f"{rank}: {float(found.scores[place]):+.2f}"] = one.record.responses[place]
        rows.append(row)
    return rows
