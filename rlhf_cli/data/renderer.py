"""The one place that renders a conversation, for every stage.

A response is always the same tokens: what the template shows of it, then the end token. A
conversation is its prompt's tokens followed by its response's, turn after turn, so what SFT learns,
what the reward model scores and what PPO samples is cut at the same token. How a template is chosen
is templates' matter.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from rlhf_cli.data.conversation_text import THOUGHT, ConversationText, Preloaded
from rlhf_cli.data.records import Message, RowError

NO_THOUGHT = re.compile(r"\s*<think>\s*</think>\s*")


@dataclass(kw_only=True)
class Renderer(ConversationText):
    """A tokenizer with its template settled: conversations to token ids and back.

    pad_id: never an end id . end_id: is learned . end_ids: all that stop sampling . added_tokens: new
    tokens; the embedding needs `num_tokens` rows . hash: of all that decides the tokens . notes: what the
    template cannot do, and what is done instead.
    """

    template: str
    end_ids: list[int]
    pad_id: int
    eos_id: int
    bos_ids: list[int]
    added_tokens: tuple[str, ...]
    prepends_space: bool = False
    notes: list[str] = field(default_factory=list)
    hash: str = ""
    special_texts: tuple[str, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Return the number of rows the model's embedding must have at least."""
        return len(self.tokenizer)

    @cached_property
    def longest(self) -> int:
        """Return the characters of the longest token."""
        return max(map(len, self.tokenizer.get_vocab()))

    def preload(self, prompts: Iterable[tuple[Message, ...]], responses: Iterable[str]) -> None:
        """Render and tokenise these in one call, in place of those preloaded before.

        What cannot be rendered raises when it is used.
        """
        self.preloaded = preloaded = Preloaded()
        texts: dict[str, None] = {}
        for messages in prompts:
            if messages[0].role == "text":
                texts[messages[0].content] = None
                continue
            try:
                fitted = self._fitted(messages)
                preloaded.contexts[fitted] = context = self._rendered(fitted)
            except RowError:
                continue
            texts |= {
                self._to_encode(t, bare=is_response): None for t, is_response, _ in context[1]
            }
        for text in responses:
            try:
                preloaded.responses[text] = response = self._probe_response(text)
            except RowError:
                continue
            texts[self._to_encode(response, bare=True)] = None
        texts.pop("", None)
        if texts:
            found = self.tokenizer(
                list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
            )["input_ids"]
            preloaded.ids = dict(zip(texts, found, strict=True))

    def prompt_ids(self, messages: tuple[Message, ...]) -> list[int]:
        """Return the tokens up to where the response begins."""
        if messages and messages[0].role == "text":
            return self.bos_ids + self._encode(messages[0].content)
        return [token for ids, _ in self._context(self._fitted(messages)) for token in ids]

    def response_ids(self, text: str) -> list[int]:
        """Return the tokens of a response, the end token included."""
        return self.encode_response(self._response_text(text))

    def encode_response(self, response: str) -> list[int]:
        """Return the tokens of a text with the end token, whatever the template makes of it."""
        text = self._to_encode(response, bare=True)
        ids = self._encode(text)
        if len(text) > len(response):  # a line end was put before it
            before = self._encode("\n")
            ids = ids[len(before) :] if ids[: len(before)] == before else self._encode(response)
        return [*ids, self.end_id]

    def _to_encode(self, text: str, *, bare: bool) -> str:
        """Return the text to tokenise; bare: without the space that this tokenizer puts before a text."""
        if not (bare and self.prepends_space):
            return text
        return text[1:] if text.startswith(" ") else "\n" + text

    def conversation(self, messages: tuple[Message, ...]) -> tuple[list[int], list[bool]]:
        """Return (tokens, which of them are supervised), up to the end of the last assistant turn.

        Supervised are all assistant turns with their end tokens; only the last one when the
        template rewrites earlier turns. A raw text is supervised whole.
        """
        if messages and messages[0].role == "text":
            ids = self._text_ids(messages[0].content)
            return ids, [True] * len(ids)
        messages = self._fitted(messages)
        last = max((i for i, m in enumerate(messages) if m.role == "assistant"), default=None)
        if last is None:
            raise RowError("no assistant turn")
        pieces = self._context(messages[:last])
        pieces.append((self.response_ids(messages[last].content), messages[last].supervised))
        ids = [token for piece, _ in pieces for token in piece]
        return ids, [supervised for piece, supervised in pieces for _ in piece]

    def decode_response(self, ids: list[int]) -> str:
        """Return the response without end and pad tokens, an empty thought and surrounding space.

        A thought that the prompt opens is part of the response.
        """
        ends = {*self.end_ids, self.pad_id}
        stop = next((i for i, token in enumerate(ids) if token in ends), len(ids))
        response = self._open_thought() + self.tokenizer.decode(
            ids[:stop], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        empty = NO_THOUGHT.match(response) if THOUGHT[1] in self.response_prefix else None
        return response[empty.end() if empty else 0 :].strip()

    def special_in(self, text: str) -> str | None:
        """Return a control token written in a text, where it would be read as control."""
        return next((token for token in self.special_texts if token in text), None)

    def _encode(self, text: str) -> list[int]:
        if not text:
            return []
        ids = self.preloaded.ids.get(text)
        if ids is None:
            ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return list(ids)

    def _text_ids(self, text: str) -> list[int]:
        """Return bos, text, eos; a text that brings its own gets no second one."""
        ids = self._encode(text)
        if self.bos_ids and ids[:1] != self.bos_ids:
            ids = self.bos_ids + ids
        return ids if ids[-1:] == [self.eos_id] else [*ids, self.eos_id]

    def _context(self, messages: tuple[Message, ...]) -> list[tuple[list[int], bool]]:
        """Return the pieces (tokens, supervised) up to a generation prompt."""
        return [
            (self.encode_response(text) if is_response else self._encode(text), supervised)
            for text, is_response, supervised in self._rendered(messages)[1]
        ]
