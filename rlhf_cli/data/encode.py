"""Records -> lists of token ids, within the configured lengths; every cut is counted."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from rlhf_cli.config.schema import Data, LongText
from rlhf_cli.data.records import (
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
    report.num_train, report.num_select, report.num_eval = len(train), len(select), len(held)
    for side, before, after in (("train on", loaded.train, train), ("hold out", loaded.eval, held)):
        if before and not after:
            report.problems.append(
                f"data.{report.role}: of {len(before)} records none to {side} is left after "
                f"tokenising{report.first()}; see data.max_prompt_tokens, "
                "data.max_response_tokens, data.long_prompts, data.long_responses"
            )
    return train, select, held


def encode_all(renderer: Renderer, records: list, data: Data, report: Report) -> list:
    """Every record encoded; those that cannot be are taken out of the report's kept ones."""
    encoded = []
    for record in records:
        try:
            example = encode(renderer, record, data)
        except RowError as error:
            report.withdraw(record.origin, error)
            continue
        report.notes.update(example.notes)
        for what, detail in example.differences.items():
            report.note(record.origin, what, detail)
        encoded.append(example)
    for note in renderer.notes:
        report.notes[note] = 1
    return encoded


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
    last = max(i for i, m in enumerate(record.messages) if m.role == "assistant")
    before, note = fit_prompt(renderer, record.messages[:last], data)
    response, cut = _fit_response(renderer, record.messages[last].content, data)
    messages = (*before, record.messages[last])
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
    ids, loss_mask = renderer.conversation(record.messages)
    limit = data.max_prompt_tokens + data.max_response_tokens
    notes = ()
    if len(ids) > limit:
        if data.long_responses is LongText.drop:
            raise LeftOut("text too long", f"{len(ids)} tokens, at most {limit}")
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
    ids, limit = renderer.response_ids(text), data.max_response_tokens
    if len(ids) <= limit:
        return ids, None
    if data.long_responses is LongText.drop:
        raise LeftOut("response too long", f"{len(ids)} tokens, data.max_response_tokens={limit}")
    return ids[:limit], "response cut at the end, without its end token"


def fit_prompt(
    renderer: Renderer, messages: tuple[Message, ...], data: Data
) -> tuple[tuple[Message, ...], str | None]:
    """(messages that fit data.max_prompt_tokens, what was cut), the oldest cut first."""
    limit = data.max_prompt_tokens
    length = len(renderer.prompt_ids(messages)) if messages else 0
    if length <= limit:
        return messages, None
    if data.long_prompts is LongText.drop:
        raise LeftOut("prompt too long", f"{length} tokens, data.max_prompt_tokens={limit}")
    for shorter, note in _shorter(messages):
        if len(renderer.prompt_ids(shorter)) <= limit:
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

    def fits(text: str) -> bool:
        return len(renderer.prompt_ids(shorter(text))) <= limit

    lines = last.content.splitlines(keepends=True)
    words = lines[-1].split(" ") if lines else []
    letters = list(words[-1]) if words else []
    for pieces, joint in ((lines, ""), (words, " "), (letters, "")):
        text = _end_that_fits(pieces, joint, fits)
        if text:
            return shorter(text), f"prompt cut {'at' if pieces is lines else 'within'} a line"
    raise LeftOut("prompt too long", f"not even its end fits data.max_prompt_tokens={limit}")


def _end_that_fits(pieces: list[str], joint: str, fits: Callable[[str], bool]) -> str:
    """The longest end of these pieces, short of all, that fits; found by halving."""
    low, high = 1, max(1, len(pieces))
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(joint.join(pieces[middle:])) else (middle + 1, high)
    return joint.join(pieces[low:]).strip()
