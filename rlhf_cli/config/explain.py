"""Errors of Hydra and OmegaConf retold in one line: what was found, what to do.

Hydra is recognised by the names of its exceptions, so that this room does not import it.
"""

import re

from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from rlhf_cli.config.keys import did_you_mean, nearest, nearest_keys, schema_keys
from rlhf_cli.config.schema import TAKEN_FROM, Source

KINDS = {
    "Integer": "a whole number",
    "Float": "a number",
    "Boolean": "true or false",
    "bool": "true or false",
}


def explain(error: BaseException) -> str:
    """One line for a person, whatever was raised while composing."""
    cause = error.__cause__
    text = str(error).strip()
    if isinstance(error, OmegaConfBaseException):
        return _omegaconf(error)
    if options := getattr(error, "options", None):
        return _unknown_choice(getattr(error, "missing_cfg_file", None) or text, list(options))
    if key := _first(r"Could not override '([^']+)'", text):
        return _unknown_key(key)
    if "is ambiguous" in text or text.startswith("Ambiguous value"):
        return _ambiguous(text)
    if type(error).__name__ == "OverrideParseException":
        return _unreadable(getattr(error, "override", text), text)
    if name := _first(r"Cannot find primary config '([^']*)'", text):
        return f"--config-name {name}: no {name}.yaml in conf/ or in the folder of --config-dir"
    if isinstance(cause, OmegaConfBaseException):
        return _omegaconf(cause)
    return _one_line(text) or type(error).__name__


def _omegaconf(error: OmegaConfBaseException) -> str:
    key = error.full_key or ""
    first = _one_line(str(error.msg or error).split("\n")[0])
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return (
            _unknown_in_source(key) if error.object_type is Source else _unknown_key(key or first)
        )
    if isinstance(error, MissingMandatoryValue):
        key = _first(r"Missing mandatory value: (\S+)", first) or key
        return f"{key} has no value: set {key}=..."
    if isinstance(error, ValidationError):
        return _wrong_type(key, first)
    return f"{key}: {first}" if key else first


def _unknown_key(key: str) -> str:
    known = schema_keys()
    parent = key.rpartition(".")[0]
    if key.startswith("runtime.deepspeed."):
        return _unknown_to_deepspeed(key)
    suggestions = nearest_keys(key)
    if not suggestions and parent in known:
        names = [k.removeprefix(f"{parent}.") for k in known if k.startswith(f"{parent}.")]
        return f"unknown key {key!r}: {parent} has {', '.join(n for n in names if '.' not in n)}"
    tail = did_you_mean(suggestions) or ": `rlhf config` lists all keys"
    return f"unknown key {key!r}{tail}"


def _unknown_to_deepspeed(key: str) -> str:
    """Its dictionary is DeepSpeed's: a key that no preset has can be added, but for some."""
    top = key.split(".")[2]
    if top in TAKEN_FROM:
        return f"runtime.deepspeed.{top} is taken from {TAKEN_FROM[top]}: leave it out"
    return (
        f"{key} is not in the dictionary yet: +{key}=... adds it, runtime=zero2 has the usual ones"
    )


def _unknown_in_source(key: str) -> str:
    leaf, known = key.rpartition(".")[2], schema_keys(Source)
    meant = nearest(leaf, known)
    tail = did_you_mean([meant]) if meant else f": it has {', '.join(known)}"
    return f"unknown key {leaf!r} of a data source{tail}"


def _wrong_type(key: str, message: str) -> str:
    value = _first(r"[Vv]alue '(.*?)'", message)
    if choices := _first(r"expected one of \[(.*)\]", message):
        meant = nearest(value or "", choices.split(", "))
        tail = f": did you mean {meant}?" if meant else ""
        return f"{key}={value} is not one of {choices}{tail}"
    kind = KINDS.get(_first(r"(?:could not be converted to|is not a valid) (\w+)", message) or "")
    if kind:
        return f"{key}={value} is not {kind}"
    if value == "None" and "Incompatible" in message:
        return f"{key} may not be null"
    return f"{key}: {message}" if key else message


def _unknown_choice(name: str, options: list[str]) -> str:
    group, _, choice = name.rpartition("/")
    meant = nearest(choice, options)
    tail = did_you_mean([f"{group}={meant}"]) if meant else ""
    return f"{group}={choice} is no choice{tail or ':'} {group} is one of {', '.join(options)}"


def _ambiguous(text: str) -> str:
    override = _first(r"argument '([^']*)'", text) or text.split("\n")[0]
    key, _, value = override.partition("=")
    ways = f"write {key}=[{value}] for a list, or add -m to run once per value"
    return f"{override} is ambiguous: {ways}"


def _unreadable(override: str, text: str) -> str:
    if "=" not in override:
        meant = [f"{key}=..." for key in nearest_keys(override)[:1]]
        return f"cannot read {override!r}: expected key=value{did_you_mean(meant)}"
    why = _one_line(text.split("\n")[0])
    return f"cannot read {override!r}: {why} (quote special characters: 'key=\"value\"')"


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found.group(1) if found else None


def _one_line(text: str) -> str:
    return " ".join(text.split())
