"""Rows that hold people's preferences -> Comparison, one function for each published form."""

from itertools import combinations
from typing import Any

from rlhf_cli.data.dialogue import (
    conversation,
    is_transcript,
    split_last,
    text_of,
    transcript,
)
from rlhf_cli.data.fields import Fields, prompt_messages, with_system
from rlhf_cli.data.records import BadRow, Comparison, Message, Origin, RowError

Pairs = tuple[tuple[int, int], ...]


def of_two(row: Fields, origin: Origin) -> Comparison:
    """chosen and rejected: texts, transcripts or role lists, with or without the prompt beside."""
    beside = _prompt_beside(row)
    before, chosen = _side(row["chosen"], "chosen", beside)
    other, rejected = _side(row["rejected"], "rejected", beside)
    if before != other:
        raise RowError("prompts differ", _difference(before, other))
    if not before:
        raise RowError("no prompt", "chosen and rejected hold no conversation and no prompt column")
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


def _side(value: Any, what: str, beside: tuple[Message, ...]) -> tuple[tuple[Message, ...], str]:
    """(prompt, response) of one side; a prompt repeated inside the side is taken from there."""
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
    """A side that repeats the conversation replaces it; one that only answers follows it."""
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
    """responses with pairs [[i, j, 0 tie | 1 first | 2 second]], rank (least best) or scores."""
    responses = texts(row["responses"], "responses")
    if row.get("pairs") is not None:
        better, ties = from_labels(row["pairs"], len(responses))
    elif row.get("scores") is not None:
        better, ties = from_scores(row["scores"], len(responses))
    elif "rank" in row:
        better, ties = from_ranks(row["rank"], len(responses))
    else:
        raise RowError("missing column", "responses without pairs, rank or scores")
    return Comparison(prompt_messages(row), responses, better, ties, origin)


def texts(values: Any, what: str) -> tuple[str, ...]:
    """A list of at least two texts; an object stands for its text."""
    if not isinstance(values, list) or len(values) < 2:
        raise RowError("fewer than two responses", what)
    return tuple(_response(value, f"{what}[{i}]") for i, value in enumerate(values))


def _response(value: Any, what: str) -> str:
    if isinstance(value, dict):
        keys = ("response", "text", "content", "value", "answer")
        value = next((value[key] for key in keys if key in value), None)
    return text_of(value, what)


def from_labels(pairs: Any, num: int) -> tuple[Pairs, Pairs]:
    """(better, ties) of triples (i, j, label): 0 a tie, 1 the first is better, 2 the second."""
    better, ties, seen = [], [], set()
    for triple in pairs:
        first, second, label = _triple(triple, num)
        if frozenset((first, second)) in seen:
            raise RowError("a pair labelled twice", f"{first} and {second}")
        seen.add(frozenset((first, second)))
        if label == 0:
            ties.append((first, second))
        else:
            better.append((first, second) if label == 1 else (second, first))
    return tuple(better), tuple(ties)


def _triple(triple: Any, num: int) -> tuple[int, int, int]:
    ok = isinstance(triple, (list, tuple)) and len(triple) == 3
    ok = ok and all(isinstance(x, int) for x in triple)
    if not ok or triple[0] == triple[1] or not all(0 <= i < num for i in triple[:2]):
        raise RowError("a label that cannot be read", f"{triple!r} for {num} responses")
    if triple[2] not in (0, 1, 2):
        raise RowError("a label that cannot be read", f"{triple[2]!r} is not 0, 1 or 2")
    return tuple(triple)


def from_scores(scores: Any, num: int) -> tuple[Pairs, Pairs]:
    """Higher is better, equal is a tie."""
    return from_ranks([-score for score in numbers(scores, num, "null score")], num)


def from_ranks(ranks: Any, num: int) -> tuple[Pairs, Pairs]:
    """Lower is better, equal is a tie."""
    ranks = numbers(ranks, num, "null rank")
    pairs = list(combinations(range(num), 2))
    better = [(i, j) if ranks[i] < ranks[j] else (j, i) for i, j in pairs if ranks[i] != ranks[j]]
    return tuple(better), tuple((i, j) for i, j in pairs if ranks[i] == ranks[j])


def numbers(values: Any, num: int, if_null: str) -> list[float]:
    """One number for each response, read from text where need be."""
    if values is None or (isinstance(values, list) and None in values):
        raise RowError(if_null)
    if not isinstance(values, list) or len(values) != num:
        raise RowError("a label that cannot be read", f"{values!r} for {num} responses")
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise RowError("a label that cannot be read", f"{values!r}") from error


def qa_feedback(row: Fields, origin: Origin) -> Comparison:
    """`prediction 1..K` with one label a pair in the order 12, 13, .., 23, .. (FineGrainedRLHF)."""
    names = [f"prediction {i}" for i in range(1, 10) if f"prediction {i}" in row]
    responses = tuple(text_of(row[name], name) for name in names)
    pairs = list(combinations(range(len(names)), 2))
    labels = row["preference"]
    if not isinstance(labels, list) or len(labels) != len(pairs):
        raise RowError("a label that cannot be read", f"{labels!r} for {len(names)} predictions")
    triples = [(*pair, label) for pair, label in zip(pairs, labels, strict=True)]
    return Comparison(prompt_messages(row), responses, *from_labels(triples, len(names)), origin)


def summarize(row: Fields, origin: Origin) -> Comparison:
    """info.post, two summaries and the index of the better one (summarize-from-feedback)."""
    info = row["info"]
    post = info.get("post") or info.get("article")
    title = f"Title: {info['title']}\n\n" if info.get("title") else ""
    subreddit = f"Subreddit: r/{info['subreddit']}\n\n" if info.get("subreddit") else ""
    prompt = f"{subreddit}{title}Post: {text_of(post, 'info.post')}\n\nTL;DR:"
    responses = texts(row["summaries"], "summaries")
    return Comparison(
        (Message("user", prompt),), responses, (_chosen(row["choice"], "choice"),), (), origin
    )


def _chosen(index: Any, what: str) -> tuple[int, int]:
    if index not in (0, 1):
        raise RowError("a label that cannot be read", f"{what} is {index!r}, expected 0 or 1")
    return (int(index), 1 - int(index))


def webgpt(row: Fields, origin: Origin) -> Comparison:
    """answer_0 and answer_1 with scores in [-1, 1]; equal scores are a tie (webgpt_comparisons)."""
    question = row["question"]
    question = question.get("full_text") if isinstance(question, dict) else question
    responses = tuple(text_of(row[name], name) for name in ("answer_0", "answer_1"))
    better, ties = from_scores([row["score_0"], row["score_1"]], 2)
    prompt = (Message("user", text_of(question, "question")),)
    return Comparison(prompt, responses, better, ties, origin)


def shp(row: Fields, origin: Origin) -> Comparison:
    """history with human_ref_A and human_ref_B; labels 1 says that A is better (SHP)."""
    responses = tuple(text_of(row[name], name) for name in ("human_ref_A", "human_ref_B"))
    first, second = _chosen(row["labels"], "labels")
    prompt = (Message("user", text_of(row["history"], "history")),)
    return Comparison(prompt, responses, ((second, first),), (), origin)


def nectar(row: Fields, origin: Origin) -> Comparison:
    """answers, each with its text and its rank from 1 (Nectar)."""
    answers = row["answers"]
    responses = texts(answers, "answers")
    better, ties = from_ranks([answer.get("rank") for answer in answers], len(responses))
    prompt = prompt_messages(row)
    trailing = prompt[-1].role == "assistant" and not prompt[-1].content
    return Comparison(prompt[:-1] if trailing else prompt, responses, better, ties, origin)


def ultrafeedback(row: Fields, origin: Origin) -> Comparison:
    """completions, each with its text and an overall_score (UltraFeedback, unpaired)."""
    completions = row["completions"]
    responses = texts(completions, "completions")
    scores = [completion.get("overall_score") for completion in completions]
    return Comparison(prompt_messages(row), responses, *from_scores(scores, len(scores)), origin)


def tree(row: Fields, origin: Origin) -> list[Comparison | BadRow]:
    """Every set of ranked sibling replies of a message tree is a comparison (Open Assistant)."""
    found: list[Comparison | BadRow] = []
    _walk(row["prompt"], (), found, origin, row.notes)
    return found


def _walk(
    node: dict, before: tuple[Message, ...], found: list, origin: Origin, notes: list[str]
) -> None:
    messages = before + conversation([node], "prompt")
    replies = [reply for reply in node.get("replies") or [] if not reply.get("deleted")]
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
    """Replies that nobody ranked are left out when at least two others are."""
    ranked = [reply for reply in replies if reply.get("rank") is not None]
    if len(ranked) < 2:
        raise RowError("null rank", f"{len(replies)} replies to {messages[-1].content[:40]!r}")
    responses = texts(ranked, "replies")
    better, ties = from_ranks([reply["rank"] for reply in ranked], len(ranked))
    notes += ["a reply without a rank, left out"] * (len(replies) - len(ranked))
    return Comparison(messages, responses, better, ties, origin)


def labelled(row: Fields, origin: Origin) -> Comparison:
    """A single response judged good or bad (KTO) is no comparison."""
    raise RowError("no pair", "one response with a label; use it under data.demonstrations")
