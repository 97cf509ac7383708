"""Records -> lists of token ids, within the configured lengths; every cut is counted."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Any

from rlhf_cli.config.schema import Data, LongText
from rlhf_cli.data.records import (
    BadRow,
    Comparison,
    Demonstration,
    LeftOut,
    Message,
    Prompt,
    Record,
    RowError,
    context_of,
)
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.report import Loaded, Report

TOGETHER = 512  # records of which the texts are tokenised in one call
GENEROUS = 8  # times as many characters as the longest tokens have


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
        """The K whole sequences, prompt and response."""
        return [self.prompt_ids + ids for ids in self.response_ids]


@dataclass(slots=True, kw_only=True)
class EncodedPrompt:
    """The ids a policy goes on from, and the messages they are of: the record's, as far as they fit."""

    ids: list[int]
    messages: tuple[Message, ...]
    record: Prompt
    notes: tuple[str, ...] = ()
    differences: dict[str, str] = field(default_factory=dict)


def encode_loaded(renderer: Renderer, loaded: Loaded, data: Data) -> tuple[list, list, list]:
    """(train, select, held out) as tokens; refuses when too many rows are bad or a side is empty."""
    sides = encode_sides(renderer, loaded, data)
    loaded.report.enforce()
    return sides


def encode_sides(renderer: Renderer, loaded: Loaded, data: Data) -> tuple[list, list, list]:
    """As `encode_loaded`, but what is wrong as a whole is only written into the report."""
    report = loaded.report
    train = encode_all(renderer, loaded.train, data, report)
    select = encode_all(renderer, loaded.select, data, report)
    held = encode_all(renderer, loaded.eval, data, report)
    note_emptied(
        report,
        [len(loaded.train), len(loaded.select), len(loaded.eval)],
        [len(train), len(select), len(held)],
    )
    return train, select, held


def note_emptied(report: Report, before: list[int], after: list[int]) -> None:
    """Write into the report how many of (train, select, held out) are left, and which side is empty."""
    report.num_train, report.num_select, report.num_eval = after
    for side, place in (("train on", 0), ("hold out", 2)):
        if before[place] and not after[place]:
            report.problems.append(
                f"data.{report.role}: of {before[place]} records none to {side} is left after "
                f"tokenising{report.first()}; see data.max_prompt_tokens, "
                "data.max_response_tokens, data.long_prompts, data.long_responses"
            )


def encode_all(renderer: Renderer, records: list, data: Data, report: Report) -> list:
    """Every record encoded; those that cannot be are taken out of the report's kept ones."""
    encoded = []
    for record, one in encode_each(renderer, records, data):
        if isinstance(one, BadRow):
            report.withdraw(record.origin, one.error())
            continue
        report.notes.update(one.notes)
        for what, detail in one.differences.items():
            report.note(record.origin, what, detail)
        encoded.append(one)
    for note in renderer.notes:
        report.notes[note] = 1
    return encoded


def encode_each(
    renderer: Renderer, records: Iterable[Record], data: Data
) -> Iterator[tuple[Record, Any]]:
    """Yield every record with its encoded form, or with why it has none.

    The tokenizer is called once for many records.
    """
    for some in _batches(records, TOGETHER):
        know(renderer, some, data)
        for record in some:
            try:
                found = encode(renderer, record, data)
            except RowError as error:
                found = BadRow.of(record.origin, error)
            yield record, found
    know(renderer, [], data)


def _batches(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    left = iter(records)
    while some := list(islice(left, size)):
        yield some


def know(renderer: Renderer, records: Iterable[Record], data: Data) -> None:
    """Render and tokenise what these records need, but for texts that are cut before."""
    prompts, responses = [], []
    for record in records:
        asked, said = context_of(record), ()
        if isinstance(record, Comparison):
            said = record.responses
        elif isinstance(record, Demonstration) and asked[0].role != "text":
            last = last_answer(asked)
            asked, said = asked[:last], (asked[last].content,)
        if asked and _chars(asked) <= _room(renderer, data.max_prompt_tokens):
            prompts.append(asked)
        room = _room(renderer, data.max_response_tokens)
        responses += [text for text in said if len(text) <= room]
    renderer.know(prompts, responses)


def last_answer(messages: tuple[Message, ...]) -> int:
    """The place of the last assistant turn; 0 where there is none."""
    return max((i for i, m in enumerate(messages) if m.role == "assistant"), default=0)


def _chars(messages: tuple[Message, ...]) -> int:
    return sum(len(m.content) for m in messages)


def _room(renderer: Renderer, limit: int) -> int:
    """More characters than `limit` tokens can be: a token of unknown letters may stand for several."""
    return GENEROUS * limit * renderer.longest


def encode(renderer: Renderer, record: Record, data: Data):
    """The encoded form of a record of any kind."""
    if isinstance(record, Demonstration):
        return encode_demonstration(renderer, record, data)
    if isinstance(record, Comparison):
        return encode_comparison(renderer, record, data)
    return encode_prompt(renderer, record, data)


def encode_demonstration(
    renderer: Renderer, record: Demonstration, data: Data
) -> EncodedDemonstration:
    """Prompt and response within their limits; a response that is cut loses its end token."""
    _refuse_control_tokens(renderer, record)
    if record.messages[0].role == "text":
        return _encode_text(renderer, record, data)
    last = last_answer(record.messages)
    before, note = fit_prompt(renderer, record.messages[:last], data)
    response, cut = _fit_response(renderer, record.messages[last].content, data)
    said = record.messages[last]
    said = replace(said, content=said.content[: _room(renderer, data.max_response_tokens)])
    messages = (*before, said)
    ids, loss_mask = renderer.conversation(messages)
    unseen = _turns_not_learned(renderer, messages, ids, loss_mask)
    length = len(renderer.prompt_ids(before)) + len(response)
    ids, loss_mask = ids[:length], loss_mask[:length]
    if not any(loss_mask):
        raise RowError("nothing left to supervise", "after truncation")
    return EncodedDemonstration(
        ids=ids,
        loss_mask=loss_mask,
        record=record,
        notes=tuple(filter(None, (note, cut, unseen))),
        differences=_differences(renderer, before, [record.messages[last].content]),
    )


def _differences(renderer: Renderer, prompt: tuple[Message, ...], responses) -> dict[str, str]:
    """{what: detail} of how the template's own text of these conversations differs from ours."""
    found = (renderer.difference((*prompt, Message("assistant", text))) for text in responses)
    return dict(filter(None, found))


def _turns_not_learned(renderer: Renderer, messages, ids: list[int], loss_mask: list[bool]):
    """A note when the template shows earlier answers otherwise, so that they cannot be learned."""
    ends = sum(m and t == renderer.end_id for t, m in zip(ids, loss_mask, strict=True))
    wanted = sum(m.role == "assistant" and m.supervised for m in messages)
    return "earlier answers not supervised: the template rewrites them" if ends < wanted else None


def _encode_text(renderer: Renderer, record: Demonstration, data: Data) -> EncodedDemonstration:
    """A raw text may use both limits together."""
    limit = data.max_prompt_tokens + data.max_response_tokens
    text, room = record.messages[0].content, _room(renderer, limit)
    ids, loss_mask = renderer.conversation((replace(record.messages[0], content=text[:room]),))
    notes = ()
    if len(ids) > limit:
        if data.long_responses is LongText.drop:
            raise LeftOut("text too long", f"{_said(ids, text, room)}, at most {limit}")
        ids, loss_mask, notes = ids[:limit], loss_mask[:limit], ("text cut at the end",)
    return EncodedDemonstration(ids=ids, loss_mask=loss_mask, record=record, notes=notes)


def encode_comparison(renderer: Renderer, record: Comparison, data: Data) -> EncodedComparison:
    """The same prompt for all K; pairs whose responses were cut to the same tokens are dropped."""
    _refuse_control_tokens(renderer, record)
    messages, note = fit_prompt(renderer, record.prompt, data)
    fitted = [_fit_response(renderer, text, data) for text in record.responses]
    responses = [ids for ids, _ in fitted]
    better = tuple((w, b) for w, b in record.better if responses[w] != responses[b])
    if not better and record.better:
        raise RowError("responses alike after truncation", f"{data.max_response_tokens} tokens")
    lost = ("pair alike after truncation, dropped",) * (len(record.better) - len(better))
    notes = (note, *(cut for _, cut in fitted), *lost)
    return EncodedComparison(
        prompt_ids=renderer.prompt_ids(messages),
        response_ids=responses,
        better=better,
        ties=record.ties,
        record=record,
        notes=tuple(filter(None, notes)),
        differences=_differences(renderer, messages, record.responses),
    )


def encode_prompt(renderer: Renderer, record: Prompt, data: Data) -> EncodedPrompt:
    """Tokens up to where the assistant begins to speak."""
    _refuse_control_tokens(renderer, record)
    messages, note = fit_prompt(renderer, record.messages, data)
    return EncodedPrompt(
        ids=renderer.prompt_ids(messages),
        messages=messages,
        record=record,
        notes=(note,) if note else (),
    )


def _refuse_control_tokens(renderer: Renderer, record: Record) -> None:
    """A control token written in a text would be read as control. Raw text may have them."""
    texts = [m.content for m in context_of(record) if m.role != "text"]
    texts += record.responses if isinstance(record, Comparison) else ()
    found = next(filter(None, map(renderer.special_in, texts)), None)
    if found:
        raise RowError("a control token of the tokenizer in the text", repr(found))


def _fit_response(renderer: Renderer, text: str, data: Data) -> tuple[list[int], str | None]:
    limit = data.max_response_tokens
    room = _room(renderer, limit)
    ids = renderer.response_ids(text[:room])
    if len(ids) <= limit and len(text) <= room:
        return ids, None
    if data.long_responses is LongText.drop:
        raise LeftOut(
            "response too long", f"{_said(ids, text, room)}, data.max_response_tokens={limit}"
        )
    return ids[:limit], "response cut at the end, without its end token"


def _said(ids: list[int], text: str, room: int) -> str:
    """How long a text is; one that was cut before is not counted in tokens."""
    return f"{len(ids)} tokens" if len(text) <= room else f"{len(text)} characters"


def fit_prompt(
    renderer: Renderer, messages: tuple[Message, ...], data: Data
) -> tuple[tuple[Message, ...], str | None]:
    """(messages that fit data.max_prompt_tokens, what was cut), the oldest cut first."""
    limit = data.max_prompt_tokens
    room, chars = _room(renderer, limit), _chars(messages)
    length = len(renderer.prompt_ids(messages)) if messages and chars <= room else 0
    if length <= limit and chars <= room:
        return messages, None
    if data.long_prompts is LongText.drop:
        found = f"{length} tokens" if length else f"{chars} characters"
        raise LeftOut("prompt too long", f"{found}, data.max_prompt_tokens={limit}")
    for shorter, note in _shorter(messages):
        if _chars(shorter) <= room and len(renderer.prompt_ids(shorter)) <= limit:
            return shorter, note
    return _fit_last(renderer, messages, limit)


def _shorter(messages: tuple[Message, ...]) -> Iterator[tuple[tuple[Message, ...], str]]:
    """Without its oldest turns, each beginning at a user turn; a system text stays."""
    system = messages[:1] if messages[0].role == "system" else ()
    for start in range(len(system) + 1, len(messages)):
        if messages[start].role == "user":
            yield (*system, *messages[start:]), "prompt cut at a message"


def _fit_last(
    renderer: Renderer, messages: tuple[Message, ...], limit: int
) -> tuple[tuple[Message, ...], str]:
    """The last message without as many of its first lines, words or letters as must go."""
    system = messages[:1] if messages[0].role == "system" and len(messages) > 1 else ()
    last = messages[-1]

    def shorter(text: str) -> tuple[Message, ...]:
        return (*system, replace(last, content=text))

    def size(text: str) -> int:
        return len(renderer.prompt_ids(shorter(text)))

    lines = last.content[-_room(renderer, limit) :].splitlines(keepends=True)
    words = lines[-1].split(" ") if lines else []
    letters = list(words[-1]) if words else []
    for pieces, joint in ((lines, ""), (words, " "), (letters, "")):
        text = _end_that_fits(pieces, joint, size, limit)
        if text:
            return shorter(text), f"prompt cut {'at' if pieces is lines else 'within'} a line"
    raise LeftOut("prompt too long", f"not even its end fits data.max_prompt_tokens={limit}")


def _end_that_fits(pieces: list[str], joint: str, size: Callable[[str], int], limit: int) -> str:
    """The longest end of these pieces, short of all, that has at most `limit` tokens.

    Between an end that fits and one that does not the next guess is where the tokens counted so far
    say that the limit is reached; every third guess is the middle, whatever they say.
    """
    num = len(pieces)
    short, long = 0, max(num, 1)  # of the last pieces: so many fit, so many do not or are all
    fits, exceeds, guess = 0, 0, min(limit, num // 2)
    for tried in count(1):
        if long - short <= 1:
            break
        guess = min(max(guess, short + 1), long - 1)
        found = size(joint.join(pieces[num - guess :]))
        if found <= limit:
            short, fits = guess, found
        else:
            long, exceeds = guess, found
        middle = (short + long) // 2
        guess = _between(short, fits, long, exceeds, limit) if tried % 3 else middle
    return joint.join(pieces[num - short :]).strip() if short else ""


def _between(short: int, fits: int, long: int, exceeds: int, limit: int) -> int:
    """The next number of pieces to try."""
    if not exceeds:
        return (short * limit) // fits + 1 if fits else (short + long) // 2
    if not fits:
        return (long * limit) // exceeds
    return short + max(1, (long - short) * (limit - fits) // max(1, exceeds - fits))
