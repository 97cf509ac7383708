"""Measures of the code's structure, as docs/architecture.md shows them: `make structure`.

Static ones come from the syntax trees of rlhf_cli, those of one PPO iteration from a profile of it:
8 prompts, 8 tokens, one minibatch, one process.
"""

import ast
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "rlhf_cli"
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> dict[str, Path]:
    """Return {dotted name: file} of all modules."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def functions(path: Path) -> Iterator[Function]:
    """Yield all functions and methods of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def length(function: Function) -> int:
    """Return the lines of a function, its decorators left out."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def num_arguments(function: Function) -> int:
    """Return the number of arguments without self and cls."""
    args = function.args
    names = [a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Return the modules of the package that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & known.keys()


def comment_share(folder: str) -> float:
    """Return the share of lines in a package that hold a comment alone."""
    lines = [
        line.strip()
        for path in (PACKAGE / folder).rglob("*.py")
        for line in path.read_text().splitlines()
    ]
    return sum(line.startswith("#") for line in lines) / max(1, len(lines))


def longest_chain(edges: dict[str, set[str]]) -> int:
    """Return the number of modules in the longest chain of imports; there must be no cycle."""

    @cache
    def depth(name: str) -> int:
        return 1 + max((depth(target) for target in edges[name]), default=0)

    return max(map(depth, edges))


def static() -> dict[str, str]:
    """Return the measures that need no run."""
    known = modules()
    found = [function for path in known.values() for function in functions(path)]
    lengths = sorted(map(length, found))
    edges = {name: imports(path, known) - {name} for name, path in known.items()}
    importers = Counter(target for targets in edges.values() for target in targets)
    sizes = [len(path.read_text().splitlines()) for path in known.values()]
    middle, high = statistics.median(lengths), lengths[int(0.9 * len(lengths))]
    return {
        "files": str(len(known)),
        "files above 250 lines, below 40": f"{sum(n > 250 for n in sizes)}, {sum(n < 40 for n in sizes)}",
        "functions": str(len(found)),
        "lines per function: median, 90th percentile, longest": f"{middle:g}, {high}, {lengths[-1]}",
        "functions with 7 or more arguments": str(sum(num_arguments(f) >= 7 for f in found)),
        "import edges per module": f"{sum(map(len, edges.values())) / len(known):.1f}",
        "longest chain of imports": str(longest_chain(edges)),
        "modules with one importer": str(sum(importers[name] == 1 for name in known)),
        **{
            f"lines that are a comment, {folder}/": f"{comment_share(folder):.1%}"
            for folder in ("models", "runtime", "launch")
            if (PACKAGE / folder).is_dir()
        },
    }


def profiled(work: Callable[[], object]) -> tuple[int, int]:
    """Return (files, changes of file) of the package's calls while `work` runs."""
    places: list[str] = []

    def note(frame, event: str, _) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            places.append(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    changes = sum(before != after for before, after in pairwise(places))
    return len(set(places)), changes


def iteration() -> dict[str, str]:
    """Return the measures of one PPO iteration."""
    # here, because only this measure needs torch
    from rlhf_cli.config.schema import RolloutBatch
    from rlhf_cli.stages.ppo.loop import train
    from tests.support.ppo_networks import PARAMS, batch, cast
    from tests.support.tabular import Silent, ppo

    size = RolloutBatch(rollout=8, minibatch=8, microbatch=8, max_tokens=None)
    cfg = ppo(batch=size, total_episodes=8, inner_epochs=1)
    models = cast(cfg=cfg)

    prompts = iter([batch(8)])
    files, changes = profiled(lambda: train(models, prompts, PARAMS, cfg, Silent(), seed=0))
    return {"files of one PPO iteration": str(files), "changes of file in it": str(changes)}


def main() -> None:
    for name, value in (static() | iteration()).items():
        print(f"{name:<54} {value}")


if __name__ == "__main__":
    main()
