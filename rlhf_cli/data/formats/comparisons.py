"""Rows of comparisons -> Comparison, one function for each published form."""

from itertools import combinations
from typing import Any

from rlhf_cli.data.formats.dialogue import (
    conversation,
    is_transcript,
    kind,
    objects,
    split_last,
    text_of,
    transcript,
)
from rlhf_cli.data.formats.fields import RESPONSES, Fields, prompt_messages, with_system
from rlhf_cli.data.formats.labels import (
    Pairs,
    from_labels,
    from_ranks,
    from_scores,
    index_of_better,
    judgement,
)
from rlhf_cli.data.records import BadRow, Comparison, Labelled, Message, Origin, RowError

UNUSED_PROMPT = "a prompt column that differs from the conversation in chosen, not used"


def of_two(row: Fields, origin: Origin) -> Comparison:
    """Read chosen and rejected: texts, transcripts or role lists, with or without a prompt column."""
    beside = _prompt_beside(row)
    before, chosen = _side(row["chosen"], "chosen", beside)
    other, rejected = _side(row["rejected"], "rejected", beside)
    if before != other:
        raise RowError("prompts differ", _difference(before, other))
    if not before:
        raise RowError("no prompt", "chosen and rejected hold no conversation and no prompt column")
    if beside and not _is_the_same(beside, before):
        row.notes.append(UNUSED_PROMPT)
    return Comparison(before, (chosen, rejected), ((0, 1),), (), origin)


def _prompt_beside(row: Fields) -> tuple[Message, ...]:
    if "conversations" in row:
        return with_system(conversation(row["conversations"], "conversations"), row)
    names = ("messages", "prompt", "question", "query", "instruction", "inputs", "input")
    if not any(name in row for name in names):
        return ()
    messages = prompt_messages(row)
    trailing = messages[-1].role == "assistant" and not messages[-1].content
    return messages[:-1] if trailing else messages


def _is_the_same(beside: tuple[Message, ...], before: tuple[Message, ...]) -> bool:
    """Return whether a prompt column is the conversation, its beginning or its end."""
    messages = tuple(m for m in beside if m.role != "system")
    turns = tuple(m for m in before if m.role != "system")
    return messages in (turns[: len(messages)], turns[len(turns) - len(messages) :])


def _side(value: Any, what: str, beside: tuple[Message, ...]) -> tuple[tuple[Message, ...], str]:
    """Return (prompt, response) of one side; a prompt repeated inside the side is taken from there."""
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        before, text = split_last(conversation(value, what), what)
        return _joined(beside, before), text
    if is_transcript(value):
        before, text = split_last(transcript(value), what)
        return _joined(beside, before), text
    return beside, text_of(value, what)


def _joined(beside: tuple[Message, ...], before: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the conversation: a side that repeats it replaces it, one that only answers follows it."""
    if not before:
        return beside
    if beside and beside[0].role == "system" and before[0].role != "system":
        return (beside[0], *before)
    return before


def _difference(one: tuple[Message, ...], two: tuple[Message, ...]) -> str:
    turn = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), None)
    if turn is None:
        return f"chosen has {len(one)} turns before the answer, rejected {len(two)}"
    return f"first at turn {turn + 1}: {one[turn].content[:40]!r} and {two[turn].content[:40]!r}"


def of_many(row: Fields, origin: Origin) -> Comparison:
    """Read responses with pairs [[i, j, 0 tie | 1 first | 2 second]], rank (least best) or scores."""
    responses = texts(row["responses"], "responses")
    found = {name: read(row[name], len(responses)) for name, read in LABELS if _given(row, name)}
    if not found:
        nulls = [name for name, _ in LABELS if name in row]
        raise RowError(f"null {nulls[0]}" if nulls else "missing column", "nothing ranks responses")
    _refuse_contradiction(found)
    better, ties = next(iter(found.values()))
    return Comparison(prompt_messages(row), responses, better, ties, origin)


LABELS = (("pairs", from_labels), ("scores", from_scores), ("rank", from_ranks))


def _given(row: Fields, name: str) -> bool:
    return row.get(name) is not None


def _refuse_contradiction(found: dict[str, tuple[Pairs, Pairs]]) -> None:
    """Refuse two kinds of labels that judge one pair differently; they may cover different pairs."""
    seen: dict[frozenset[int], int | None] = {}
    for better, ties in found.values():
        verdicts = {frozenset(pair): pair[0] for pair in better}
        verdicts |= dict.fromkeys(map(frozenset, ties))
        for pair, winner in verdicts.items():
            if seen.setdefault(pair, winner) != winner:
                kinds = " and ".join(found)
                raise RowError(
                    "labels that contradict each other",
                    f"{kinds}; name the one that counts in columns, as {{{next(iter(found))}: ..}}",
                )


def texts(values: Any, what: str) -> tuple[str, ...]:
    """Return a list of at least two texts; an object stands for its text."""
    if not isinstance(values, list):
        hint = "; lists do not fit into cells, write .jsonl" if isinstance(values, str) else ""
        raise RowError("not a list", f"{what} is {kind(values)}{hint}")
    if len(values) < 2:
        raise RowError("fewer than two responses", what)
    return tuple(_response(value, f"{what}[{i}]") for i, value in enumerate(values))


def _response(value: Any, what: str) -> str:
    if isinstance(value, dict):
        keys = ("response", "text", "content", "value", "answer")
        value = next((value[key] for key in keys if key in value), None)
    return text_of(value, what)


def qa_feedback(row: Fields, origin: Origin) -> Comparison:
    """Read `prediction 1..K` with one label per pair in the order 12, 13, .., 23, .. (FineGrainedRLHF)."""
    names = [f"prediction {i}" for i in range(1, 10) if f"prediction {i}" in row]
    responses = tuple(text_of(row[name], name) for name in names)
    pairs = list(combinations(range(len(names)), 2))
    labels = row["preference"]
    if not isinstance(labels, list) or len(labels) != len(pairs):
        raise RowError("a label that cannot be read", f"{labels!r} for {len(names)} predictions")
    triples = [(*pair, label) for pair, label in zip(pairs, labels, strict=True)]
    return Comparison(prompt_messages(row), responses, *from_labels(triples, len(names)), origin)


def summarize(row: Fields, origin: Origin) -> Comparison:
    """Read info.post, two summaries and the index of the better one (summarize-from-feedback)."""
    info = row["info"]
    if not isinstance(info, dict):
        raise RowError("not an object", f"info is {kind(info)}")
    post = info.get("post") or info.get("article")
    title = f"Title: {info['title']}\n\n" if info.get("title") else ""
    subreddit = f"Subreddit: r/{info['subreddit']}\n\n" if info.get("subreddit") else ""
    prompt = f"{subreddit}{title}Post: {text_of(post, 'info.post')}\n\nTL;DR:"
    responses = texts(row["summaries"], "summaries")
    return Comparison(
        (Message("user", prompt),),
        responses,
        (index_of_better(row["choice"], "choice"),),
        (),
        origin,
    )


def webgpt(row: Fields, origin: Origin) -> Comparison:
    """Read answer_0 and answer_1 with scores in [-1, 1]; equal is a tie (webgpt_comparisons)."""
    question = row["question"]
    question = question.get("full_text") if isinstance(question, dict) else question
    responses = tuple(text_of(row[name], name) for name in ("answer_0", "answer_1"))
    better, ties = from_scores([row["score_0"], row["score_1"]], 2)
    prompt = (Message("user", text_of(question, "question")),)
    return Comparison(prompt, responses, better, ties, origin)


def shp(row: Fields, origin: Origin) -> Comparison:
    """Read history with human_ref_A and human_ref_B; labels 1 means that A is better (SHP)."""
    responses = tuple(text_of(row[name], name) for name in ("human_ref_A", "human_ref_B"))
    first, second = index_of_better(row["labels"], "labels")
    prompt = (Message("user", text_of(row["history"], "history")),)
    return Comparison(prompt, responses, ((second, first),), (), origin)


def nectar(row: Fields, origin: Origin) -> Comparison:
    """Read answers, each with its text and its rank from 1 (Nectar)."""
    answers = objects(row["answers"], "answers")
    responses = texts(answers, "answers")
    better, ties = from_ranks([answer.get("rank") for answer in answers], len(responses))
    prompt = prompt_messages(row)
    trailing = prompt[-1].role == "assistant" and not prompt[-1].content
    return Comparison(prompt[:-1] if trailing else prompt, responses, better, ties, origin)


def ultrafeedback(row: Fields, origin: Origin) -> Comparison:
    """Read completions, each with its text and an overall_score (UltraFeedback, unpaired)."""
    completions = objects(row["completions"], "completions")
    responses = texts(completions, "completions")
    scores = [completion.get("overall_score") for completion in completions]
    return Comparison(prompt_messages(row), responses, *from_scores(scores, len(scores)), origin)


def tree(row: Fields, origin: Origin) -> list[Comparison | BadRow]:
    """Return a comparison per set of ranked sibling replies of a message tree (Open Assistant)."""
    found: list[Comparison | BadRow] = []
    _walk(row["prompt"], (), found, origin, row.notes)
    return found


def _walk(
    node: dict, before: tuple[Message, ...], found: list, origin: Origin, notes: list[str]
) -> None:
    messages = before + conversation([node], "prompt")
    replies = objects(node["replies"], "replies") if node.get("replies") else []
    replies = [reply for reply in replies if not reply.get("deleted")]
    if len([reply for reply in replies if reply.get("role") == "assistant"]) > 1:
        try:
            found.append(_siblings(messages, replies, origin, notes))
        except RowError as error:
            found.append(BadRow(origin, error.reason, error.detail))
    for reply in replies:
        _walk(reply, messages, found, origin, notes)


def _siblings(
    messages: tuple[Message, ...], replies: list[dict], origin: Origin, notes: list[str]
) -> Comparison:
    """Leave out replies without a rank when at least two others are ranked."""
    ranked = [reply for reply in replies if reply.get("rank") is not None]
    if len(ranked) < 2:
        raise RowError("null rank", f"{len(replies)} replies to {messages[-1].content[:40]!r}")
    responses = texts(ranked, "replies")
    better, ties = from_ranks([reply["rank"] for reply in ranked], len(ranked))
    notes += ["a reply without a rank, left out"] * (len(replies) - len(ranked))
    return Comparison(messages, responses, better, ties, origin)


def labelled(row: Fields, origin: Origin) -> Labelled:
    """Read a response judged good or bad (KTO): messages that end with it, or prompt and response."""
    good = judgement(row["label"])
    if "messages" in row:
        before, response = split_last(conversation(row["messages"], "messages"), "messages")
        return Labelled(with_system(before, row), response, good, origin)
    name, response = row.take(RESPONSES)
    return Labelled(prompt_messages(row), text_of(response, name), good, origin)
