"""The accuracy and calibration of a reward model on held-out comparisons, in numbers and three lines."""

from rlhf_cli.config.schema.run import Config
from rlhf_cli.data.encode import EncodedComparison
from rlhf_cli.evaluation.comparisons import ScoredRanking, report, scored_rankings
from rlhf_cli.evaluation.respond import reward_scores
from rlhf_cli.runtime.engine import Network
from rlhf_cli.stages.context import StageContext
from rlhf_cli.stages.samples import last_turn
from rlhf_cli.telemetry.recorder import Recorder

FORWARD = 64  # sequences per forward pass when only scores are wanted


def evaluate_scores(
    context: StageContext, network: Network, held_out: list[EncodedComparison]
) -> dict:
    """Return the report on held-out comparisons."""
    cfg = context.cfg.rm
    scored = score_comparisons(context, network, held_out)
    return report(scored, ties=cfg.ties.name, tie_param=cfg.tie_param)


def score_comparisons(
    context: StageContext, network: Network, comparisons: list[EncodedComparison]
) -> list[ScoredRanking]:
    """Return every comparison with the model's scores of its responses."""
    scores = reward_scores(
        network,
        sequences(comparisons),
        pad_id=context.renderer.pad_id,
        batch=FORWARD,
        world=context.world,
    )
    return scored_rankings(comparisons, scores)


def sequences(comparisons: list[EncodedComparison]) -> list[list[int]]:
    """Return every response of every comparison, in order."""
    return [ids for one in comparisons for ids in one.sequences()]


def print_report(recorder: Recorder, cfg: Config, found: dict, shift: float) -> None:
    """Print the report in three lines."""
    anchors = "demonstrations" if cfg.data.demonstrations else "preferred responses"
    recorder.note(f"scores shifted by {-shift:+.3f}: the {anchors} now score 0 on average")
    if not found["num_pairs"]:
        recorder.warn("no held-out pairs to evaluate the reward model on: raise data.eval_fraction")
        return
    text = f"held-out accuracy {interval_text(found['accuracy'])} on {found['num_pairs']} pairs"
    if found["accuracy_ceiling"]:
        text += f"; the annotators' noise allows {found['accuracy_ceiling'][0]:.1%}"
    recorder.note(text)
    recorder.note(
        f"preferring the longer response would give {found['length_baseline'][0]:.1%}; "
        f"score and length correlate {found['score_length_correlation']:+.2f}; ECE {found['ece']:.3f}"
    )


def interval_text(interval: tuple[float, float, float]) -> str:
    mean, low, high = interval
    return f"{mean:.1%} ({low:.1%} to {high:.1%})"


def scored_sample(
    context: StageContext, network: Network, held_out: list[EncodedComparison]
) -> list[dict[str, str]]:
    """Return the responses of a few held-out comparisons, best score first, with their scores."""
    few = held_out[: min(1, context.cfg.samples)]
    rows = []
    for one, found in zip(few, score_comparisons(context, network, few), strict=True):
        row = {"prompt": last_turn(one.record.prompt)}
        for rank, place in enumerate(found.scores.argsort(descending=True).tolist(), start=1):
            row[f"{rank}: {float(found.scores[place]):+.2f}"] = one.record.responses[place]
        rows.append(row)
    return rows
