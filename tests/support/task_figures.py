"""The content of a tasks.json made by hand: six tasks, two models, two ways to ask."""

NAMES = ("rte", "gsm8k", "object_counting", "tracking_shuffled_objects_seven_objects", "cb", "qa")


def found(value: float, **changes) -> dict:
    plain = {"value": value, "low": value - 0.05, "high": value + 0.05, "template_std": 0.031}
    plain |= {"unreadable": 0.0, "near_chance": False, "ranks": {}, "votes": {}}
    return plain | changes


def row(model: str, asked: str, figures: dict) -> dict:
    means = {"clusters": {"nli": 0.4, "arithmetic": 0.2}, "groups": {"algorithmic": 0.35}}
    return {"model": model, "shots": 3, "asked": asked, "tasks": figures, "macro": 0.3, **means}


def content() -> dict:
    ranks = {"sum": 0.6, "token": 0.5}
    direct = {name: found(0.11 * i, ranks=ranks) for i, name in enumerate(NAMES, start=1)}
    direct["rte"] = found(0.5123, near_chance=True, template_std=None)
    votes = {"gsm8k": found(0.25, unreadable=0.125, votes={"1": 0.21, "5": 0.27})}
    rows = [
        row(m, a, t) for m in ("base", "SFT") for a, t in (("direct", direct), ("votes", votes))
    ]
    return {"title": "1200 rows of 6 tasks", "tasks": {}, "rows": rows, "notes": ["rte: 3 x bad"]}
