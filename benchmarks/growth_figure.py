"""What growth.py measured, as a figure and as a table of slopes: RESULTS FIGURE [--into PAGE]."""

import argparse
import json
import math
from pathlib import Path

import matplotlib.pyplot as plt
from table import put

plt.rcParams |= {"svg.hashsalt": "growth", "svg.fonttype": "none", "font.size": 9}

AXES = {
    "batch": "responses a rollout, texts a step",
    "length": "tokens a response",
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
    """Least squares on logarithms: 1 is linear, 0 is flat."""
    pairs = [(math.log(x), math.log(y)) for x, y in zip(xs, ys, strict=True) if y > 0]
    mean_x, mean_y = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    above = sum((x - mean_x) * (y - mean_y) for x, y in pairs)
    return above / sum((x - mean_x) ** 2 for x, _ in pairs)


def draw(results: dict, figure: Path) -> None:
    """Three axes by time and memory; the dotted line is linear growth."""
    plots, grid = plt.subplots(len(ROWS), len(AXES), figsize=(9.5, 8.2), layout="constrained")
    for row, (what, unit) in zip(grid, ROWS.items(), strict=True):
        for place, (axis, title) in zip(row, AXES.items(), strict=True):
            found = results[axis]
            for name, colour in COLOURS.items():
                numbers = [
                    max(one, 0.1) if what != "seconds" else one
                    for one in found["parts"][name][what]
                ]
                place.plot(found["ticks"], numbers, "o-", color=colour, ms=3, lw=1.2, label=name)
            place.set(xscale="log", yscale="log")
            guide(place, found["ticks"])
            place.grid(which="major", color="#dddddd", lw=0.5)
            place.minorticks_off()
            place.set_xticks(found["ticks"], [short(tick) for tick in found["ticks"]])
            if what == "kept":
                place.set_xlabel(title)
        row[0].set_ylabel(unit)
    grid[0][0].legend(frameon=False, fontsize=8)
    plots.savefig(figure, metadata={"Date": None})


def guide(place, ticks: list[float]) -> None:
    """A line of slope 1 through the upper corner of the plot."""
    low, high = place.get_ylim()
    line = [high * 0.6 * tick / ticks[-1] for tick in ticks]
    place.plot(ticks, line, ":", color="#888888", lw=1, label="linear")
    place.set_ylim(low, high)


def short(tick: float) -> str:
    return f"{tick / 1e6:.3g}M" if tick >= 1e6 else str(tick)


def table(results: dict) -> str:
    """Slopes over all points, and over the last three, where what is fixed weighs least."""
    load, place = results["load"], results["machine"]
    lines = [
        f"{results['when']}, {place['cpu']}, one thread, load {min(load):.1f} to {max(load):.1f}. "
        "Slopes on logarithmic axes: over all points, and in brackets over the last three.",
        "",
        "| | " + " | ".join(f"{ROWS[what]}: {axis}" for what in ROWS for axis in AXES) + " |",
        "|---" * (1 + len(ROWS) * len(AXES)) + "|",
    ]
    for name in COLOURS:
        cells = [cell(results[axis], name, what) for what in ROWS for axis in AXES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(found: dict, name: str, what: str) -> str:
    xs, ys = found["ticks"], found["parts"][name][what]
    if max(ys) < 4:
        return f"under {max(ys):.0f} MiB" if what != "seconds" else "-"
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
