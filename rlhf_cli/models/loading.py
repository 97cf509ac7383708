"""Networks from folders and hubs (exporting.py has the way back). safetensors only."""

import inspect
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Model
from rlhf_cli.models import packing
from rlhf_cli.models.reward import ScalarHead

ASSETS = Path(__file__).resolve().parents[1] / "assets"
DROPOUTS = (
    "attention_dropout",
    "attn_pdrop",
    "resid_pdrop",
    "embd_pdrop",
    "hidden_dropout",
    "hidden_dropout_prob",
    "residual_dropout",
    "dropout",
    "activation_dropout",
    "classifier_dropout",
)


def model_path(path: str) -> str:
    """The folder or hub id behind a configured path; "tiny" is the model inside this package."""
    return str(ASSETS / "tiny") if path == "tiny" else str(Path(path).expanduser())


def load_tokenizer(model: Model, path: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer at `path`, by default the configured model's own."""
    where = model_path(path or model.tokenizer or model.path)
    try:
        return AutoTokenizer.from_pretrained(
            where, revision=_revision(model, where), trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"no tokenizer could be loaded from {where}: {_first_line(error)}"
        ) from error


def stop_ids(model: Model, path: str | None = None) -> tuple[int, ...]:
    """The tokens at which the model's own generation config stops; () where it has none."""
    where = model_path(path or model.path)
    try:
        found = GenerationConfig.from_pretrained(
            where, revision=_revision(model, where)
        ).eos_token_id
    except OSError:
        return ()
    if found is None:
        return ()
    return tuple(found) if isinstance(found, list) else (found,)


def load_causal_lm(
    model: Model, path: str | None = None, *, dropout=0.0, dtype=torch.float32, packed=True
):
    """A causal language model with its dropouts set, on the CPU, in `dtype`.

    packed: it is read without padding, where its architecture allows that.
    """
    network = _load(AutoModelForCausalLM, model, path, dropout=dropout, dtype=dtype)
    return packing.enable(network) if packed else network


def load_scalar_model(model: Model, path: str, *, dropout=0.0, dtype=torch.float32, packed=True):
    """A model with one scalar per position: a trained reward or value model, or a new head on a body."""
    network = _load(
        AutoModelForSequenceClassification, model, path, dropout=dropout, dtype=dtype, num_labels=1
    )
    if packed:
        packing.enable(network)
    if isinstance(getattr(network, "score", None), nn.Linear):
        network.score = ScalarHead(network.score)
    return network


def _load(auto, model: Model, path: str | None, *, dropout: float, dtype, **settings):
    where = model_path(path or model.path)
    try:
        config = AutoConfig.from_pretrained(
            where,
            revision=_revision(model, where),
            trust_remote_code=model.trust_remote_code,
            **settings,
        )
        _set_dropout(config, dropout)
        network = auto.from_pretrained(
            where,
            config=config,
            revision=_revision(model, where),
            trust_remote_code=model.trust_remote_code,
            attn_implementation=model.attention,
            dtype=dtype,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"the model {where} could not be loaded: {_first_line(error)} "
            "(a Hugging Face folder or hub id with safetensors weights is needed)"
        ) from error
    if model.gradient_checkpointing:
        with warnings.catch_warnings():  # transformers 5.2x has a new name for it, 5.0 has not
            warnings.simplefilter("ignore", FutureWarning)
            network.gradient_checkpointing_enable({"use_reentrant": False})
    return network


def _revision(model: Model, where: str) -> str | None:
    return model.revision if where == model_path(model.path) else None


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _set_dropout(config: PretrainedConfig, rate: float) -> None:
    """Every dropout the architecture has gets `rate`; scoring twice must give the same number."""
    present = [name for name in DROPOUTS if getattr(config, name, None) is not None]
    if rate > 0 and not present:
        raise UserError(
            f"dropout={rate} was asked for, but {config.model_type} has no dropout to set: use 0"
        )
    for name in present:
        setattr(config, name, rate)


def fit_tokens(model: PreTrainedModel, num_tokens: int) -> None:
    """Grow the embedding to `num_tokens` rows where the tokenizer has gained a token; never shrink."""
    if num_tokens > model.get_input_embeddings().num_embeddings:  # a shard's shape says nothing
        model.resize_token_embeddings(num_tokens, mean_resizing=True)


def freeze(model: nn.Module) -> nn.Module:
    """The model in evaluation mode, without gradients."""
    return model.eval().requires_grad_(False)


@cache
def _parameters(forward: Callable) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)


def accepts(model: nn.Module, name: str) -> bool:
    """Whether the model's forward names this argument (OPT, for one, has no position_ids)."""
    return name in _parameters(getattr(model.forward, "__func__", model.forward))
