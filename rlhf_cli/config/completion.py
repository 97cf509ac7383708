"""What the shell offers after TAB, before Hydra is asked: verbs and run names."""

from pathlib import Path

VERBS = ("run", "config", "show", "data")
COMPOSING = ("run", "config", "data check")


def own_words(typed: str) -> list[str] | None:
    """Completions of this project's own words; None where Hydra knows better."""
    words = typed.split()[1:]
    open_word = words[-1] if words and not typed.endswith(" ") else ""
    before = words[: len(words) - bool(open_word)]
    if not before:
        return [verb for verb in VERBS if verb.startswith(open_word)]
    if before == ["data"]:
        return ["check"]
    if before[0] == "show":
        return [name for name in run_names(Path("runs")) if name.startswith(open_word)]
    return None


def without_verb(typed: str) -> str:
    """ "rlhf run stage=" -> "rlhf stage=": Hydra knows no verbs."""
    program, _, rest = typed.partition(" ")
    for verb in COMPOSING:
        if rest.startswith(f"{verb} "):
            return f"{program} {rest.removeprefix(verb).lstrip()}"
    return typed


def run_names(runs_dir: Path) -> list[str]:
    """Folders of runs, sorted by name."""
    if not runs_dir.is_dir():
        return []
    return sorted(p.name for p in runs_dir.iterdir() if p.is_dir() and not p.name.startswith("."))
