"""Loading of models and tokenizers from folders and hubs, from safetensors only."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
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
from rlhf_cli.config.hub import LOCAL_MODELS
from rlhf_cli.config.schema import Model
from rlhf_cli.models.load_errors import require_weights, why
from rlhf_cli.models.reward_head import ScalarHead, scalar_class
from rlhf_cli.models.unpadding.attention import enable_unpadding

ASSETS = Path(__file__).resolve().parents[1] / "assets"
# Parts of the names under which configurations hold dropout rates, and other randomness in training.
DROPOUTS = ("dropout", "pdrop")
OTHER_NOISE = ("layerdrop", "jitter")
LOADING_ERRORS = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError)


def model_path(path: str) -> str:
    """Return the folder or hub id of a configured path; some names are models inside this package."""
    return str(ASSETS / path) if path in LOCAL_MODELS else str(Path(path).expanduser())


def load_tokenizer(model: Model, path: str | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer at `path`, by default the configured model's own."""
    where = model_path(path or model.tokenizer or model.path)
    try:
        return AutoTokenizer.from_pretrained(
            where, revision=_revision(model, where), trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"no tokenizer could be loaded: {why(where, error, tokenizer=True)}"
        ) from error


def stop_ids(model: Model, path: str | None = None) -> tuple[int, ...]:
    """Return the tokens at which the model's own generation config stops; () without one."""
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


def load_causal_lm(model: Model, path: str | None = None, *, dropout=0.0, unpadded=True):
    """Return a causal language model with its dropouts set, on the CPU, in float32.

    unpadded: it is read without padding, where its architecture allows that. UserError if its files lack
    weights.
    """
    config = _config(model, path)
    network = _load(AutoModelForCausalLM, model, path, config, dropout=dropout)
    known = MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) in known and type(network.config) not in known:
        raise UserError(
            f"{model_path(path or model.path)} is a {config.model_type}: transformers takes a part "
            "out of it, and could not load again what is exported of that; choose another model"
        )
    return enable_unpadding(network) if unpadded else network


def load_scalar_model(
    model: Model,
    path: str,
    *,
    new_head: bool,
    dropout=0.0,
    unpadded=True,
    loading: Callable[[], AbstractContextManager] = nullcontext,
):
    """Return a model with one scalar per position: a trained reward model, or a new head on a trained body.

    new_head: the folder is a language model's and its head is drawn afterwards; else it must have one.
    loading: a context around the reading of the weights, not around the choice of the class.
    """
    config = _config(model, path)
    if not new_head and config.num_labels != 1:
        raise UserError(
            f"{model_path(path)} has a head with {config.num_labels} outputs: "
            "a reward model needs one (num_labels=1)"
        )
    config.num_labels = 1
    kind = scalar_class(config)
    missing = ("score.",) if new_head else ()
    with loading():
        network = _load(kind, model, path, config, dropout=dropout, may_lack=missing)
    if unpadded:
        enable_unpadding(network)
    if isinstance(getattr(network, "score", None), nn.Linear):
        network.score = ScalarHead(network.score)
    return network


def load_reward_model(folder: str | Path) -> PreTrainedModel:
    """Return the reward model that a stage has exported, with a head also where transformers has no class.

    Where transformers has one, AutoModelForSequenceClassification.from_pretrained gives the same scores.
    """
    config = AutoConfig.from_pretrained(folder)
    return scalar_class(config).from_pretrained(folder, config=config, use_safetensors=True).eval()


def load_classifier(model: Model, path: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a text classifier and its tokenizer. Code from its folder is never run.

    model: how models are loaded, but for what is special to the policies.
    """
    plain = replace(model, trust_remote_code=False, attention="auto", gradient_checkpointing=False)
    tokenizer = load_tokenizer(plain, path)
    network = _load(
        AutoModelForSequenceClassification, plain, path, _config(plain, path), dropout=0.0
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    network.config.pad_token_id = tokenizer.pad_token_id
    return network, tokenizer


def _config(model: Model, path: str | None) -> PretrainedConfig:
    where = model_path(path or model.path)
    try:
        return AutoConfig.from_pretrained(
            where, revision=_revision(model, where), trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _not_loaded(where, error) from error


def _load(
    kind,
    model: Model,
    path: str | None,
    config: PretrainedConfig,
    *,
    dropout: float,
    may_lack: tuple[str, ...] = (),
):
    """kind: an auto class or a model class. may_lack: beginnings of names that need not be in the files."""
    where = model_path(path or model.path)
    _set_dropout(config, dropout)
    try:
        network, report = kind.from_pretrained(
            where,
            config=config,
            revision=_revision(model, where),
            trust_remote_code=model.trust_remote_code,
            attn_implementation=None if model.attention == "auto" else model.attention,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    except LOADING_ERRORS as error:
        raise _not_loaded(where, error) from error
    require_weights(network, where, report, may_lack)
    if model.gradient_checkpointing:
        _checkpoint_gradients(network)
    return network


def _checkpoint_gradients(network: PreTrainedModel) -> None:
    try:
        with warnings.catch_warnings():  # transformers 5.2x has a new name for it, 5.0 has not
            warnings.simplefilter("ignore", FutureWarning)
            network.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise UserError(
            f"model.gradient_checkpointing=true: {type(network).__name__} does not support it: "
            "set it to false"
        ) from error


def _not_loaded(where: str, error: Exception) -> UserError:
    return UserError(
        f"the model {where} could not be loaded: {why(where, error)} "
        "(a Hugging Face folder or hub id with safetensors weights is needed)"
    )


def _revision(model: Model, where: str) -> str | None:
    return model.revision if where == model_path(model.path) else None


def _set_dropout(config: PretrainedConfig, rate: float) -> None:
    """Give every dropout `rate`, and other noise 0: scoring twice must give the same number."""
    noise = list(noise_rates(config))
    present = [where for where in noise if any(part in where[1] for part in DROPOUTS)]
    if rate > 0 and not present:
        raise UserError(
            f"dropout={rate} was asked for, but {config.model_type} has no dropout to set: use 0"
        )
    for part, name in noise:
        none = type(getattr(part, name))(0)  # some configurations want a whole number here, if none
        try:
            setattr(part, name, rate if rate > 0 and (part, name) in present else none)
        except (
            StrictDataclassFieldValidationError
        ) as error:  # MPT: its class demands a whole number
            message = (
                f"dropout={rate}: {config.model_type} takes only a whole number as {name}: use 0"
            )
            raise UserError(message) from error


def is_noisy(config: PretrainedConfig) -> bool:
    """Return whether training mode is random: a dropout, or another rate, is not 0."""
    return any(getattr(part, name) for part, name in noise_rates(config))


def noise_rates(config: PretrainedConfig) -> Iterator[tuple[PretrainedConfig, str]]:
    """Yield (configuration, name) of every rate of randomness, in nested configurations too."""
    for name, value in vars(config).items():
        if isinstance(value, PretrainedConfig):
            yield from noise_rates(value)
        elif config.model_type == "phimoe" and name == "router_jitter_noise":
            continue  # it is a threshold there, used in evaluation too
        elif type(value) in (int, float) and any(x in name for x in DROPOUTS + OTHER_NOISE):
            yield config, name


def fit_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Grow the embedding for special tokens that the tokenizer has gained; return by how many rows.

    UserError when ordinary tokens have no row: then the tokenizer belongs to another model. Never shrinks.
    """
    rows = model.get_input_embeddings().num_embeddings  # not the weight's shape: it may be a shard
    if len(tokenizer) <= rows:
        return 0
    special = tokenizer.added_tokens_decoder
    beyond = sum(i >= rows and i not in special for i in tokenizer.get_vocab().values())
    if beyond:
        raise UserError(
            f"the tokenizer has {len(tokenizer)} tokens, but the model has embeddings for {rows}: they do "
            "not belong together; set model.tokenizer to the model's own, or leave it out"
        )
    model.resize_token_embeddings(len(tokenizer), mean_resizing=True)
    return len(tokenizer) - rows


def freeze(model: nn.Module) -> nn.Module:
    """Put the model in evaluation mode; inference-only networks compute without gradients anyway.

    Its parameters keep `requires_grad`, because torch chooses matrix kernels by it: a reference has to give
    the same bits as its policy.
    """
    return model.eval()
