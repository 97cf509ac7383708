"""An independent count of held-out records whose question is trained on, in any role."""

from rlhf_cli.data.split import opening


def leak_check(sides: dict[str, tuple[list, list]]) -> dict[tuple[str, str], int]:
    """{(role trained on, role evaluated on): held-out records whose opening is trained on}.

    sides {role: (train, held out)}. Every pair of roles counts, a role with itself too; no entry
    means no leak.
    """
    trained = {role: {opening(r) for r in train} for role, (train, _) in sides.items()}
    leaks = {}
    for role, openings in trained.items():
        for other, (_, evaluated) in sides.items():
            count = sum(opening(record) in openings for record in evaluated)
            if count:
                leaks[role, other] = count
    return leaks
