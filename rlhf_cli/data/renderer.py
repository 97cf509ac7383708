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

from rlhf_cli.data.records import Message, RowError
from rlhf_cli.data.sandbox import render_template
from rlhf_cli.data.verbatim import fixed_texts, joined

THOUGHT = ("<think>", "</think>")  # the marks around a thought, as templates write them
NO_THOUGHT = re.compile(r"\s*<think>\s*</think>\s*")
ASK = Message("user", "zebra")  # asked in probes; no template contains the word
KEPT = 64  # responses: more than one prompt has

Piece = tuple[str, bool, bool]  # text, whether it is a response, whether it is supervised


@dataclass(slots=True, kw_only=True)
class Preloaded:
    """Rendered and tokenised beforehand: contexts by their messages, what is shown of responses, ids."""

    contexts: dict[tuple[Message, ...], tuple[str, list[Piece]]] = field(default_factory=dict)
    responses: dict[str, str] = field(default_factory=dict)
    ids: dict[str, list[int]] = field(default_factory=dict)


@dataclass(kw_only=True)
class Renderer:
    """A tokenizer with its template settled.

    origin: where the template comes from, for errors . pad_id: never an end id . end_id: ends a
    response and is learned . end_ids: all that stop sampling . added_tokens: new tokens; the
    embedding needs `num_tokens` rows . probe_prompt: the text of a probe's prompt . header: what the
    generation prompt lacks of it . response_prefix: what the template puts between prompt and a plain
    response . response_suffix: what follows it if no end token does . hash: of all that decides the
    tokens . notes: what the template cannot do, and what is done instead.
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
    probe_prompt: str
    header: str = ""
    response_prefix: str = ""
    response_suffix: str | None = None
    takes_system: bool = True
    takes_tools: bool = True
    rewrites_history: bool = False
    prepends_space: bool = False
    notes: list[str] = field(default_factory=list)
    hash: str = ""
    special_texts: tuple[str, ...] = ()
    preloaded: Preloaded = field(default_factory=Preloaded)
    recent_context: dict = field(default_factory=dict)
    shapes: dict[tuple[tuple[str, ...], bool], list[str] | None] = field(default_factory=dict)
    shows_all: dict[tuple[str, ...], bool] = field(default_factory=dict)
    recent_responses: dict[str, str] = field(default_factory=dict)

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

    def difference(self, messages: tuple[Message, ...]) -> tuple[str, str] | None:
        """Return (what, detail) of how the template's text of an answered conversation differs from ours.

        None where the template shows the same, and all of the response. Where the template only joins
        contents with fixed texts the answer is the same for all conversations in these roles.
        """
        messages = self._fitted(messages)
        roles = tuple(m.role for m in messages)
        if self.shows_all.get(roles):
            return None
        found = self._difference(messages)
        if roles not in self.shows_all:
            self.shows_all[roles] = found is None and self._shows_all(roles)
        return found

    def _shows_all(self, roles: tuple[str, ...]) -> bool:
        """Return whether no content in these roles can make a difference."""
        used = ((roles, False), (roles[:-1], True), (("user", "assistant"), False))
        marks = tuple(Message(role, f"<{number}> {number}") for number, role in enumerate(roles))
        return all(self.shapes.get(shape) for shape in used) and self._difference(marks) is None

    def _difference(self, messages: tuple[Message, ...]) -> tuple[str, str] | None:
        prompt, whole = self._prompt_text(messages[:-1]), self._template_text(messages)
        ours = prompt + self._response_text(messages[-1].content)
        ours += self._end_text() if self.response_suffix is None else ""
        if not whole.startswith(ours):
            where = "in the response" if whole.startswith(prompt) else "before the response"
            return f"the chat template's own text differs {where}", first_difference(ours, whole)
        learned = messages[-1:] if self.rewrites_history else messages
        for text in (m.content for m in learned if m.role == "assistant"):
            response = self._open_thought() + self._response_text(text)
            if text not in response and _letters(text) not in _letters(response):
                detail = first_difference(text, response)
                return "the chat template does not show all of a response", detail
        return None

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

    def _response_text(self, text: str) -> str:
        """Return the template's text of a response, up to its end token; the latest are kept."""
        if text in self.preloaded.responses:
            return self.preloaded.responses[text]
        if text not in self.recent_responses:
            if len(self.recent_responses) == KEPT:
                self.recent_responses.clear()
            self.recent_responses[text] = self._probe_response(text)
        return self.recent_responses[text]

    def _probe_response(self, text: str) -> str:
        whole = self._template_text((ASK, Message("assistant", text)))
        if not whole.startswith(self.probe_prompt):
            raise RowError(
                "the chat template does not show the response after its generation prompt",
                first_difference(self.probe_prompt + text, whole),
            )
        response, end, _ = whole[len(self.probe_prompt) :].partition(self._end_text())
        return response if end else response.removesuffix(self.response_suffix or "")

    def _open_thought(self) -> str:
        """Return the beginning of a thought with which every prompt ends; empty for most templates."""
        begin = self.probe_prompt.rfind(THOUGHT[0])
        return self.probe_prompt[begin:] if self.probe_prompt.rstrip().endswith(THOUGHT[0]) else ""

    def _context(self, messages: tuple[Message, ...]) -> list[tuple[list[int], bool]]:
        """Return the pieces (tokens, supervised) up to a generation prompt."""
        return [
            (self.encode_response(text) if is_response else self._encode(text), supervised)
            for text, is_response, supervised in self._rendered(messages)[1]
        ]

    def _prompt_text(self, messages: tuple[Message, ...]) -> str:
        """Return the text of these pieces."""
        return self._rendered(messages)[0]

    def _rendered(self, messages: tuple[Message, ...]) -> tuple[str, list[Piece]]:
        """Return (text up to a generation prompt, its pieces); the latest is kept: most are used twice."""
        if messages in self.preloaded.contexts:
            return self.preloaded.contexts[messages]
        if messages not in self.recent_context:
            text = self._render(messages)
            self.recent_context = {messages: (text, self._pieces(messages, text))}
        return self.recent_context[messages]

    def _pieces(self, messages: tuple[Message, ...], whole: str) -> list[Piece]:
        """Return the pieces of a prompt's text, cut at every assistant turn."""
        pieces: list[Piece] = []
        done = ""
        spoken = [i for i, m in enumerate(messages) if m.role == "assistant"]
        for i in [] if self.rewrites_history else spoken:
            text = self._render(messages[:i])
            if not text.startswith(done):
                break
            pieces.append((text[len(done) :], False, False))
            response = self._response_text(messages[i].content)
            pieces.append((response, True, messages[i].supervised))
            done = text + response + self._end_text()
        if not whole.startswith(done):
            return [(whole, False, False)]
        return [*pieces, (whole[len(done) :], False, False)]

    def _end_text(self) -> str:
        return self.tokenizer.convert_ids_to_tokens(self.end_id)

    def _render(self, messages: tuple[Message, ...]) -> str:
        """Return the text up to where the response begins."""
        return self._template_text(messages, generation=True) + self.header

    def _template_text(self, messages: tuple[Message, ...], *, generation: bool = False) -> str:
        """Return the template's own text; joined of fixed texts where it is no more than that."""
        roles = tuple(m.role for m in messages)
        fixed = self.shapes.get((roles, generation))
        if fixed is not None:
            return joined(fixed, messages)
        text = render_template(self.tokenizer, messages, origin=self.origin, generation=generation)
        if (roles, generation) not in self.shapes:
            fixed = fixed_texts(self.tokenizer, roles, origin=self.origin, generation=generation)
            right = fixed is not None and joined(fixed, messages) == text
            self.shapes[roles, generation] = fixed if right else None
        return text

    def _fitted(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """Return the messages with the configured system text, in roles the template has."""
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


def first_difference(ours: str, theirs: str) -> str:
    """Return both texts from a little before their first difference."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
    part = slice(max(0, place - 20), place + 30)
    return f"{ours[part]!r} became {theirs[part]!r}"


def _letters(text: str) -> str:
    return "".join(text.split())
