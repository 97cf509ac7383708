"""Commands, the folder conf/, and keys: all valid ones, and those nearest to a mistyped one.

Neither Hydra nor OmegaConf is imported: help pages start fast.
"""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from rlhf_cli.config.schema import ConfigError
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.suggestions import ours

PACKAGE = Path(__file__).resolve().parents[1]
# Each command: what follows it, and what it does. cli.py has its functions.
COMMANDS = {
    "run": ("[key=value ...]", "SFT, reward model, PPO; then the evaluation table"),
    "config": ("[section ...]", "every setting with its value and what it means"),
    "data": ("check [FILE ...]", "read all data, name every bad row, train nothing"),
    "show": ("[RUN ...] [--time]", "a run, its numbers; time per phase; runs compared"),
    "lm-eval": ("RUN/STAGE TASK ...", "MMLU, IFEval, .. by the lm-evaluation-harness"),
    "report": ("RUN ... [--out FILE]", "runs as one HTML file: verdicts, charts, answers"),
}
GROUPS = ("model", "data", "runtime", "experiment")
PROBES = "probes"  # the name of the probes in conf/


def conf_dir() -> Path:
    """Return the shipped conf/: beside the package in a checkout, inside it when from a wheel."""
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf" / "config.yaml").is_file():
        return checkout / "conf"
    if (PACKAGE / "conf" / "config.yaml").is_file():
        return PACKAGE / "conf"
    raise ConfigError(
        f"this installation has no conf/ folder ({PACKAGE / 'conf'}): install it again"
    )


def probes_file(given: str) -> Path:
    """Return the file that evaluation.probes names: the shipped one by its name, or any by its path."""
    if given == PROBES:
        return conf_dir() / f"{PROBES}.yaml"
    path = Path(given).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"evaluation.probes={given} is no file: give the path of a .yaml file, {PROBES} for the "
            "shipped ones, or null"
        )
    return path


def schema_keys(schema: type = Config, prefix: str = "") -> list[str]:
    """Return the dotted keys of all fields, sections included, in the order of the schema."""
    hints, found = get_type_hints(schema), []
    for field in fields(schema):
        key = f"{prefix}{field.name}"
        found.append(key)
        if is_dataclass(hints[field.name]):
            found += schema_keys(hints[field.name], f"{key}.")
    return found


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return {"a": {"b": 1}} as {"a.b": 1}; lists are leaves."""
    if not isinstance(tree, dict) or not tree:
        return {prefix.removesuffix("."): tree}
    return {k: v for name, sub in tree.items() for k, v in flatten(sub, f"{prefix}{name}.").items()}


def select(tree: dict[str, Any], prefixes: Iterable[str]) -> dict[str, Any]:
    """Return the flat entries of `tree` whose key is one of `prefixes` or in such a section."""
    wanted = tuple(prefixes)
    return {k: v for k, v in flatten(tree).items() if any(covers(p, k) for p in wanted)}


def covers(section: str, key: str) -> bool:
    """Return whether a dotted key is this section or in it."""
    return key == section or key.startswith(f"{section}.")


def nearest(word: str, choices: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the choice that `word` was probably meant to be."""
    close = get_close_matches(word, list(choices), n=1, cutoff=cutoff)
    return close[0] if close else None


def nearest_keys(key: str, choices: Iterable[str] | None = None) -> list[str]:
    """Return up to four valid keys: the name of another trainer's key here, or similar spellings."""
    known = list(choices) if choices is not None else [*schema_keys(), "experiment"]
    leaf = key.rpartition(".")[2]
    same_leaf = [k for k in known if k.rpartition(".")[2] == leaf and "." in k]
    same_leaf.sort(key=lambda k: -SequenceMatcher(None, key, k).ratio())
    section, dot, _ = key.partition(".")
    theirs = ours(key, known)
    if same_leaf and not dot:
        return list(dict.fromkeys([*same_leaf[:3], *theirs]))
    inside = [k for k in same_leaf if k.startswith(f"{section}.")]
    begins = [k for k in known if k.startswith(key)] if len(key) > 2 else []
    slip, close = (get_close_matches(key, known, n=1, cutoff=c) for c in (0.92, 0.75))
    found = inside[:1] or slip or theirs or same_leaf[:1] or begins[:1]
    return found or close or _close_leaves(key, known)


def _close_leaves(key: str, known: list[str]) -> list[str]:
    """Return keys with a similar last part, of the same section where the key has one."""
    top, _, leaf = key.rpartition(".")
    inside = [k for k in known if k.startswith(f"{top.partition('.')[0]}.")] if top else []
    pool = inside or known
    best = nearest(leaf, {k.rpartition(".")[2] for k in pool}, cutoff=0.7)
    return [k for k in pool if k.rpartition(".")[2] == best][:3] if best else []


def did_you_mean(suggestions: list[str]) -> str:
    """Return the end of an error message; empty without suggestions."""
    return f": did you mean {' or '.join(suggestions)}?" if suggestions else ""
