"""Templates that are only fixed texts between the contents."""

from types import SimpleNamespace

import pytest

from rlhf_cli.data.records import Message
from rlhf_cli.data.verbatim import fixed_texts, joined

ROLES = ("user", "assistant")


def texts_of(body: str) -> list[str] | None:
    template = "{% for m in messages %}" + body + "{% endfor %}"
    tokenizer = SimpleNamespace(chat_template=template, special_tokens_map={"eos_token": "</s>"})
    return fixed_texts(tokenizer, ROLES, origin="t", generation=False)


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (
            "{{ m['role'] + ': ' + m['content'] + eos_token }}",
            ["user: ", "</s>assistant: ", "</s>"],
        ),
        ("<{{ m.content ~ eos_token }}", ["<", "</s><", "</s>"]),
        ("{% if m.content is string %}{{ m.content }}{% endif %}", ["", "", ""]),
    ],
)
def test_a_template_that_only_joins_contents_has_fixed_texts(body, texts):
    assert texts_of(body) == texts
    messages = (Message("user", " a "), Message("assistant", "<b>"))
    assert joined(texts, messages) == f"{texts[0]} a {texts[1]}<b>{texts[2]}"


@pytest.mark.parametrize(
    "body",
    [
        "{{ m.content | trim }}", "{{ ('a' + m.content) | trim }}", "{{ (m.content ~ '') | trim }}",
        "{% set c %}{{ m.content }}{% endset %}{{ c | trim }}", "{{ m.content[:4] }}",
        "{% if m.content %}{{ m.content }}{% endif %}", "{{ m.content | length }}{{ m.content }}",
        "{% if 'x' in m.content %}{{ m.content }}{% endif %}", "{{ m.content }}{{ m.content }}",
        "{% if m.content == 'a' %}b{% endif %}{{ m.content }}", "{{ m.content | upper }}",
        "{{ m.content.split('</think>')[-1] }}", "{{ m.content | tojson }}",
        "{% if m.content.startswith('Human') %}{% endif %}{{ m.content }}",
        "{% if loop.first %}{{ m.content }}{% endif %}", "{{ m.content | replace('x', 'y') }}",
    ],
)  # fmt: skip
def test_a_template_that_inspects_or_changes_a_content_has_no_fixed_texts(body):
    assert texts_of(body) is None


@pytest.mark.parametrize("template", ["plain", "chatml"])
def test_a_renderer_gives_the_same_ids_with_and_without_fixed_texts(
    template, make_tokenizer, monkeypatch
):
    from rlhf_cli.data import conversation_text as module
    from rlhf_cli.data.templates import build

    def render():
        one = build(make_tokenizer(eos_token="</s>"), template=template, system="be kind")
        chat = [
            Message("user", " a\n"),
            Message("assistant", "b </think> {{ 1 }}"),
            Message("user", "<c>"),
        ]
        known = one.prompt_ids(tuple(chat)), one.response_ids(" x "), one.prompt_ids((chat[2],))
        again = one.prompt_ids((Message("user", "another"),)), one.response_ids("y")
        return known, again, one.difference((chat[0], chat[1])), sum(map(bool, one.shapes.values()))

    *fast, num_fixed = render()
    monkeypatch.setattr(module, "fixed_texts", lambda *shape, **more: None)
    *slow, none_fixed = render()
    assert fast == slow
    assert num_fixed > none_fixed == 0
