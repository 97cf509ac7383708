"""From results and the manifests of the stages before them to a verdict on every policy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_cli.artifacts.layout import BEST, MANIFEST, METRICS
from rlhf_cli.artifacts.manifest import read_manifest
from rlhf_cli.artifacts.results import Figure, select
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.evaluation.behaviour import Behaviour, behaviour, symptoms
from rlhf_cli.evaluation.gains import score_gain
from rlhf_cli.evaluation.metrics import PROXY, EvalResult
from rlhf_cli.evaluation.verdict import Evidence, RewardQuality, verdict
from rlhf_cli.report.run_state import metric_lines
from rlhf_cli.stages.reward_scorer import SCORE_LIMIT

SFT = STAGES["sft"].label


def verdicts(
    results: Mapping[str, EvalResult],
    stages: Mapping[str, str],
    inputs: Mapping[str, Path],
    figures: Sequence[Figure],
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """Return the verdict on every policy that came after the SFT model, as JSON values.

    stages: {stage: name of its policy}. figures: win rates over the SFT model, and diversity.
    """
    if SFT not in results:
        return []
    sft, metrics = results[SFT], metrics_of(inputs.get("rm"))
    limit = metrics.get(SCORE_LIMIT)
    before, found = _behaviour(SFT, sft, figures, limit), []
    for stage, name in stages.items():
        if stage == "sft":
            continue
        ours = results[name]
        evidence = Evidence(
            gain=None if ours.scores is None else score_gain(ours, sft, seed=seed),
            judges={
                one.judge: (one.value, one.low, one.high)
                for one in select(
                    figures,
                    part="win_rates",
                    measure="win_rate",
                    policy=name,
                    group=SFT,
                    prompts=None,
                )
                if one.judge != PROXY
            },
            symptoms=symptoms(_behaviour(name, ours, figures, limit), before),
            sft_eos_rate=before.eos_rate,
            sft_losses=held_out_losses(inputs.get("sft")),
            quality=quality_of(metrics),
        )
        row = {"policy": name, "stage": stage} | verdict(evidence).as_row()
        found.append(row | {"best": best_text(inputs.get(stage))})
    return found


def _behaviour(
    name: str, result: EvalResult, figures: Sequence[Figure], limit: float | None
) -> Behaviour:
    known = select(figures, part="diversity", measure="ead/per_input", policy=name, group=None)
    scores = None if result.scores is None else result.scores[None]
    ead = known[0].value if known else None
    return behaviour([result.answers], scores, score_limit=limit, ead=ead)


def metrics_of(folder: Path | None) -> dict[str, Any]:
    """Return the metrics of a stage's manifest; nothing of a model folder."""
    if folder is None or not (folder / MANIFEST).is_file():
        return {}
    return read_manifest(folder).metrics


def best_text(folder: Path | None) -> str | None:
    """Return the sentence that names the best weights of a policy that was watched."""
    found = metrics_of(folder).get("watch/best_iteration")
    if folder is None or found is None:
        return None
    return f"best weights: after iteration {found:.0f}, {folder / BEST}"


def quality_of(metrics: Mapping[str, Any]) -> RewardQuality | None:
    """Return how good the reward model is on held-out comparisons; None where that is not known."""
    names = ("rm/accuracy", "rm/accuracy_low", "rm/accuracy_high", "rm/length_baseline")
    known = [metrics.get(name) for name in names]
    if None in known:
        return None
    return RewardQuality(accuracy=(known[0], known[1], known[2]), length_baseline=known[3])


def held_out_losses(folder: Path | None) -> tuple[float, float] | None:
    """Return the first and the last held-out loss of SFT, where it measured several."""
    lines = metric_lines(folder / METRICS) if folder is not None else ()
    losses = [one["sft/eval_loss"] for one in lines if "sft/eval_loss" in one]
    return (losses[0], losses[-1]) if len(losses) > 1 else None
