"""One-line messages for errors of Hydra and OmegaConf: what was found, what to do.

Hydra's exceptions are recognised by their names, so that this module does not import it.
"""

import re
import shlex

from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from rlhf_cli.config.keys import GROUPS, did_you_mean, nearest, nearest_keys, schema_keys
from rlhf_cli.config.schema import TAKEN_FROM, Source
from rlhf_cli.config.suggestions import VALUES, not_here

KINDS = {
    "Integer": "a whole number",
    "Float": "a number",
    "Boolean": "true or false",
    "bool": "true or false",
}
# Part of a library's message, and the message that replaces it.
REPLACED = (
    ("Config group override must be a string", "a group takes the name of one of its files"),
    ("Cannot merge DictConfig with ListConfig", "it is a list: write [...] around it"),
    ("Multiple values for", "it is set twice on one command line: give it once"),
    ("Sweeping over Hydra", "Hydra's own settings cannot be swept over"),
    ("Interpolation key", "it refers to a key that is not there"),
    ("Interpolation cycle", "it refers to itself"),
)


def explain(error: BaseException) -> str:
    """Return one line for any exception that was raised while composing."""
    cause = error.__cause__
    text = str(error).strip()
    if isinstance(error, OmegaConfBaseException):
        return _omegaconf(error)
    if options := getattr(error, "options", None):
        return _unknown_choice(getattr(error, "missing_cfg_file", None) or text, list(options))
    if key := _first(r"Could not override '([^']+)'", text):
        return unknown_key(key)
    if "is ambiguous" in text or text.startswith("Ambiguous value"):
        return _ambiguous(text)
    if type(error).__name__ == "OverrideParseException":
        return _unreadable(getattr(error, "override", text), text)
    if name := _first(r"Cannot find primary config '([^']*)'", text):
        return f"--config-name {name}: no {name}.yaml in conf/ or in the folder of --config-dir"
    if isinstance(cause, OmegaConfBaseException):
        return _omegaconf(cause, _first(r"Error merging override (.*)", text) or "")
    return _replaced(_one_line(text)) or type(error).__name__


def _replaced(text: str, override: str = "") -> str:
    known = next((message for begin, message in REPLACED if begin in text), None)
    override = override or _first(r"'([^']+)'", text) or ""
    return (
        f"{override}: {known}"
        if known and override
        else known or text.split(" Config search path:")[0]
    )


def _omegaconf(error: OmegaConfBaseException, override: str = "") -> str:
    key = error.full_key or ""
    first = _one_line(str(error.msg or error).split("\n")[0])
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return _unknown_in_source(key) if error.object_type is Source else unknown_key(key or first)
    if isinstance(error, MissingMandatoryValue):
        key = _first(r"Missing mandatory value: (\S+)", first) or key
        return f"{key} has no value: set {key}=..."
    if isinstance(error, ValidationError):
        return _wrong_type(key, first)
    return _replaced(first, override or key)


def unknown_key(key: str) -> str:
    """Return the message for a key that does not exist."""
    known = schema_keys()
    parent = key.rpartition(".")[0]
    if key.startswith("runtime.deepspeed."):
        return _unknown_to_deepspeed(key)
    if missing := not_here(key):
        return f"unknown key {key!r}: there is {missing}"
    suggestions = nearest_keys(key)
    if not suggestions and parent in known:
        names = [k.removeprefix(f"{parent}.") for k in known if k.startswith(f"{parent}.")]
        return f"unknown key {key!r}: {parent} has {', '.join(n for n in names if '.' not in n)}"
    tail = did_you_mean(suggestions) or ": `rlhf config` lists all keys"
    return f"unknown key {key!r}{tail}"


def _unknown_to_deepspeed(key: str) -> str:
    """Return the message for a key of DeepSpeed's dictionary, where most new keys can be added."""
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
        known = VALUES.get(f"{key}={value}".lower())
        meant = known or nearest(value or "", choices.split(", "))
        tail = f": did you mean {meant}?" if meant else ""
        return f"{key}={value} is not one of {choices}{tail}"
    kind = KINDS.get(_first(r"(?:could not be converted to|is not a valid) (\w+)", message) or "")
    if kind:
        return f"{key}={value} is not {kind}"
    if value == "None" and "Incompatible" in message:
        return f"{key} may not be null"
    return _replaced(message, key)


def _unknown_choice(name: str, options: list[str]) -> str:
    group, _, choice = name.rpartition("/")
    if group == "data" and "." in choice:
        return (
            f"data={choice} is no choice: a file is data.demonstrations=[{{path: {choice}}}] "
            "(or data.comparisons, data.prompts), with data=generic"
        )
    meant = nearest(choice, options)
    tail = did_you_mean([f"{group}={meant}"]) if meant else ":"
    own = "; your own: --config-dir DIR, or a file such as my.yaml" if group in GROUPS else ""
    return f"{group}={choice} is no choice{tail} {group} is one of {', '.join(options)}{own}"


def _ambiguous(text: str) -> str:
    override = _first(r"argument '([^']*)'", text) or text.split("\n")[0]
    key, _, value = override.partition("=")
    ways = "add -m to run once per value"
    if key not in GROUPS:
        ways = f"write {key}=[{value}] for a list, or {ways}"
    return f"{override} is ambiguous: {ways}"


def _unreadable(override: str, text: str) -> str:
    key, _, value = override.partition("=")
    if any(value.count(one) != value.count(other) for one, other in ("[]", "{}", "()")):
        return (
            f"cannot read {override!r}: a bracket is not closed; put quotes around all of {key}=..."
        )
    bare = value.strip("'\"").replace('"', '\\"')
    quoted = shlex.quote(f'{key}="{bare}"')
    return f"cannot read {override!r}: its value has special characters; quote it: {quoted}"


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found.group(1) if found else None


def _one_line(text: str) -> str:
    return " ".join(text.split())
