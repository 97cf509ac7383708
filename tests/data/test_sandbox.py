"""Limits of time and memory for chat templates; their errors are one line."""

import resource
import signal
import sys
import threading

import pytest

from rlhf_cli.data import sandbox
from rlhf_cli.data.records import DataError, Message, RowError
from rlhf_cli.data.sandbox import limited, render_template
from rlhf_cli.data.templates import build

PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
DOUBLING = (
    "{% set n = namespace(s='aaaa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}"
)
POWER = "{{ 9 ** (9 ** 9) % 7 }}"
ENDLESS = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}"
ASK = (Message("user", "Why?"),)

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")


@pytest.fixture
def tokenizer(make_tokenizer, tmp_path, monkeypatch):
    """Return tokenizer(template), a tokenizer read from a folder with this template."""
    monkeypatch.setattr(sandbox, "SECONDS", 0.2)
    monkeypatch.setattr(sandbox, "MEMORY", 2**27)
    made = make_tokenizer(bos_token="<s>", eos_token="</s>")
    made.name_or_path = str(tmp_path)

    def with_template(text: str):
        (tmp_path / "chat_template.jinja").write_text(text)
        made.chat_template = text
        return made

    return with_template


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (LOOP, "computes for more than 0.2 s"),
        (POWER, "computes for more than 0.2 s"),
        pytest.param("{{ 'a' * 3000000000 }}", "needs more than 0.125 GiB", marks=linux),
        pytest.param("{{ 'a'|center(3000000000) }}", "needs more than 0.125 GiB", marks=linux),
        pytest.param(DOUBLING, "needs more than 0.125 GiB", marks=linux),
        ("{{ 'a' * 2000000 }}", "makes a text of 2,000,011 characters"),
        ("{{ 1 / 0 }}", "cannot render a question: .*: ZeroDivisionError: division by zero"),
        ("{{ 'a' * 10 ** 30 }}", "cannot render a question: .*: OverflowError: cannot fit"),
        (ENDLESS, "cannot render a question: .*: RecursionError: maximum recursion"),
        ("{{ messages[9].content + 1 }}", "cannot render a question: .*has no element 9"),
        (
            "{{ 'ab'.encode('none') }}",
            "cannot render a question: .*: LookupError: unknown encoding",
        ),
    ],
)
def test_a_template_beyond_its_limits_is_refused_with_its_file(
    tokenizer, tmp_path, template, expected
):
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(DataError, match=f"{tmp_path}/chat_template.jinja:? .*{expected}") as caught:
        build(tokenizer(template + PLAIN), template="auto", system=None)
    assert "\n" not in str(caught.value)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_a_template_that_loops_for_some_rows_stops_reading(tokenizer, tmp_path):
    """An error per row would only be counted, and the next row would loop again."""
    trap = "{% if messages|length > 4 %}" + LOOP + "{% endif %}"
    ready = build(tokenizer(trap + PLAIN), template="auto", system=None)
    talk = (*(ASK * 4), Message("assistant", "So."))
    with pytest.raises(DataError, match=r"chat_template\.jinja: the chat template computes"):
        ready.prompt_ids(talk)


def test_a_template_that_fails_for_a_row_gives_a_row_error(tokenizer):
    ready = tokenizer("{{ 1 / (messages|length - 1) }}" + PLAIN)
    with pytest.raises(RowError, match="refuses the conversation: ZeroDivisionError"):
        render_template(ready, ASK, origin="here")
    assert render_template(ready, ASK * 2, origin="here") == "1.0Why?Why?"


def test_long_texts_of_the_data_are_rendered(tokenizer):
    long = (Message("user", "x" * 3_000_000),)
    assert len(render_template(tokenizer(PLAIN), long, origin="here")) == 3_000_000


def test_memory_and_errors_are_limited_outside_the_main_thread(tokenizer):
    found = []
    ready = tokenizer("{{ 1 / 0 }}" if sys.platform != "linux" else "{{ 'a' * 3000000000 }}")

    def render():
        try:
            render_template(ready, ASK, origin="here")
        except (DataError, RowError) as error:
            found.append(error)

    thread = threading.Thread(target=render)
    thread.start()
    thread.join()
    assert len(found) == 1


def test_a_lower_memory_limit_of_the_user_is_kept(monkeypatch):
    low = 2**40
    monkeypatch.setattr(sandbox, "MEMORY", 2**50)
    assert sandbox._most((low, resource.RLIM_INFINITY)) == low
    assert sandbox._most((resource.RLIM_INFINITY, resource.RLIM_INFINITY)) > 2**50


def test_limited_stops_any_slow_code(tokenizer, monkeypatch):
    with pytest.raises(DataError, match="computes for more than"), limited("here"):
        while True:
            pass
