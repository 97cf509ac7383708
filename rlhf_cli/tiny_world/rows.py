"""A row of a table: the columns that make the question, its options, its answer and its rationale."""

from dataclasses import dataclass
from random import Random

YES_NO = ("yes", "no")
UNKNOWN = "it is not possible to tell"
THREE_WAY = ("yes", UNKNOWN, "no")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """columns: what a template may name to ask. options: () for a free answer."""

    columns: dict[str, str]
    answer: str
    options: tuple[str, ...]
    rationale: str = ""

    @property
    def question(self) -> tuple[str, ...]:
        """Return what makes two rows the same question, whatever their options."""
        return tuple(self.columns.values())

    def values(self) -> dict:
        """Return the row as templates see it."""
        found = {**self.columns, "answer": self.answer}
        found |= {"choices": list(self.options)} if self.options else {}
        return found | ({"rationale": self.rationale} if self.rationale else {})


def choices(answer: str, pool: tuple[str, ...], rng: Random, *, num: int = 3) -> tuple[str, ...]:
    """Return the answer and others of the pool, `num` in all, in a random order."""
    wrong = tuple(word for word in dict.fromkeys(pool) if word != answer)
    return tuple(rng.sample((answer, *rng.sample(wrong, num - 1)), num))


def yes_no(columns: dict[str, str], *, right: bool) -> Row:
    """Return a question to answer by yes or no."""
    return Row(columns=columns, answer="yes" if right else "no", options=YES_NO)
