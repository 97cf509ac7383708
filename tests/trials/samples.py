"""The data that the trials hurt: forty good rows of each role, and rows put between them."""

import json
from itertools import product

COLOURS = ("red", "green", "blue", "brown", "grey", "black", "white", "pink")
BEASTS = ("horse", "whale", "spider", "eagle", "tortoise")
PAIRS = list(product(COLOURS, BEASTS))


def demonstrations(count: int = 40) -> list[dict]:
    """Prompt and response, no two alike."""
    return [
        {"prompt": f"Where would a {c} {b} sleep?", "response": f"The {b} wants {c} straw."}
        for c, b in PAIRS[:count]
    ]


def comparisons(count: int = 40) -> list[dict]:
    """Prompt, chosen and rejected."""
    return [
        {"prompt": f"Draw the {c} {b}.", "chosen": f"A {c} {b}, drawn.", "rejected": f"No {b}s."}
        for c, b in PAIRS[:count]
    ]


def ranked(count: int = 40) -> list[dict]:
    """Prompt, three responses and their rank."""
    return [
        {
            "prompt": f"Name the {c} {b}.",
            "responses": [f"{c.title()}", f"{b.title()} {i}", "Nobody"],
            "rank": [0, 1, 2],
        }
        for i, (c, b) in enumerate(PAIRS[:count])
    ]


def scored(count: int = 40) -> list[dict]:
    """The same with scores in place of ranks."""
    return [
        {**{k: row[k] for k in ("prompt", "responses")}, "scores": [3.0, 2.0, 1.0]}
        for row in ranked(count)
    ]


def chats(count: int = 40) -> list[dict]:
    """Conversations as lists of messages."""
    return [
        {"messages": said(("user", row["prompt"]), ("assistant", row["response"]))}
        for row in demonstrations(count)
    ]


def said(*turns: tuple[str, str]) -> list[dict]:
    """A conversation of (role, content)."""
    return [{"role": role, "content": content} for role, content in turns]


def lines(rows: list[dict], *odd: object, at: int = 21) -> str:
    """JSON lines with `odd` from line `at` on: texts as they are, other things as JSON."""
    text = [json.dumps(row) for row in rows]
    text[at - 1 : at - 1] = [row if isinstance(row, str) else json.dumps(row) for row in odd]
    return "".join(f"{line}\n" for line in text)


def csv(*odd: str, at: int = 22, header: str = "prompt,response", mark: str = ",") -> str:
    """The demonstrations as a table of 41 lines, with `odd` from line `at` on."""
    text = [header, *(mark.join(row.values()) for row in demonstrations())]
    text[at - 1 : at - 1] = odd
    return "".join(f"{line}\n" for line in text if line)


def columns(rows: list[dict]) -> dict[str, list]:
    """Rows turned into column -> values."""
    return {name: [row[name] for row in rows] for name in rows[0]}
