"""Texts within the configured numbers of tokens: prompts lose their beginning, responses their end."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count

from rlhf_cli.config.schema import Data, LongText, ShotsAs
from rlhf_cli.data.records import Filtered, Message, Prompt
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.tasks.prompts import Start, prompt_of, without_first
from rlhf_cli.data.tasks.task import TaskExample

GENEROUS = 8  # times as many characters as the longest tokens have


def characters(messages: tuple[Message, ...]) -> int:
    """Return how many characters these messages have together."""
    return sum(len(m.content) for m in messages)


def room_for(renderer: Renderer, limit: int) -> int:
    """Return more characters than `limit` tokens can be: an unknown letter may take several tokens."""
    return GENEROUS * limit * renderer.longest


def fit_response(renderer: Renderer, text: str, data: Data) -> tuple[list[int], str | None]:
    """Return (tokens that fit data.max_response_tokens, what was cut)."""
    limit = data.max_response_tokens
    max_chars = room_for(renderer, limit)
    ids = renderer.response_ids(text[:max_chars])
    if len(ids) <= limit and len(text) <= max_chars:
        return ids, None
    if data.long_responses is LongText.drop:
        raise Filtered(
            "response too long",
            f"{length_of(ids, text, max_chars)}, data.max_response_tokens={limit}",
        )
    return ids[:limit], "response cut at the end, without its end token"


def length_of(ids: list[int], text: str, max_chars: int) -> str:
    """Describe the length of a text; one that was cut before is not counted in tokens."""
    return f"{len(ids)} tokens" if len(text) <= max_chars else f"{len(text)} characters"


def without_exemplars(
    renderer: Renderer, messages: tuple[Message, ...], starts: Sequence[Start], data: Data
) -> tuple[tuple[Message, ...], int]:
    """Return (the messages without the first exemplars, as few as must go, how many went).

    starts: where the prompt begins without the first 1, 2, ... of them. Without any it is for
    fit_prompt, which cuts it or leaves it out.
    """
    limit, kept = data.max_prompt_tokens, messages
    for number, start in enumerate(starts):
        short = characters(kept) <= room_for(renderer, limit)
        if short and len(renderer.prompt_ids(kept)) <= limit:
            return kept, number
        kept = without_first(messages, start)
    return kept, len(starts)


def fit_exemplars(
    renderer: Renderer,
    one: TaskExample,
    exemplars: Sequence[TaskExample],
    shots_as: ShotsAs,
    data: Data,
) -> tuple[Prompt, int]:
    """Return (the prompt of an example after the last exemplars that fit, how many do not)."""
    messages, starts = prompt_of(one, exemplars, shots_as)
    kept, num_gone = without_exemplars(renderer, messages, starts, data)
    return Prompt(kept, one.origin), num_gone


def fit_prompt(
    renderer: Renderer, messages: tuple[Message, ...], data: Data
) -> tuple[tuple[Message, ...], list[int], str | None]:
    """Return (messages that fit data.max_prompt_tokens, tokens, what was cut), the oldest cut first."""
    limit = data.max_prompt_tokens
    max_chars, chars = room_for(renderer, limit), characters(messages)
    ids = renderer.prompt_ids(messages) if chars <= max_chars else []
    if len(ids) <= limit and chars <= max_chars:
        return messages, ids, None
    if data.long_prompts is LongText.drop:
        found = f"{len(ids)} tokens" if ids else f"{chars} characters"
        raise Filtered("prompt too long", f"{found}, data.max_prompt_tokens={limit}")
    for shorter, note in _shorter(messages):
        if characters(shorter) <= max_chars and len(renderer.prompt_ids(shorter)) <= limit:
            return shorter, renderer.prompt_ids(shorter), note
    shorter, note = _fit_last(renderer, messages, limit)
    return shorter, renderer.prompt_ids(shorter), note


def _shorter(messages: tuple[Message, ...]) -> Iterator[tuple[tuple[Message, ...], str]]:
    """Return the messages without the oldest turns, from a user turn on; a system text stays."""
    system = messages[:1] if messages[0].role == "system" else ()
    for start in range(len(system) + 1, len(messages)):
        if messages[start].role == "user":
            yield (*system, *messages[start:]), "prompt cut at a message"


def _fit_last(
    renderer: Renderer, messages: tuple[Message, ...], limit: int
) -> tuple[tuple[Message, ...], str]:
    """Cut as many of the last message's first lines, words or letters as necessary."""
    system = messages[:1] if messages[0].role == "system" and len(messages) > 1 else ()
    last = messages[-1]

    def shorter(text: str) -> tuple[Message, ...]:
        return (*system, replace(last, content=text))

    def size(text: str) -> int:
        return len(renderer.prompt_ids(shorter(text)))

    lines = last.content[-room_for(renderer, limit) :].splitlines(keepends=True)
    words = lines[-1].split(" ") if lines else []
    letters = list(words[-1]) if words else []
    for pieces, joint in ((lines, ""), (words, " "), (letters, "")):
        text = _end_that_fits(pieces, joint, size, limit)
        if text:
            return shorter(text), f"prompt cut {'at' if pieces is lines else 'within'} a line"
    raise Filtered("prompt too long", f"not even its end fits data.max_prompt_tokens={limit}")


def _end_that_fits(pieces: list[str], joint: str, size: Callable[[str], int], limit: int) -> str:
    """Return the longest proper end of these pieces that has at most `limit` tokens.

    Between an end that fits and one that does not the next guess is where the tokens counted so far
    reach the limit; every third guess is the middle.
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
    """Return the next number of pieces to try."""
    if not exceeds:
        return (short * limit) // fits + 1 if fits else (short + long) // 2
    if not fits:
        return (long * limit) // exceeds
    return short + max(1, (long - short) * (limit - fits) // max(1, exceeds - fits))
