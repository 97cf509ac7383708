"""Records -> lists of token ids, within the configured lengths; every cut is counted."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from rlhf_cli.config.schema import Data, LongText
from rlhf_cli.data.fit import (
    characters,
    fit_prompt,
    fit_response,
    length_of,
    room_for,
    without_exemplars,
)
from rlhf_cli.data.records import (
    BadRow,
    Comparison,
    Demonstration,
    Filtered,
    Message,
    Prompt,
    Record,
    RowError,
    context_of,
)
from rlhf_cli.data.renderer import Renderer

GONE = "exemplars that do not fit, left out"
TOGETHER = 512  # records of which the texts are tokenised in one call


@dataclass(slots=True, kw_only=True)
class EncodedDemonstration:
    """ids and loss_mask of equal length; where loss_mask is true the token is to be learned."""

    ids: list[int]
    loss_mask: list[bool]
    record: Demonstration
    notes: tuple[str, ...] = ()
    differences: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class EncodedComparison:
    """prompt_ids, and for each of K responses its ids; pairs as in the record."""

    prompt_ids: list[int]
    response_ids: list[list[int]]
    better: tuple[tuple[int, int], ...]
    ties: tuple[tuple[int, int], ...]
    record: Comparison
    notes: tuple[str, ...] = ()
    differences: dict[str, str] = field(default_factory=dict)

    def sequences(self) -> list[list[int]]:
        """Return the K sequences, each prompt and response."""
        return [self.prompt_ids + ids for ids in self.response_ids]

    @property
    def preferred(self) -> list[int]:
        """Return which responses win and never lose."""
        losers = {loser for _, loser in self.better}
        return sorted({winner for winner, _ in self.better} - losers)


@dataclass(slots=True, kw_only=True)
class EncodedPrompt:
    """The ids that a policy continues, and their messages: the record's, as far as they fit."""

    ids: list[int]
    messages: tuple[Message, ...]
    record: Prompt
    notes: tuple[str, ...] = ()
    differences: dict[str, str] = field(default_factory=dict)


def encode_each(
    renderer: Renderer, records: Iterable[Record], data: Data
) -> Iterator[tuple[Record, Any]]:
    """Yield every record with its encoded form, or with why it has none.

    The tokenizer is called once for many records.
    """
    for some in _batches(records, TOGETHER):
        preload(renderer, some, data)
        for record in some:
            try:
                found = encode(renderer, record, data)
            except RowError as error:
                found = BadRow.of(record.origin, error)
            yield record, found
    preload(renderer, [], data)


def _batches(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    left = iter(records)
    while some := list(islice(left, size)):
        yield some


def preload(renderer: Renderer, records: Iterable[Record], data: Data) -> None:
    """Render and tokenise what these records need, but for texts that are cut before."""
    prompts, responses = [], []
    for record in records:
        prompt, answers = context_of(record), ()
        if isinstance(record, Comparison):
            answers = record.responses
        elif isinstance(record, Demonstration) and prompt[0].role != "text":
            last = last_answer(prompt)
            prompt, answers = prompt[:last], (prompt[last].content,)
        if prompt and characters(prompt) <= room_for(renderer, data.max_prompt_tokens):
            prompts.append(prompt)
        max_chars = room_for(renderer, data.max_response_tokens)
        responses += [text for text in answers if len(text) <= max_chars]
    renderer.preload(prompts, responses)


def last_answer(messages: tuple[Message, ...]) -> int:
    """Return the index of the last assistant turn; 0 where there is none."""
    return max((i for i, m in enumerate(messages) if m.role == "assistant"), default=0)


def encode(renderer: Renderer, record: Record, data: Data):
    """Return the encoded form of a record of any kind."""
    if isinstance(record, Demonstration):
        return encode_demonstration(renderer, record, data)
    if isinstance(record, Comparison):
        return encode_comparison(renderer, record, data)
    return encode_prompt(renderer, record, data)


def encode_demonstration(
    renderer: Renderer, record: Demonstration, data: Data
) -> EncodedDemonstration:
    """Encode prompt and response within their limits; a response that is cut loses its end token."""
    _refuse_control_tokens(renderer, record)
    if record.messages[0].role == "text":
        return _encode_text(renderer, record, data)
    last = last_answer(record.messages)
    shown, num_gone = _shown(renderer, record, record.messages[:last], data)
    before, asked, note = fit_prompt(renderer, shown, data)
    response, cut = fit_response(renderer, record.messages[last].content, data)
    answer = record.messages[last]
    answer = replace(answer, content=answer.content[: room_for(renderer, data.max_response_tokens)])
    messages = (*before, answer)
    ids, loss_mask = renderer.conversation(messages)
    unseen = _turns_not_learned(renderer, messages, ids, loss_mask)
    length = len(asked) + len(response)
    ids, loss_mask = ids[:length], loss_mask[:length]
    if not any(loss_mask):
        raise RowError("nothing left to supervise", "after truncation")
    return EncodedDemonstration(
        ids=ids,
        loss_mask=loss_mask,
        record=record,
        notes=(*filter(None, (note, cut, unseen)), *(GONE,) * num_gone),
        differences=_differences(renderer, before, [record.messages[last].content]),
    )


def _differences(renderer: Renderer, prompt: tuple[Message, ...], responses) -> dict[str, str]:
    """Return {what: detail} of how the template's own text of these conversations differs from ours."""
    found = (renderer.difference((*prompt, Message("assistant", text))) for text in responses)
    return dict(filter(None, found))


def _turns_not_learned(renderer: Renderer, messages, ids: list[int], loss_mask: list[bool]):
    """Return a note where the template renders earlier answers otherwise: they cannot be learned."""
    ends = sum(m and t == renderer.end_id for t, m in zip(ids, loss_mask, strict=True))
    wanted = sum(m.role == "assistant" and m.supervised for m in messages)
    return "earlier answers not supervised: the template rewrites them" if ends < wanted else None


def _encode_text(renderer: Renderer, record: Demonstration, data: Data) -> EncodedDemonstration:
    """Encode a raw text, which may use both limits together."""
    limit = data.max_prompt_tokens + data.max_response_tokens
    text, max_chars = record.messages[0].content, room_for(renderer, limit)
    ids, loss_mask = renderer.conversation((replace(record.messages[0], content=text[:max_chars]),))
    notes = ()
    if len(ids) > limit:
        if data.long_responses is LongText.drop:
            raise Filtered("text too long", f"{length_of(ids, text, max_chars)}, at most {limit}")
        ids, loss_mask, notes = ids[:limit], loss_mask[:limit], ("text cut at the end",)
    return EncodedDemonstration(ids=ids, loss_mask=loss_mask, record=record, notes=notes)


def encode_comparison(renderer: Renderer, record: Comparison, data: Data) -> EncodedComparison:
    """Encode K responses to one prompt; pairs cut to the same tokens are dropped."""
    _refuse_control_tokens(renderer, record)
    messages, asked, note = fit_prompt(renderer, record.prompt, data)
    fitted = [fit_response(renderer, text, data) for text in record.responses]
    responses = [ids for ids, _ in fitted]
    better = tuple((w, b) for w, b in record.better if responses[w] != responses[b])
    if not better and record.better:
        raise RowError("responses alike after truncation", f"{data.max_response_tokens} tokens")
    lost = ("pair alike after truncation, dropped",) * (len(record.better) - len(better))
    notes = (note, *(cut for _, cut in fitted), *lost)
    return EncodedComparison(
        prompt_ids=asked,
        response_ids=responses,
        better=better,
        ties=record.ties,
        record=record,
        notes=tuple(filter(None, notes)),
        differences=_differences(renderer, messages, record.responses),
    )


def encode_prompt(renderer: Renderer, record: Prompt, data: Data) -> EncodedPrompt:
    """Return the tokens up to where the response begins."""
    _refuse_control_tokens(renderer, record)
    shown, num_gone = _shown(renderer, record, record.messages, data)
    messages, asked, note = fit_prompt(renderer, shown, data)
    return EncodedPrompt(
        ids=asked,
        messages=messages,
        record=record,
        notes=(*filter(None, (note,)), *(GONE,) * num_gone),
    )


def _shown(
    renderer: Renderer, record: Demonstration | Prompt, messages: tuple[Message, ...], data: Data
) -> tuple[tuple[Message, ...], int]:
    """Return (the prompt without the exemplars that do not fit, how many those are)."""
    starts = record.meta.get("exemplars", ())
    return without_exemplars(renderer, messages, starts, data)


def _refuse_control_tokens(renderer: Renderer, record: Record) -> None:
    """Refuse a control token written in a text: it would be read as control. Raw text may have them."""
    texts = [m.content for m in context_of(record) if m.role != "text"]
    texts += record.responses if isinstance(record, Comparison) else ()
    found = next(filter(None, map(renderer.special_in, texts)), None)
    if found:
        raise RowError("a control token of the tokenizer in the text", repr(found))
