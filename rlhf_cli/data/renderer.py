"""The one place that renders a conversation, for every stage.

A response is always the same tokens: what the template shows of it, then the end token. A
conversation is its prompt's tokens followed by its response's, turn after turn, so what SFT learns,
what the reward model scores and what PPO samples is cut at the same token. How a template is chosen
is templates' matter.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from rlhf_cli.data.records import Message, RowError
from rlhf_cli.data.sandbox import shown
from rlhf_cli.data.verbatim import fixed_texts, joined

THOUGHT = ("<think>", "</think>")  # the marks around a thought, as templates write them
NO_THOUGHT = re.compile(r"\s*<think>\s*</think>\s*")
ASK = Message("user", "zebra")  # asked in probes; no template contains the word
KEPT = 64  # responses: more than one prompt has
SAMPLE = "The quick brown fox: 3,141 jumps!\n\n\tnaïve 你好 don't"


Piece = tuple[str, bool, bool]  # text, whether it is a response, whether it is supervised


@dataclass(slots=True, kw_only=True)
class Known:
    """Rendered and tokenised beforehand: contexts by their messages, what is shown of responses, ids."""

    contexts: dict[tuple[Message, ...], tuple[str, list[Piece]]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    ids: dict[str, list[int]] = field(default_factory=dict)


@dataclass(kw_only=True)
class Renderer:
    """A tokenizer with its template settled.

    origin: where the template comes from, for errors . pad_id: never an end id . end_id: ends a
    response and is learned . end_ids: all that stop sampling . added_tokens: new tokens; the
    embedding needs `num_tokens` rows . asked: the text of a probe's prompt . opening: a header that
    the generation prompt lacks . before: what the template puts between prompt and a plain response
    . tail: what follows it if no end token does . hash: of all that decides the tokens . notes:
    what the template cannot do and how that is got round.
    """

    tokenizer: object
    template: str
    origin: str
    system: str | None
    end_id: int
    end_ids: list[int]
    pad_id: int
    eos_id: int
    bos_ids: list[int]
    added_tokens: tuple[str, ...]
    asked: str
    opening: str = ""
    before: str = ""
    tail: str | None = None
    takes_system: bool = True
    takes_tools: bool = True
    rewrites_history: bool = False
    prepends_space: bool = False
    notes: list[str] = field(default_factory=list)
    hash: str = ""
    special_texts: tuple[str, ...] = ()
    known: Known = field(default_factory=Known)
    latest: dict = field(default_factory=dict)
    shapes: dict[tuple[tuple[str, ...], bool], list[str] | None] = field(default_factory=dict)
    latest_said: dict[str, str] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """Rows the model's embedding must have at least."""
        return len(self.tokenizer)

    @cached_property
    def longest(self) -> int:
        """Characters of the longest token: more text than this a token cannot be."""
        return max(map(len, self.tokenizer.get_vocab()))

    def know(self, prompts: Iterable[tuple[Message, ...]], responses: Iterable[str]) -> None:
        """Render these and tokenise them in one call, in place of those known before.

        What cannot be rendered is left to whoever asks for it, who is told why.
        """
        self.known = known = Known()
        texts: dict[str, None] = {}
        for messages in prompts:
            if messages[0].role == "text":
                texts[messages[0].content] = None
                continue
            try:
                fitted = self._fitted(messages)
                known.contexts[fitted] = context = self._rendered(fitted)
            except RowError:
                continue
            texts |= {
                self._to_encode(t, bare=is_response): None for t, is_response, _ in context[1]
            }
        for text in responses:
            try:
                known.said[text] = said = self._answer_to_probe(text)
            except RowError:
                continue
            texts[self._to_encode(said, bare=True)] = None
        texts.pop("", None)
        if texts:
            found = self.tokenizer(
                list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
            )["input_ids"]
            known.ids = dict(zip(texts, found, strict=True))

    def prompt_ids(self, messages: tuple[Message, ...]) -> list[int]:
        """Tokens up to where the assistant begins to speak."""
        if messages and messages[0].role == "text":
            return self.bos_ids + self._encode(messages[0].content)
        return [token for ids, _ in self._context(self._fitted(messages)) for token in ids]

    def response_ids(self, text: str) -> list[int]:
        """Tokens of what the assistant says, the end token included."""
        return self.bare_ids(self._said(text))

    def bare_ids(self, said: str) -> list[int]:
        """Tokens of a text with the end token, whatever the template makes of it."""
        text = self._to_encode(said, bare=True)
        ids = self._encode(text)
        if len(text) > len(said):  # a line end was put before it
            before = self._encode("\n")
            ids = ids[len(before) :] if ids[: len(before)] == before else self._encode(said)
        return [*ids, self.end_id]

    def _to_encode(self, text: str, *, bare: bool) -> str:
        """The text to be tokenised; bare: without the space that this tokenizer puts before every text."""
        if not (bare and self.prepends_space):
            return text
        return text[1:] if text.startswith(" ") else "\n" + text

    def conversation(self, messages: tuple[Message, ...]) -> tuple[list[int], list[bool]]:
        """(tokens, which of them are supervised), up to the end of the last assistant turn.

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

    def difference(self, messages: tuple[Message, ...]) -> tuple[str, str] | None:
        """(what, detail) of how the template's own text of an answered conversation differs from ours.

        None where the template shows the same, and all of the response.
        """
        messages = self._fitted(messages)
        prompt, whole = self._prompt_text(messages[:-1]), self._shown(messages)
        ours = prompt + self._said(messages[-1].content)
        ours += self._end_text() if self.tail is None else ""
        if not whole.startswith(ours):
            where = "in the response" if whole.startswith(prompt) else "before the response"
            return f"the chat template's own text differs {where}", apart(ours, whole)
        learned = messages[-1:] if self.rewrites_history else messages
        for text in (m.content for m in learned if m.role == "assistant"):
            said = self._open_thought() + self._said(text)
            if text not in said and _letters(text) not in _letters(said):
                return "the chat template does not show all of a response", apart(text, said)
        return None

    def decode_response(self, ids: list[int]) -> str:
        """What was said, without end and pad tokens, an empty thought and surrounding space.

        A thought that the prompt opens is part of what was said.
        """
        ends = {*self.end_ids, self.pad_id}
        stop = next((i for i, token in enumerate(ids) if token in ends), len(ids))
        said = self._open_thought() + self.tokenizer.decode(
            ids[:stop], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        empty = NO_THOUGHT.match(said) if THOUGHT[1] in self.before else None
        return said[empty.end() if empty else 0 :].strip()

    def special_in(self, text: str) -> str | None:
        """A control token written in a text, where it would be read as control."""
        return next((token for token in self.special_texts if token in text), None)

    def _encode(self, text: str) -> list[int]:
        if not text:
            return []
        ids = self.known.ids.get(text)
        if ids is None:
            ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return list(ids)

    def _text_ids(self, text: str) -> list[int]:
        """bos, text, eos; a text that brings its own gets no second one."""
        ids = self._encode(text)
        if self.bos_ids and ids[:1] != self.bos_ids:
            ids = self.bos_ids + ids
        return ids if ids[-1:] == [self.eos_id] else [*ids, self.eos_id]

    def _said(self, text: str) -> str:
        """What the template shows of a response, up to its end token; the latest are kept."""
        if text in self.known.said:
            return self.known.said[text]
        if text not in self.latest_said:
            if len(self.latest_said) == KEPT:
                self.latest_said.clear()
            self.latest_said[text] = self._answer_to_probe(text)
        return self.latest_said[text]

    def _answer_to_probe(self, text: str) -> str:
        whole = self._shown((ASK, Message("assistant", text)))
        if not whole.startswith(self.asked):
            raise RowError(
                "the chat template does not show the response after its generation prompt",
                apart(self.asked + text, whole),
            )
        said, end, _ = whole[len(self.asked) :].partition(self._end_text())
        return said if end else said.removesuffix(self.tail or "")

    def _open_thought(self) -> str:
        """The beginning of a thought with which every prompt ends; empty for most templates."""
        begin = self.asked.rfind(THOUGHT[0])
        return self.asked[begin:] if self.asked.rstrip().endswith(THOUGHT[0]) else ""

    def _context(self, messages: tuple[Message, ...]) -> list[tuple[list[int], bool]]:
        """The pieces (tokens, supervised) up to a generation prompt."""
        return [
            (self.bare_ids(text) if is_response else self._encode(text), supervised)
            for text, is_response, supervised in self._rendered(messages)[1]
        ]

    def _prompt_text(self, messages: tuple[Message, ...]) -> str:
        """The text of these pieces."""
        return self._rendered(messages)[0]

    def _rendered(self, messages: tuple[Message, ...]) -> tuple[str, list[Piece]]:
        """(text up to a generation prompt, its pieces); the latest is kept, most are asked for twice."""
        if messages in self.known.contexts:
            return self.known.contexts[messages]
        if messages not in self.latest:
            text = self._render(messages)
            self.latest = {messages: (text, self._pieces(messages, text))}
        return self.latest[messages]

    def _pieces(self, messages: tuple[Message, ...], whole: str) -> list[Piece]:
        """The pieces of a prompt's whole text, cut at every assistant turn."""
        pieces: list[Piece] = []
        done = ""
        spoken = [i for i, m in enumerate(messages) if m.role == "assistant"]
        for i in [] if self.rewrites_history else spoken:
            text = self._render(messages[:i])
            if not text.startswith(done):
                break
            pieces.append((text[len(done) :], False, False))
            said = self._said(messages[i].content)
            pieces.append((said, True, messages[i].supervised))
            done = text + said + self._end_text()
        if not whole.startswith(done):
            return [(whole, False, False)]
        return [*pieces, (whole[len(done) :], False, False)]

    def _end_text(self) -> str:
        return self.tokenizer.convert_ids_to_tokens(self.end_id)

    def _render(self, messages: tuple[Message, ...]) -> str:
        """The text up to where the assistant begins to speak."""
        return self._shown(messages, generation=True) + self.opening

    def _shown(self, messages: tuple[Message, ...], *, generation: bool = False) -> str:
        """The template's own text; joined of fixed texts where it is no more than that."""
        roles = tuple(m.role for m in messages)
        fixed = self.shapes.get((roles, generation))
        if fixed is not None:
            return joined(fixed, messages)
        text = shown(self.tokenizer, messages, origin=self.origin, generation=generation)
        if (roles, generation) not in self.shapes:
            fixed = fixed_texts(self.tokenizer, roles, origin=self.origin, generation=generation)
            right = fixed is not None and joined(fixed, messages) == text
            self.shapes[roles, generation] = fixed if right else None
        return text

    def _fitted(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages with the configured system text, in roles the template has."""
        if self.system and not (messages and messages[0].role == "system"):
            messages = (Message("system", self.system), *messages)
        if not self.takes_tools:
            messages = tuple(
                Message("user", f"Tool: {m.content}") if m.role == "tool" else m for m in messages
            )
        if self.takes_system or not messages or messages[0].role != "system":
            return messages
        system, rest = messages[0].content, messages[1:]
        if not rest or rest[0].role != "user":
            return (Message("user", system), *rest)
        return (Message("user", f"{system}\n\n{rest[0].content}"), *rest[1:])


def apart(ours: str, theirs: str) -> str:
    """Both texts from a little before where they part."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
    part = slice(max(0, place - 20), place + 30)
    return f"{ours[part]!r} became {theirs[part]!r}"


def _letters(text: str) -> str:
    return "".join(text.split())


def fingerprint(renderer: Renderer) -> str:
    """sha256 of template, system text, special tokens, vocabulary, and how a sample text is cut."""
    r = renderer
    specials = [r.template, r.system, r.end_ids, r.pad_id, r.bos_ids]
    cut = r.tokenizer(SAMPLE, add_special_tokens=False)["input_ids"]
    decisive = json.dumps([specials, sorted(r.tokenizer.get_vocab().items()), cut])
    return hashlib.sha256(decisive.encode()).hexdigest()
