"""A task of the tiny world: one prompt and all that judging an answer needs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One prompt. `answer` is right; a word of `rivals` beside it is a second, wrong answer.

    count > 0 asks for that many different `members` in any order instead; `answer` is one example.
    statement says the same knowledge as plain text; wrong holds plausible mistakes.
    """

    cluster: str
    task: str
    prompt: str
    answer: str
    wrong: tuple[str, ...]
    rivals: tuple[str, ...]
    statement: str
    members: tuple[str, ...] = ()
    count: int = 0
    held_out: bool = False

    def meta(self, wrong: float = 0.0) -> dict:
        """Return what gold.utility and the evaluation read; held-out clusters always evaluate.

        wrong: the utility of a wrong answer that does not abstain; where it is 0 it is left out.
        """
        found = {
            "cluster": self.cluster,
            "task": self.task,
            "answer": self.answer,
            "rivals": self.rivals,
            "members": self.members,
            "count": self.count,
            "held_out": self.held_out,
            "eval": self.held_out,
        }
        return found | ({"wrong": wrong} if wrong else {})


def others(pool: tuple[str, ...], answer: str) -> tuple[str, ...]:
    """Return the different words of the pool without the answer, in order."""
    return tuple(word for word in dict.fromkeys(pool) if word != answer)
