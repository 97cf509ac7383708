"""The scalar head: its class, its initialisation, and how its mean is set without a bias term."""

import math
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from rlhf_cli.config.errors import UserError

HEAD = "score.weight"


def draw_head(shape: torch.Size, *, seed: int) -> Tensor:
    """Return a head (1, D) drawn from N(0, 1/(d+1)): a new reward model's scores have unit scale (ST)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) / math.sqrt(shape[1] + 1)


class ScalarHead(nn.Linear):
    """A linear head that computes in float32, for weights of any dtype. hidden (..., D) -> (..., 1)

    It is called as a module, so that sharded weights are gathered for it.
    """

    def __init__(self, head: nn.Linear):
        super().__init__(head.in_features, head.out_features, bias=False, device="meta")
        self.weight, self.bias = head.weight, head.bias

    def forward(self, hidden: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast(hidden.device.type, enabled=False):
            return linear(hidden.float(), self.weight.float(), bias)


def scalar_class(config: PretrainedConfig) -> type:
    """Return the class of reward and value models: transformers' own, else one made of its generic parts.

    Its head is a linear layer called `score`, which reads the last hidden state. UserError where the
    architecture has no body that can be read without its language-model head.
    """
    kind = type(config)
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForSequenceClassification  # code from the model's repository, or an older mapping
    if kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING and _has_head(
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[kind], config
    ):
        return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[kind]
    made = _made(MODEL_FOR_CAUSAL_LM_MAPPING[kind])
    if not _has_head(made, config):
        raise UserError(
            f"{config.model_type} has no class for reward and value models, and none can be made of its "
            "parts: choose another architecture, or run stage=sft alone"
        )
    return made


def _made(language_model: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """Return a class with the body of a language model and one linear head called `score`."""
    family = next(c for c in language_model.__mro__[1:] if issubclass(c, PreTrainedModel))
    name = language_model.__name__.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    own = {
        "language_model": language_model,
        "base_model_prefix": language_model.base_model_prefix,
        "__module__": language_model.__module__,
    }
    return type(f"{name}RewardModel", (_BodyWithHead, family), own)


class _BodyWithHead:
    """A reward model where transformers has no class: what is read is the language model's own body."""

    language_model: type[PreTrainedModel]

    def __init__(self, config: PretrainedConfig):
        super().__init__(config)
        whole = self.language_model(config)
        if not hasattr(whole, self.base_model_prefix):
            self.base_model_prefix = "model"
        setattr(self, self.base_model_prefix, getattr(whole, self.base_model_prefix))
        self.score = nn.Linear(config.get_text_config().hidden_size, 1, bias=False)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **settings
    ) -> SequenceClassifierOutput:
        """Score each sequence at its last token that is not padding. input_ids (B, T) -> logits (B, 1)"""
        body = getattr(self, self.base_model_prefix)
        hidden = body(input_ids=input_ids, attention_mask=attention_mask, **settings)[0]
        real = input_ids != getattr(self.config.get_text_config(), "pad_token_id", None)
        last = (torch.arange(input_ids.shape[1], device=real.device) * real).argmax(1)
        rows = torch.arange(len(input_ids), device=real.device)
        return SequenceClassifierOutput(logits=self.score(hidden[rows, last]))


def _has_head(kind: type[PreTrainedModel], config: PretrainedConfig) -> bool:
    """Return whether the class can be built, on the meta device, with one linear head called `score`."""
    config = deepcopy(config)
    config.num_labels = 1
    try:
        with torch.device("meta"):
            model = kind(config)
        check_head(model)
    except (UserError, ValueError, AttributeError, TypeError, KeyError):
        return False
    return True


def transformers_has_class(config: PretrainedConfig) -> bool:
    """Return whether plain transformers can load an exported reward model."""
    return scalar_class(config) in (
        AutoModelForSequenceClassification,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None),
    )


def check_head(model: nn.Module) -> None:
    """Raise UserError unless the model has one linear head called `score` with one output."""
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear) or head.out_features != 1:
        raise UserError(
            f"{type(model).__name__} has no linear head `score` with one output: "
            "use a decoder architecture whose AutoModelForSequenceClassification has one"
        )


def shift_head_mean(
    weight: Tensor, anchors: Tensor, differences: Tensor, *, ridge: float = 1e-4
) -> tuple[Tensor, float]:
    """Return the head at which `anchors` score mean 0 while comparisons keep their margins.

    Transformers' scalar heads have no bias, so a constant cannot be subtracted from what plain
    AutoModelForSequenceClassification computes. The head w becomes w + e with the smallest change
    of margins, min_e mean((e . differences)^2) + ridge |e|^2, subject to e . mean(anchors) being
    minus the mean score; the solution is a multiple of A^-1 mean(anchors). Hidden states of last
    tokens share a large common part, which is what e uses.

    weight (1, D). anchors (n, D): last hidden states of the demonstrations. differences (m, D): of
    the pairs, winner minus loser. Returns the new head (1, D) and the mean score that was removed.
    """
    anchors, differences = anchors.double(), differences.double()
    centre = anchors.mean(0)
    shift = weight.double()[0] @ centre
    # A = mean of d d^T + ridge; e = -shift A^-1 c / (c . A^-1 c), so that (w + e) . c = 0.
    second = differences.T @ differences / max(len(differences), 1)
    second += (
        ridge * (second.trace() / len(second) + 1e-12) * torch.eye(len(second), dtype=torch.float64)
    )
    direction = torch.linalg.solve(second, centre)
    change = -shift * direction / (centre @ direction)
    return weight + change.to(weight)[None], float(shift)
