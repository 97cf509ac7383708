"""Reasons why a model or a tokenizer could not be loaded or used, in terms of its folder or hub id."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from rlhf_cli.config.errors import UserError

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt",
    "spiece.model", "sentencepiece.bpe.model", "tekken.json",
)  # fmt: skip
NOT_REACHED = ("couldn't connect", "offline mode", "couldn't find them in the cached files")
UNKNOWN = ("is not a local folder and is not a valid model identifier", "404 Client Error")
WRAPPERS = ("module.", "_orig_mod.")  # prefixes of data-parallel and of compiled models


def why(where: str, error: BaseException, *, tokenizer: bool = False) -> str:
    """Return one line: what is wrong with the folder or hub id `where`, and what to do."""
    place = Path(where).expanduser()
    if place.is_file():
        return f"{where} is a file: give its folder"
    if place.is_dir():
        return _of_folder(place, error, tokenizer=tokenizer)
    if where.startswith((".", "/", "~")) or where.count("/") > 1:
        return f"{where}: no such folder"
    return _of_hub(where, error)


def _of_folder(place: Path, error: BaseException, *, tokenizer: bool) -> str:
    if tokenizer and not any((place / name).is_file() for name in TOKENIZER_FILES):
        return (
            f"{place} has no tokenizer files (such as tokenizer.json): set model.tokenizer to a folder "
            "or hub id that has them"
        )
    if not tokenizer and not (place / "config.json").is_file():
        return f"{place} has no config.json: it is no folder of a model"
    if damaged := None if tokenizer else _damaged(place):
        return f"{damaged} is cut short or damaged: copy it again"
    return _own_code(str(place), error) or first_line(error)


def _damaged(place: Path) -> Path | None:
    """Return the first weights file whose header does not fit its length."""
    for path in sorted(place.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                continue
        except (SafetensorError, OSError):
            return path
    return None


def _of_hub(where: str, error: BaseException) -> str:
    message = str(error)
    if any(words in message for words in NOT_REACHED):
        return (
            f"{where} is no local folder, the hub cannot be reached and its cache does not hold it: "
            f"where there is a connection, `hf download {where} --local-dir DIR`; then give DIR"
        )
    if any(words in message for words in UNKNOWN):
        return (
            f"{where} is no local folder, and the hub has no model of that name that you may read"
        )
    return _own_code(where, error) or first_line(error)


def _own_code(where: str, error: BaseException) -> str | None:
    """Return how to load a model that needs Python code of its own, if that is the error."""
    if "trust_remote_code" not in str(error):
        return None
    return f"{where} needs Python code of its own: model.trust_remote_code=true runs it, if you trust it"


def first_line(error: BaseException) -> str:
    """Return the first line of the error's text, or its class if there is none."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def require_weights(
    network: nn.Module, where: str, report: dict, may_lack: tuple[str, ...] = ()
) -> None:
    """Refuse a model of which transformers has drawn weights at random, because the files lack them.

    report: missing_keys and unexpected_keys, as `from_pretrained(output_loading_info=True)` gives them.
    """
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(may_lack))
    if not missing:
        return
    unread = sorted(report["unexpected_keys"])
    reason = f"its files lack {_some(missing)} of {type(network).__name__}"
    if unread:
        reason += f" and hold {_some(unread)} instead"
    raise UserError(f"the model {where} cannot be used: {reason}; {_remedy(missing, unread)}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more weights" if len(names) > 1 else ""
    return f"{names[0]}{more}"


def _remedy(missing: list[str], unread: list[str]) -> str:
    wrapper = next((w for w in WRAPPERS if any(name.startswith(w) for name in unread)), None)
    if wrapper:
        inner = wrapper.removesuffix(".")
        return f"it was saved with a wrapper around it: save model.{inner} instead"
    if all(name.startswith("score.") for name in missing):
        return "it is no reward model: give one that has a trained head with one output"
    return "give a folder or hub id that holds all weights of a causal language model"
