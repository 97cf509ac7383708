"""Check of the connection to the Hugging Face hub, made once and quickly before it is needed.

The hub's own client tries for more than a minute. Without a connection its cache is used immediately;
what the cache does not contain is reported, with the way to use a local copy.
"""

import os
import ssl
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Thread
from types import MappingProxyType
from urllib.error import HTTPError, URLError

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.judges import language_judge, reward_judges
from rlhf_cli.config.schema.run import Config
from rlhf_cli.config.suites import SECTION, classifiers

SECONDS = 2.5  # for the answer; a look at the name of a host has no limit of its own
ENDPOINT = "https://huggingface.co"
FILES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".txt", ".gz")
LOCAL_MODELS = MappingProxyType(
    {"tiny_xs": "0.3M", "tiny": "1M", "tiny_l": "3M"}
)  # of this package


def reachable() -> bool:
    """Return whether the hub, or the mirror of HF_ENDPOINT, answers at all."""
    answers: list[bool] = []
    endpoint = os.environ.get("HF_ENDPOINT") or ENDPOINT
    asking = Thread(target=lambda: answers.append(_answers(endpoint)), daemon=True)
    asking.start()
    asking.join(SECONDS)
    return any(answers)


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=SECONDS)
    except HTTPError:
        return True
    except URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # the hub's client has its own certificates
    except OSError:
        return False
    return True


def goes_offline(ask: Callable[[], bool] = reachable) -> bool:
    """Return whether the hub's client is to use its cache alone; set so where the hub cannot be reached."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return True
    if ask():
        return False
    os.environ["HF_HUB_OFFLINE"] = "1"  # for the workers, and for what is imported later
    return True


def require_hub(cfg: Config, roles: Iterable[str], ask: Callable[[], bool] = reachable) -> None:
    """Go offline where the hub cannot be reached; UserError names what is then missing.

    roles: of the data that is read.
    """
    models, sources = models_of_hub(cfg), sources_of_hub(cfg, roles)
    if not models and not sources:
        return
    if not goes_offline(ask):
        return
    for key, name in models.items():
        if not is_cached("models", name):
            raise UserError(
                f"{key}={name} is no local folder, the hub cannot be reached and its cache does not "
                f"hold it: where there is a connection, `hf download {name} --local-dir DIR`; "
                f"then {key}=DIR"
            )
    for key, name in sources.items():
        if not is_cached("datasets", name):
            raise UserError(
                f"{key}: {name} is no local file, the hub cannot be reached and its cache does not "
                f"hold it: where there is a connection, `hf download {name} --repo-type dataset "
                "--local-dir DIR`; then give a file in DIR as path"
            )


def models_of_hub(cfg: Config) -> dict[str, str]:
    """Return {key: hub id} of every model that is not a local folder."""
    given = {
        "model.path": cfg.model.path,
        "model.tokenizer": cfg.model.tokenizer,
        "parents.sft": cfg.parents.sft,
        **{f"parents.rm[{i}]": place for i, place in enumerate(cfg.parents.rm or ())},
        **reward_judges(cfg),
        **language_judge(cfg),
        "sft.reward_model": cfg.sft.reward_model,
        **{f"{SECTION}.{key}": name for key, name in classifiers(cfg.evaluation.suites).items()},
        "evaluation.diversity.embedder": cfg.evaluation.diversity.embedder,
        "evaluation.diversity.nli": cfg.evaluation.diversity.nli,
    }
    return {
        key: name
        for key, name in given.items()
        if name and name not in LOCAL_MODELS and _is_id(name)
    }


def sources_of_hub(cfg: Config, roles: Iterable[str]) -> dict[str, str]:
    """Return {key: hub id} of every data source of these roles that is not local."""
    known = {f"data.{role}": getattr(cfg.data, role) for role in roles if "/" not in role}
    if any("/" in role for role in roles):  # ood/NAME
        known["evaluation.ood"] = cfg.evaluation.ood
    return {
        f"{key}[{number}].path": source.path
        for key, sources in known.items()
        for number, source in enumerate(sources)
        if "/" in source.path and Path(source.path).suffix not in FILES and _is_id(source.path)
    }


def _is_id(name: str) -> bool:
    """Return whether it is at most owner/name and no path of this machine."""
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or ":" in name or "*" in name
    return not is_path and not Path(name).exists()


def is_cached(kind: str, name: str) -> bool:
    """Return whether the cache has a file of it from the hub's client, or prepared by `datasets`."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets")
    files = hub.glob(f"{kind}--{name.replace('/', '--')}/snapshots/*/*")
    in_hub = next(files, None) is not None
    return in_hub or (kind == "datasets" and (prepared / name.replace("/", "___")).is_dir())
