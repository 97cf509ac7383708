"""Conversations written without the template engine, where the template looks into no message.

Most templates put the contents between fixed texts, which depend on the roles alone. Whether one does
is found by rendering texts that raise when anything but joining is done with them.
"""

from jinja2.exceptions import TemplateError

from rlhf_cli.data.records import Message
from rlhf_cli.data.sandbox import limited

JOINING = (
    "__new__", "__init__", "__class__", "__getattribute__", "__str__", "__add__", "__doc__",
    "__init_subclass__", "__subclasshook__", "__setattr__", "__delattr__", "__reduce__",
    "__reduce_ex__", "__dir__", "__getstate__", "__getnewargs__", "__sizeof__",
)  # fmt: skip


class LookedInto(Exception):
    """Something else was done with a text than to join it to others."""


class Joined(str):
    """A text that can be joined to others, and raises LookedInto at all else."""

    __slots__ = ()

    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> "Joined":
        return Joined("".join((self, other)))

    def __radd__(self, other: str) -> "Joined":
        return Joined("".join((other, self)))


def _refuse(*given: object, **named: object) -> None:
    raise LookedInto


for _name in set(dir(str)) - set(JOINING):
    setattr(Joined, _name, _refuse)


def fixed_texts(
    tokenizer, roles: tuple[str, ...], *, origin: str, generation: bool
) -> list[str] | None:
    """Return the texts before, between and after the contents of messages in these roles; None where
    the template looks into a content, leaves one out or writes one twice."""
    # not at the head: the hub's client comes with it, and reads once whether it is offline
    from transformers.utils.chat_template_utils import _compile_jinja_template

    marks = [f" \n'<{number}>\"é&</think>|{number} \n" for number in range(len(roles))]
    try:
        with limited(origin):
            whole = "".join(
                _compile_jinja_template(tokenizer.chat_template).render(
                    messages=[
                        {"role": r, "content": Joined(m)} for r, m in zip(roles, marks, strict=True)
                    ],
                    tools=None,
                    documents=None,
                    add_generation_prompt=generation,
                    **tokenizer.special_tokens_map,
                )
            )
    except (LookedInto, TemplateError, TypeError, ArithmeticError, LookupError, ValueError):
        return None
    found, rest = [], whole
    for mark in marks:
        before, seen, rest = rest.partition(mark)
        found.append(before)
        if not seen or mark in rest:
            return None
    return [*found, rest]


def joined(texts: list[str], messages: tuple[Message, ...]) -> str:
    """Return the conversation with its contents between these texts."""
    parts = [part for text, m in zip(texts, messages, strict=False) for part in (text, m.content)]
    return "".join([*parts, texts[-1]])
