"""The text of a conversation by its template, cut into the pieces that are tokenised.

A response is always the same text: what the template shows of it, up to the end token. The text before
it is the template's own with a generation prompt.
"""

from dataclasses import dataclass, field

from rlhf_cli.data.records import Message, RowError
from rlhf_cli.data.sandbox import render_template
from rlhf_cli.data.verbatim import fixed_texts, joined

THOUGHT = ("<think>", "</think>")  # the marks around a thought, as templates write them
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
class ConversationText:
    """What a settled template writes, and what it cannot.

    origin: where the template comes from, for errors . system: the configured system text . end_id: ends
    a response . probe_prompt: the text of a probe's prompt . header: what the generation prompt lacks of
    it . response_prefix: what the template puts between prompt and a plain response . response_suffix:
    what follows it if no end token does . shapes: {(roles, generation): the fixed texts between contents,
    None where there are none} . shows_all: {roles: whether all of every response is shown}.
    """

    tokenizer: object
    origin: str
    system: str | None
    end_id: int
    probe_prompt: str
    header: str = ""
    response_prefix: str = ""
    response_suffix: str | None = None
    takes_system: bool = True
    takes_tools: bool = True
    rewrites_history: bool = False
    preloaded: Preloaded = field(default_factory=Preloaded)
    recent_context: dict = field(default_factory=dict)
    shapes: dict[tuple[tuple[str, ...], bool], list[str] | None] = field(default_factory=dict)
    shows_all: dict[tuple[str, ...], bool] = field(default_factory=dict)
    recent_responses: dict[str, str] = field(default_factory=dict)

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
