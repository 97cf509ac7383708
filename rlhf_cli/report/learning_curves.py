"""Learning curves of the stages, from their metrics.jsonl: small charts, one per kind of figure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.report.run_files import Lines
from rlhf_cli.report.run_groups import BETWEEN, COLOURS, Group
from rlhf_cli.report.study_charts import Block

MOST = 300  # points of a curve; a longer one is thinned by plain means
SHARED = ("objective", "rewards")  # stages name some metrics so, as other programs do
Points = list[tuple[float, float]]


@dataclass(slots=True, kw_only=True, frozen=True)
class Panel:
    """A small chart. metrics: last part of a metric's name -> its name here; the first one is plain.

    include: values that the vertical axis has in any case.
    """

    title: str
    caption: str
    metrics: Mapping[str, str]
    include: Sequence[float] = ()


@dataclass(slots=True, kw_only=True, frozen=True)
class CurvesOfRun:
    """The curves of a stage of a run: metric -> points. run: its name, where its group has several."""

    group: Group
    run: str
    colour: str
    curves: Mapping[str, Points]


PANELS = (
    Panel(
        title="Loss",
        caption="Lower is better. A held-out loss that rises while the other falls: the stage learns "
        "its examples by heart.",
        metrics={"loss": "training", "eval_loss": "held out"},
    ),
    Panel(
        title="Accuracy",
        caption="Share of pairs in which the preferred response is scored higher; 0.5 is chance.",
        metrics={"accuracy": "training", "accuracies": "training", "eval_accuracy": "held out"},
        include=(0.5,),
    ),
    Panel(
        title="Score",
        caption="Mean score of the responses by the reward model: what the stage raises.",
        metrics={
            "scores": "all responses",
            "kept_scores": "those learned from",
            "best_scores": "best of each prompt",
            "rm_score": "held-out prompts",
        },
    ),
    Panel(
        title="Distance from SFT",
        caption="KL in nats per response. The further, the more room to exploit the reward model.",
        metrics={"kl": "KL"},
    ),
    Panel(
        title="Length",
        caption="Mean tokens per response. If it grows along with the score, length may be rewarded.",
        metrics={"response_length": "tokens"},
    ),
    Panel(
        title="Ended",
        caption="Share of responses that end before the limit; it should stay close to 1.",
        metrics={"eos_rate": "ended"},
        include=(0.9, 1.0),
    ),
    Panel(
        title="Entropy",
        caption="Variety left in the choice of the next token, in nats; near 0 all answers are alike.",
        metrics={"entropy": "entropy"},
    ),
)


def learning_curves(groups: Sequence[Group], colours: Mapping[str, str]) -> list[Block]:
    """Return a heading per stage with its charts; nothing for a stage without curves.

    Curves have the colour of the stage's policy; of several groups of runs, one of their own.
    """
    found = []
    for stage, spec in STAGES.items():
        runs = [
            CurvesOfRun(
                group=group,
                run=run.state.name if len(group.runs) > 1 else "",
                colour=f"c{i % COLOURS + 1}" if group.label else colours.get(spec.label, "accent"),
                curves=curves_of(run.metrics.get(stage, ()), stage),
            )
            for i, group in enumerate(groups)
            for run in group.runs
        ]
        charts = [chart for panel in PANELS if (chart := _chart(panel, runs))]
        if charts:
            title = f"{spec.label[0].upper()}{spec.label[1:]}: {spec.title}"
            found += [{"kind": "heading", "text": title}, *charts]
    return found


def _chart(panel: Panel, runs: Sequence[CurvesOfRun]) -> Block | None:
    series = [one for run in runs for one in _series(panel, run)]
    if not series:
        return None
    legend = dict.fromkeys((one["legend"], one["colour"], one["dashed"]) for one in series)
    return {
        "kind": "lines",
        "small": True,
        "title": panel.title,
        "caption": panel.caption,
        "legend": [{"name": n, "colour": c, "dashed": d} for n, c, d in legend if len(legend) > 1],
        "x": {"label": "step", "log": False},
        "y": {"label": "", "log": False, "include": list(panel.include)},
        "series": series,
        "numbers": None,
    }


def _series(panel: Panel, run: CurvesOfRun) -> Iterator[dict[str, Any]]:
    """Yield the curves of a run; all but those of the plain metric are dashed, with dots."""
    plain = next(iter(panel.metrics.values()))
    for metric, name in panel.metrics.items():
        if points := thinned(run.curves.get(metric, [])):
            yield {
                "name": ", ".join(word for word in (name, run.run) if word),
                "legend": BETWEEN.join(word for word in (name, run.group.label) if word),
                "colour": run.colour if name == plain or run.group.label else "ink",
                "dashed": name != plain,
                "radius": 0 if name == plain else 2.5,
                "points": [{"x": x, "y": y} for x, y in points],
                "fit": None,
            }


def curves_of(lines: Lines, stage: str) -> dict[str, Points]:
    """Return {metric: its (step, value)} of the charts' metrics, known by the last part of their names."""
    known = {
        f"{before}/{metric}": metric
        for panel in PANELS
        for metric in panel.metrics
        for before in (stage, *SHARED)
    }
    found: dict[str, Points] = {}
    for one in lines:
        for name in known.keys() & one.keys() if "step" in one else ():
            if one[name] is not None:
                found.setdefault(known[name], []).append((float(one["step"]), float(one[name])))
    return found


def thinned(points: Points, most: int = MOST) -> Points:
    """Return at most so many points: means of runs of neighbours of equal number, the last one shorter."""
    size = -(-len(points) // most)
    if size <= 1:
        return points
    runs = [points[i : i + size] for i in range(0, len(points), size)]
    return [(fmean(x for x, _ in some), fmean(y for _, y in some)) for some in runs]
