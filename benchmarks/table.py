"""Results as Markdown: `python benchmarks/table.py [FILE ...]`, by default benchmarks/results/.

`--into PAGE` puts them into a page, between its two marker lines.
"""

import argparse
import json
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).resolve().parent / "results"
TITLES = {
    "sft": "SFT, an epoch of {rows} demonstrations in batches of {batch}",
    "rm": "Reward model, an epoch of {rows} comparisons in batches of {batch} pairs",
    "ppo": "PPO, an iteration of {rows} responses of up to {new} tokens, 2 epochs of 2 minibatches",
    "ppo-equal": "PPO, an iteration of {rows} responses of {new} tokens each, 2 epochs of 2 minibatches",
    "rollout": "Rollout, {rows} prompts, up to {new} new tokens",
    "rollout-equal": "Rollout, {rows} prompts, {new} new tokens each",
}
UNITS = {"sft": "real tokens per CPU s", "rm": "real tokens per CPU s"}
RESPONSES = "response tokens per CPU s"


def speeds(contender: dict, clock: str) -> list[float]:
    """Return tokens per second of every round; clock: seconds (wall) or cpu."""
    return [one["tokens"] / one[clock] for one in contender["rounds"]]


def ratios(contender: dict, base: dict, clock: str) -> str:
    """Return the median of the ratios of rounds, and the smallest and largest."""
    pairs = zip(speeds(contender, clock), speeds(base, clock), strict=True)
    found = [mine / other for mine, other in pairs]
    return f"{median(found):.2f} ({min(found):.2f}-{max(found):.2f})"


def line(contender: dict, base: dict) -> str:
    name, settings = contender["name"], contender["settings"]
    if contender["failed"]:
        return f"| {name} | {settings} | failed: {contender['failed'][:120]} | | | |"
    speed = f"{median(speeds(contender, 'cpu')):.0f}"
    both = ["1", "1"]
    if contender is not base:
        known = not base["failed"]
        both = [ratios(contender, base, clock) if known else "" for clock in ("cpu", "seconds")]
    peak = f"{contender['peak_mib']:.0f}"
    if contender is not base and not base["failed"]:
        peak += f" ({contender['peak_mib'] / base['peak_mib']:.2f})"
    cells = [name, settings, speed, f"**{both[0]}**", both[1], peak]
    return f"| {' | '.join(cells)} |"


def versions(result: dict) -> str:
    found = sorted({f"{k} {v}" for c in result["contenders"] for k, v in c["versions"].items()})
    return ", ".join(found)


def markdown(result: dict) -> str:
    """Return one table, relative to the first contender."""
    base, unit = result["contenders"][0], UNITS.get(result["task"], RESPONSES)
    low, high = result["load"]
    place, batch = result["machine"], result["batch"]
    title = TITLES[result["task"]].format(rows=2 * batch, batch=batch, new=result["new_tokens"])
    return "\n".join(
        [
            f"### {title}: {result['size']}",
            "",
            f"{result['when']}, {result['rounds']} rounds, {place['cpu']}, {place['cores']} cores, "
            f"load {low:.1f} to {high:.1f} (1.0 is this benchmark itself); {versions(result)}",
            "",
            f"| | settings | {unit} | ratio, CPU time (min-max) | ratio, wall (min-max) "
            "| peak MiB (ratio) |",
            "|---|---|--:|--:|--:|--:|",
            *(line(one, base) for one in result["contenders"]),
        ]
    )


def put(text: str, page: Path, what: str = "figures") -> None:
    """Replace the text between the two marks of a page."""
    begin, end = f"<!-- {what} begin -->", f"<!-- {what} end -->"
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--into", type=Path)
    options = parser.parse_args()
    files = options.files or sorted(RESULTS.glob("*.json"))
    text = "\n\n".join(markdown(json.loads(file.read_text())) for file in files)
    put(text, options.into) if options.into else print(text)


if __name__ == "__main__":
    main()
