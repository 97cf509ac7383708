"""One row by one template as text, within the limits of data/sandbox.py.

A name that a row lacks, a null and a list where a text is needed are errors of the row, never text.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, UndefinedError
from jinja2.exceptions import TemplateError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rlhf_cli.data.formats.dialogue import kind
from rlhf_cli.data.records import DataError, Filtered, RowError
from rlhf_cli.data.sandbox import ADDED, TIMES, limited
from rlhf_cli.data.tasks.task import BETWEEN, Task, TaskExample, TaskRow, Template

STEP_BY_STEP = "Let's think step by step."
HIDDEN = "\0options\0"  # in place of options_ where they are left out
OURS = ("options", "options_", "answer", "answer_choices", "rationale")  # names in templates


def options_text(options: Sequence[str]) -> str:
    """Return the suffix of FLAN that names the options (preprocessors.py)."""
    return "OPTIONS:" + "".join(f"\n- {option}" for option in options)


def chain_target(rationale: str, answer: str) -> str:
    """Return the target of a chain of thought; of an empty one the answer alone."""
    return f"{rationale}\nThe answer is {answer}.".lstrip("\n")


def example(
    task: Task, row: TaskRow, template: Template, *, show_options: bool = True, chain: bool = False
) -> TaskExample:
    """Return a row by a template of its task; RowError where the row does not allow it.

    chain: the input asks for a chain of thought and the target is one, where the row has a rationale
    and the template asks for the answer.
    """
    if row.rendered:
        return _rendered(task, row, template)
    where = f"{task.file}: template {template.name}"
    values = dict(row.values)
    options = _options(task, template, values)
    values |= {"options": list(options), "answer_choices": list(options)} if options else {}
    answer = None if task.answer is None else _text(task.answer, values, f"{task.file}: answer")
    rationale = _rationale(task, values)
    known = {"answer": answer, "rationale": rationale}
    values |= {name: value for name, value in known.items() if value is not None}
    if options:
        values["options_"] = options_text(options) if show_options else HIDDEN
    written, target = _both(template, values, where)
    answer, options = (target, ()) if template.turned_around else (answer or target, options)
    _check_answer(answer, options)
    if not target:
        raise RowError("empty target", f"template {template.name}")
    chain = chain and rationale is not None and not template.turned_around
    if chain:
        assert rationale is not None
        written, target = f"{written}\n{STEP_BY_STEP}", chain_target(rationale, answer)
    return TaskExample(
        task=task.name,
        template=template.name,
        input=written,
        target=target,
        options=options,
        answer=answer,
        rationale=rationale,
        origin=row.origin,
        chain=chain,
    )


def _rendered(task: Task, row: TaskRow, template: Template) -> TaskExample:
    text = row.rendered[template.name]
    options = () if template.turned_around else _options(task, template, text.values)
    _check_answer(text.completion, options)
    return TaskExample(
        task=task.name,
        template=template.name,
        input=text.prompt,
        target=text.completion,
        options=options,
        answer=text.completion,
        rationale=None,
        origin=text.origin,
    )


def _both(template: Template, values: dict[str, Any], where: str) -> tuple[str, str]:
    """Return (input, target); a template of promptsource may apply to some rows only."""
    if template.target is not None:
        written = _without_hidden(_text(template.input, values, where))
        return written, _text(template.target, values, where)
    parts = _text(template.input, values, where).split(BETWEEN)
    if len(parts) < 2 or not parts[0].strip():
        raise Filtered("a template that does not apply to the row", template.name)
    return _without_hidden(parts[0].strip()), parts[1].strip()


def _without_hidden(text: str) -> str:
    """Return the text without the options that are left out, and without their line."""
    if HIDDEN not in text:
        return text
    lines = [line for line in text.split("\n") if line.strip() != HIDDEN]
    return "\n".join(line.replace(HIDDEN, "").rstrip() for line in lines).strip()


def _rationale(task: Task, values: dict[str, Any]) -> str | None:
    if task.rationale is None:
        return None
    try:
        return _text(task.rationale, values, f"{task.file}: rationale") or None
    except NullValue:
        return None


def _options(task: Task, template: Template, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the options of a row; () for free answers."""
    where = f"{task.file}: options"
    if template.options is not None:
        written = _text(template.options, values, where)
        options = tuple(part.strip() for part in written.split(BETWEEN))
    elif task.options is None:
        return ()
    elif isinstance(task.options, str):
        options = _listed(_value(task.options, values, where))
    else:
        options = tuple(_text(option, values, where) for option in task.options)
    if len(options) < 2:
        raise RowError("fewer than two options", f"{list(options)}")
    if len(set(options)) < len(options):
        raise RowError("an option that stands twice", f"{list(options)}")
    return options


def _listed(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise RowError("options that are no list", f"options is {kind(value)}")
    if any(item is None or isinstance(item, list | dict | bool) for item in value):
        raise RowError("an option that is no text", f"{value!r}"[:80])
    return tuple(str(item).strip() for item in value)


def _check_answer(answer: str, options: tuple[str, ...]) -> None:
    if options and answer not in options:
        listed = ", ".join(map(repr, options))[:80]
        raise RowError("an answer that is none of the options", f"{answer[:40]!r}, not of {listed}")


class NullValue(RowError):
    """A null where a template needs a text."""


def _finalize(value: Any) -> Any:
    if value is None:
        raise NullValue("a null where a template needs a text")
    if isinstance(value, list | dict | tuple):
        raise RowError("a list or an object where a template needs a text", f"{value!r}"[:60])
    return value


def _choice(values: Sequence[Any]) -> Any:
    """Return one of these, always the same: promptsource draws it at random."""
    digest = hashlib.sha256(repr(values).encode(errors="surrogatepass")).digest()
    return values[int.from_bytes(digest[:8], "big") % len(values)]


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    """Return the environment of all templates, with the names that promptsource adds."""
    found = ImmutableSandboxedEnvironment(undefined=StrictUndefined, finalize=_finalize)
    found.globals |= {"zip": zip, "enumerate": enumerate}
    found.filters |= {"choice": _choice}
    return found


@lru_cache(maxsize=4096)
def _compiled(text: str):
    return _environment().from_string(text)


@lru_cache(maxsize=256)
def _expression(text: str):
    """Return the function of "{{ expression }}"."""
    inside = text.strip().removeprefix("{{").removesuffix("}}")
    return _environment().compile_expression(inside, undefined_to_none=False)


def _text(text: str, values: Mapping[str, Any], where: str) -> str:
    """Return what a template makes of a row, without surrounding space."""
    if "{" not in text:  # plain text needs no template engine
        return text.strip()
    found = _limited(lambda: _compiled(text).render(values), where)
    if len(found) > ADDED and len(found) > ADDED + TIMES * sum(map(len, map(str, values.values()))):
        raise DataError(f"{where} makes a text of {len(found):,} characters; shorten the template")
    return found.strip()


def _value(text: str, values: Mapping[str, Any], where: str) -> Any:
    found = _limited(lambda: _expression(text)(**values), where)
    if isinstance(found, Undefined):
        raise RowError("a name that the row does not have", f"{where}: {text}")
    return found


def _limited(compute, where: str) -> Any:
    try:
        with limited(where, what="the template"):
            return compute()
    except (DataError, RowError):
        raise
    except UndefinedError as error:
        raise RowError("a name that the row does not have", f"{where}: {error}") from error
    except Exception as error:
        why = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
        raise RowError("a template refuses the row", f"{where}: {why}") from error


def texts_of(task: Task) -> dict[str, str]:
    """Return {where in the task file: jinja text} of everything that is rendered."""
    listed = [task.options] if isinstance(task.options, str) else list(task.options or ())
    found = {f"options[{i}]": text for i, text in enumerate(listed)}
    found |= {"answer": task.answer or "", "rationale": task.rationale or ""}
    for template in task.templates:
        found[f"template {template.name}"] = template.input + (template.target or "")
        found[f"answer choices of template {template.name}"] = template.options or ""
    return {where: text for where, text in found.items() if text}


def check_syntax(task: Task) -> None:
    """Refuse a template that jinja cannot parse."""
    for where, text in texts_of(task).items():
        try:
            _environment().parse(text)
        except TemplateSyntaxError as error:
            raise DataError(f"{task.file}: {where}: {error.message}; see its {{{{ }}}}") from error


def names_in(text: str) -> set[str]:
    """Return the names that a template takes from the row or from its task."""
    globals_ = _environment().globals
    return {n for n in find_undeclared_variables(_environment().parse(text)) if n not in globals_}
