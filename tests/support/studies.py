"""Figures of instruction tuning as `task_study` returns them, with names that try to become markup."""

from typing import Any

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028{{7*7}}\u202e\"'&"


def bar(paradigm: str = "prompting", **changes: Any) -> dict[str, Any]:
    plain = {"model": "base", "shots": 0, "value": 0.5, "low": 0.45, "high": 0.55, "runs": 1}
    return {"paradigm": paradigm, "template_std": 0.031} | plain | changes


def bars() -> list[dict[str, Any]]:
    return [
        bar(),
        bar("finetuned", model=f"SFT {HOSTILE}", value=0.91, low=0.88, high=0.94),
        bar("instruction_tuned", model="SFT", shots=3, value=0.625, runs=3, template_std=None),
    ]


def point(model: str, parameters: int, loss: float | None, *, tuned: bool) -> dict[str, Any]:
    plain = {"model": model, "parameters": parameters, "tuned": tuned, "loss": loss, "runs": 2}
    return plain | {"accuracy": 0.5, "low": 0.41, "high": 0.59}


def study() -> dict[str, Any]:
    """Return a study with every part; the losses of base fall as parameters to the power -0.1."""
    losses = {10**n: 10 ** (0.9 - 0.1 * n) for n in (6, 7, 5)}
    return {
        "paradigms": [
            {"task": "rte", "cluster": "nli", "chance": 0.5, "bars": bars()},
            {"task": HOSTILE, "cluster": "arithmetic", "chance": None, "bars": bars()[:1]},
        ],
        "means": bars(),
        "clusters_curve": [
            {
                "clusters": n,
                "value": 0.2 + n / 10,
                "low": 0.15 + n / 10,
                "high": 0.25 + n / 10,
                "runs": 3,
            }
            for n in (7, 0, 4)
        ],
        "templates_curve": [
            {"templates": n, "value": 0.4, "low": 0.3, "high": 0.5, "runs": 1} for n in (1, 2, 5)
        ],
        "scale": {
            "points": [
                *(point(f"m{n}", n, loss, tuned=False) for n, loss in losses.items()),
                *(point(f"m{n}", n, None, tuned=True) for n in losses),
            ],
            "slopes": {"base": -0.1},
        },
    }
