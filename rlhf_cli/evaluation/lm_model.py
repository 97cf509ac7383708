"""A model of this project as the lm-evaluation-harness asks it: with the text it was trained on.

lm_eval is an optional package: this module is imported where it is installed.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_cli.evaluation.lm_request import SPACE, ChatSpacing


class StageLM(HFLM):
    """The harness's model. cut: inputs whose beginning was left out, because they are too long.

    spacing: that of the chat template, None without one.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch: int,
        spacing: ChatSpacing | None,
    ):
        # A rendered conversation has its BOS where the template puts one; raw text has the tokenizer's.
        no_bos = None if spacing is None else False
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch,
            backend="causal",
            add_bos_token=no_bos,
        )
        self.spacing = spacing
        self.cut: set[str] = set()

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return the rendered conversation, up to where a response begins."""
        text = super().apply_chat_template(chat_history, add_generation_prompt)
        if self.spacing is None or not add_generation_prompt:
            return text
        return text + self.spacing.header + self.spacing.space

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], *rest: Any, **names: Any
    ) -> list[tuple[float, bool]]:
        """Return (sum of log-probs, whether greedy) of each ((context, continuation), tokens, tokens)."""
        for text, context, continuation in requests:
            if text is not None and len(context) + len(continuation) > self.max_length + 1:
                self.cut.add(text[0])
        return super()._loglikelihood_tokens(requests, *rest, **names)

    def tok_batch_encode(
        self,
        strings: Sequence[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens and mask of prompts to continue, without the space that the model writes."""
        shown = list(strings)
        if self.spacing and self.spacing.space:
            shown = [text.removesuffix(SPACE) for text in shown]
        tokens, mask = super().tok_batch_encode(shown, padding_side, left_truncate_len, truncation)
        if left_truncate_len is not None and tokens.shape[1] == left_truncate_len:
            for text, given in zip(strings, shown, strict=True):
                if len(self.tok_encode(given)) > left_truncate_len:
                    self.cut.add(text)
        return tokens, mask

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Return (sum of log-probs, whether greedy) of each continuation. Bars are for terminals."""
        return super().loglikelihood(requests, disable_tqdm or not sys.stderr.isatty())

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the sum of log-probs of each text, of which no template makes a conversation."""
        return super().loglikelihood_rolling(requests, disable_tqdm or not sys.stderr.isatty())

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the continuation of each request, without the space that the template puts before it."""
        found = super().generate_until(requests, disable_tqdm or not sys.stderr.isatty())
        space = self.spacing.space if self.spacing else ""
        return [text.removeprefix(space) for text in found]
