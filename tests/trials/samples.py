"""The data that the trials damage: forty good rows per role, and rows inserted between them."""

import json
from itertools import product

COLOURS = ("red", "green", "blue", "brown", "grey", "black", "white", "pink")
BEASTS = ("horse", "whale", "spider", "eagle", "tortoise")
PAIRS = list(product(COLOURS, BEASTS))


def demonstrations(count: int = 40) -> list[dict]:
    """Return rows of prompt and response, all different."""
    return [
        {"prompt": f"Where would a {c} {b} sleep?", "response": f"The {b} wants {c} straw."}
        for c, b in PAIRS[:count]
    ]


def comparisons(count: int = 40) -> list[dict]:
    """Return rows of prompt, chosen and rejected."""
    return [
        {"prompt": f"Draw the {c} {b}.", "chosen": f"A {c} {b}, drawn.", "rejected": f"No {b}s."}
        for c, b in PAIRS[:count]
    ]


def ranked(count: int = 40) -> list[dict]:
    """Return rows of a prompt, three responses and their ranks."""
    return [
        {
            "prompt": f"Name the {c} {b}.",
            "responses": [f"{c.title()}", f"{b.title()} {i}", "Nobody"],
            "rank": [0, 1, 2],
        }
        for i, (c, b) in enumerate(PAIRS[:count])
    ]


def scored(count: int = 40) -> list[dict]:
    """Return the same with scores in place of ranks."""
    return [
        {**{k: row[k] for k in ("prompt", "responses")}, "scores": [3.0, 2.0, 1.0]}
        for row in ranked(count)
    ]


def chats(count: int = 40) -> list[dict]:
    """Return conversations as lists of messages."""
    return [
        {"messages": said(("user", row["prompt"]), ("assistant", row["response"]))}
        for row in demonstrations(count)
    ]


def said(*turns: tuple[str, str]) -> list[dict]:
    """Return a conversation of (role, content)."""
    return [{"role": role, "content": content} for role, content in turns]


def lines(rows: list[dict], *odd: object, at: int = 21) -> str:
    """Return JSON lines with `odd` from line `at` on: texts unchanged, other values as JSON."""
    text = [json.dumps(row) for row in rows]
    text[at - 1 : at - 1] = [row if isinstance(row, str) else json.dumps(row) for row in odd]
    return "".join(f"{line}\n" for line in text)


def csv(*odd: str, at: int = 22, header: str = "prompt,response", mark: str = ",") -> str:
    """Return the demonstrations as a table of 41 lines, with `odd` from line `at` on."""
    text = [header, *(mark.join(row.values()) for row in demonstrations())]
    text[at - 1 : at - 1] = odd
    return "".join(f"{line}\n" for line in text if line)


def columns(rows: list[dict]) -> dict[str, list]:
    """Return rows as column -> values."""
    return {name: [row[name] for row in rows] for name in rows[0]}
