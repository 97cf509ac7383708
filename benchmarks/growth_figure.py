"""The results of growth.py as a figure and as a table of slopes: RESULTS FIGURE [--into PAGE]."""

import argparse
import json
import math
from pathlib import Path

import matplotlib.pyplot as plt
from table import put

plt.rcParams |= {"svg.hashsalt": "growth", "svg.fonttype": "none", "font.size": 9}

AXES = {
    "batch": "responses per rollout, texts per step",
    "length": "tokens per response",
    "parameters": "parameters",
}
ROWS = {"seconds": "CPU seconds", "working": "MiB while it works", "kept": "MiB kept"}
COLOURS = {
    "generate": "#0072b2",
    "score": "#56b4e9",
    "learn": "#009e73",
    "sft step": "#d55e00",
    "rm step": "#cc79a7",
}


def slope(xs: list[float], ys: list[float]) -> float:
    """Return the slope by least squares on logarithms: 1 is linear, 0 is flat."""
    pairs = [(math.log(x), math.log(y)) for x, y in zip(xs, ys, strict=True) if y > 0]
    mean_x, mean_y = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    above = sum((x - mean_x) * (y - mean_y) for x, y in pairs)
    return above / sum((x - mean_x) ** 2 for x, _ in pairs)


def lines_of(what: str) -> list[str]:
    """Return the phases to show; those of a PPO iteration keep the same memory, shown once."""
    return ["generate", "sft step", "rm step"] if what == "kept" else list(COLOURS)


def draw(results: dict, figure: Path) -> None:
    """Draw time and memory along three axes; the dotted line is linear growth."""
    plots, grid = plt.subplots(
        len(ROWS), len(AXES), figsize=(9.5, 8.2), layout="constrained", sharey="row", sharex="col"
    )
    for row, (what, unit) in zip(grid, ROWS.items(), strict=True):
        for place, (axis, title) in zip(row, AXES.items(), strict=True):
            panel(place, results[axis], what)
            place.set_xlabel(title if what == "kept" else "")
        row[0].set_ylabel(unit)
    handles, labels = grid[0][0].get_legend_handles_labels()
    plots.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    plots.savefig(figure, metadata={"Date": None} if figure.suffix == ".svg" else None)


def panel(place, found: dict, what: str) -> None:
    """Draw one quantity along one axis."""
    ticks, highest = found["ticks"], 0.0
    for name in lines_of(what):
        numbers = found["parts"][name][what]
        highest = max(highest, *numbers)
        place.plot(ticks, numbers, "o-", color=COLOURS[name], ms=3, lw=1.2, label=name)
    guide = [1.5 * highest * tick / ticks[-1] for tick in ticks]
    place.plot(ticks, guide, ":", color="#888888", lw=1, label="linear")
    place.set(xscale="log", yscale="log")
    place.grid(which="major", color="#dddddd", lw=0.5)
    place.minorticks_off()
    place.set_xticks(ticks, [short(tick) for tick in ticks])


def short(tick: float) -> str:
    return f"{tick / 1e6:.3g}M" if tick >= 1e6 else str(tick)


def table(results: dict) -> str:
    """Return slopes over all points, and over the last three, where fixed costs matter least."""
    load, place = results["load"], results["machine"]
    lines = [
        f"{results['when']}, {place['cpu']}, one thread, load {min(load):.1f} to {max(load):.1f}. "
        "Slopes on logarithmic axes, 1 is linear and 0 is flat: over all points, and in brackets over "
        "the last three.",
        "",
        "| | | " + " | ".join(AXES.values()) + " |",
        "|---|---|--:|--:|--:|",
    ]
    for what, unit in ROWS.items():
        for name in lines_of(what):
            cells = [cell(results[axis], name, what) for axis in AXES]
            label = "PPO" if (what, name) == ("kept", "generate") else name
            lines.append(f"| {unit} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(found: dict, name: str, what: str) -> str:
    xs, ys = found["ticks"], found["parts"][name][what]
    return f"{slope(xs, ys):.2f} ({slope(xs[-3:], ys[-3:]):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("figure", type=Path)
    parser.add_argument("--into", type=Path)
    options = parser.parse_args()
    results = json.loads(options.results.read_text())
    draw(results, options.figure)
    text = table(results)
    put(text, options.into, "growth") if options.into else print(text)


if __name__ == "__main__":
    main()
