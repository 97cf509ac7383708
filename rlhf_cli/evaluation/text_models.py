"""Models that read texts and answer nothing: an encoder's embeddings, an NLI classifier's labels.

They are loaded from safetensors, and code of their repositories is never run. Each process holds the
complete model and reads its share of the texts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.positions import NAMES, num_positions
from rlhf_cli.config.schema import NLI_LABELS
from rlhf_cli.core.masking import zero_pads
from rlhf_cli.data.collate import pad_right
from rlhf_cli.evaluation.diversity import nli_scores
from rlhf_cli.evaluation.respond import group_by_length
from rlhf_cli.models.export import set_pad
from rlhf_cli.models.forward import accepts
from rlhf_cli.models.load import LOADING_ERRORS, freeze, model_path
from rlhf_cli.models.load_errors import why
from rlhf_cli.runtime.device import Device
from rlhf_cli.runtime.engine import Network
from rlhf_cli.runtime.watchdog import heartbeat
from rlhf_cli.runtime.world import World

# RoBERTa and its like count positions from 2, so that this many of those they name are never read.
RESERVED = 2
UNLIMITED = 1 << 30  # tokens: a tokenizer without a limit has a number far beyond as its own
Encoded = tuple[list[int], list[int]]  # ids of tokens, and of which text of a pair each is
SETTINGS = MappingProxyType({"trust_remote_code": False})


@dataclass(slots=True, kw_only=True)
class TextModel:
    """A frozen model with its tokenizer. room: tokens that it reads, what follows is cut; None: any number.

    batch: rows per forward pass.
    """

    network: Network
    tokenizer: PreTrainedTokenizerBase
    room: int | None
    batch: int
    world: World

    @torch.no_grad()
    def read(self, forward: Callable[..., Tensor], rows: Sequence[tuple[str, ...]]) -> Tensor:
        """Return forward(model, tokens, mask, **others) of texts or pairs, fp32 on the CPU, (n, ...).

        The same row is read once, however often it is there.
        """
        places = {row: i for i, row in enumerate(dict.fromkeys(rows))}
        encoded = [self._encoded(row) for row in places]
        found = torch.empty(0)
        groups = group_by_length([ids for ids, _ in encoded], self.batch)
        for index, counts in self.world.share.padded_shard(groups):
            heartbeat("reading texts")
            inputs = self._collated([encoded[i] for i in index])
            part = self.network(forward, **inputs).float().cpu()
            if not len(found):
                found = torch.zeros(len(encoded), *part.shape[1:])
            if counts:
                found[index] = part
        return self.world.all_reduce(found)[[places[row] for row in rows]]

    def embeddings(self, texts: Sequence[str]) -> Tensor:
        """Return the mean of the last hidden states over each text's tokens, (n, D)."""
        return self.read(mean_states, [(text,) for text in texts])

    def nli(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Return diversity.nli_scores of (premise, hypothesis) pairs, (n,)."""
        names = [name.lower() for _, name in sorted(self.network.model.config.id2label.items())]
        probs = self.read(class_probs, pairs)
        return nli_scores(probs[:, [names.index(name) for name in NLI_LABELS]])

    @property
    def _pad_id(self) -> int:
        return self.tokenizer.pad_token_id or 0

    @property
    def _has_types(self) -> bool:
        """Return whether the model is given which text of a pair a token is of."""
        name = "token_type_ids"
        return name in self.tokenizer.model_input_names and accepts(self.network.model, name)

    def _encoded(self, row: tuple[str, ...]) -> Encoded:
        """Return the ids of a text or a pair, and their types; a text without tokens is one pad."""
        found = self.tokenizer(
            *row,
            truncation=self.room is not None,
            max_length=self.room,
            split_special_tokens=True,
        )
        ids = found["input_ids"] or [self._pad_id]
        return ids, found.get("token_type_ids") or [0] * len(ids)

    def _collated(self, rows: list[Encoded]) -> dict[str, Tensor]:
        """Return tokens and mask (B, T), and the types of the tokens where the model reads them."""
        tokens, mask = pad_right([ids for ids, _ in rows], self._pad_id)
        found = {"tokens": tokens, "mask": mask}
        if self._has_types:
            found["token_type_ids"] = pad_right([types for _, types in rows], 0)[0]
        return {name: x.to(self.network.device.torch) for name, x in found.items()}


def mean_states(model: nn.Module, tokens: Tensor, mask: Tensor, **others: Tensor) -> Tensor:
    """Return the mean of the last hidden states over real tokens. tokens, mask (B, T) -> (B, D)"""
    states = model(input_ids=tokens, attention_mask=mask.long(), **others).last_hidden_state.float()
    wide = mask[:, :, None].expand_as(states)
    return zero_pads(states, wide).sum(1) / mask.sum(1, keepdim=True)


def class_probs(model: nn.Module, tokens: Tensor, mask: Tensor, **others: Tensor) -> Tensor:
    """Return the probabilities of the labels. tokens, mask (B, T) -> (B, labels)"""
    logits = model(input_ids=tokens, attention_mask=mask.long(), **others).logits
    return logits.float().softmax(-1)


def open_encoder(key: str, path: str, *, device: Device, batch: int, world: World) -> TextModel:
    """Return a model that embeds texts; of an encoder-decoder the encoder. key: names it in errors.

    UserError where it cannot be loaded.
    """
    model = _load(AutoModel, key, path, may_lack=("pooler.",))
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    return _opened(model, key, path, device=device, batch=batch, world=world)


def open_nli(key: str, path: str, *, device: Device, batch: int, world: World) -> TextModel:
    """Return a classifier of pairs of texts; UserError where its labels are not those of NLI."""
    model = _load(AutoModelForSequenceClassification, key, path)
    require_labels(key, path, model.config)
    return _opened(model, key, path, device=device, batch=batch, world=world)


def require_labels(key: str, path: str, config: PretrainedConfig) -> None:
    """Refuse a classifier whose labels are not contradiction, entailment and neutral by name."""
    names = sorted(name.lower() for name in config.id2label.values())
    if names != sorted(NLI_LABELS):
        raise UserError(
            f"{key}={path} has the labels {', '.join(names)}: an NLI classifier with "
            f"{', '.join(NLI_LABELS)} is needed; name them in id2label of its config.json, or "
            "choose another model"
        )


def _opened(
    model: PreTrainedModel, key: str, path: str, *, device: Device, batch: int, world: World
) -> TextModel:
    tokenizer = _tokenizer(key, path)
    if model.config.get_text_config().pad_token_id is None:
        set_pad(model.config, tokenizer.pad_token_id or 0)
    positions = num_positions({name: getattr(model.config, name, None) for name in NAMES})
    room = min(tokenizer.model_max_length, (positions or UNLIMITED + RESERVED) - RESERVED)
    return TextModel(
        network=Network(freeze(model), device=device),
        tokenizer=tokenizer,
        room=room if room < UNLIMITED else None,
        batch=batch,
        world=world,
    )


def _tokenizer(key: str, path: str) -> PreTrainedTokenizerBase:
    where = model_path(path)
    try:
        return AutoTokenizer.from_pretrained(where, **SETTINGS)
    except LOADING_ERRORS as error:
        raise _not_loaded(key, where, error) from error


def _load(kind, key: str, path: str, may_lack: tuple[str, ...] = ()) -> PreTrainedModel:
    """Return a model in float32 with all of its weights, but for those whose names begin with may_lack."""
    where = model_path(path)
    try:
        model, report = kind.from_pretrained(
            where, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **SETTINGS
        )
    except LOADING_ERRORS as error:
        raise _not_loaded(key, where, error) from error
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(may_lack))
    if missing:
        raise UserError(
            f"{key}={path} cannot be used: its files lack {missing[0]} of {type(model).__name__}; "
            "give a folder or hub id that holds all of its weights"
        )
    return model


def _not_loaded(key: str, where: str, error: Exception) -> UserError:
    if "trust_remote_code" in str(error):
        reason = f"{where} needs Python code of its own, which is not run: choose another model"
    else:
        reason = why(where, error)
    return UserError(f"{key} could not be loaded: {reason}")
