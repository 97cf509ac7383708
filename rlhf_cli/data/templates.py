"""The choice of a chat template, with its end and pad tokens: `build` makes the Renderer."""

import hashlib
import json
import re
from datetime import date as calendar_date
from datetime import datetime
from pathlib import Path

from rlhf_cli.data.conversation_text import ASK, THOUGHT, first_difference
from rlhf_cli.data.records import DataError, Message, RowError
from rlhf_cli.data.renderer import Renderer
from rlhf_cli.data.sandbox import limited, render_template
from rlhf_cli.data.template_texts import BOS, BUILT_IN, CONTROL_TOKENS, template_file

__all__ = ["Renderer", "build"]
ANSWER, MORE = "walrus", "ibex"  # words no template contains
SAMPLE = "The quick brown fox: 3,141 jumps!\n\n\tnaïve 你好 don't"
TODAY = re.compile(r"""\bstrftime_now\(\s*(["'])(.*?)\1\s*\)""")
HAS_TODAY = re.compile(r"\bstrftime_now\s+is\s+(not\s+)?defined\b")
COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)


def build(
    tokenizer,
    *,
    template: str,
    system: str | None,
    date: str | None = None,
    also_stop: tuple[int, ...] = (),
) -> Renderer:
    """Choose template, end token and pad token; write all of them into the tokenizer.

    template: auto, a built-in name, or a .jinja file . date: YYYY-MM-DD, what a template that prints
    today's date is fixed to (default: today) . also_stop: further ids that end a response,
    such as those of the model's generation config.
    """
    added = _settle_eos(tokenizer)
    bos_ids = _bos_ids(tokenizer)
    text = _source_of(tokenizer, template, bool(bos_ids))
    origin = _origin(tokenizer, template)
    with limited(origin):
        tokenizer.chat_template = _dated(text, date or calendar_date.today().isoformat())
    added += _add(tokenizer, CONTROL_TOKENS.get(template, ()))
    boundaries = _boundaries(tokenizer, template, origin)
    end_id = boundaries.pop("end_id")
    end_ids = list(dict.fromkeys([end_id, tokenizer.eos_token_id, *also_stop]))
    added += _settle_pad(tokenizer, end_ids)
    renderer = Renderer(
        tokenizer=tokenizer,
        template=tokenizer.chat_template,
        origin=origin,
        system=system,
        end_id=end_id,
        end_ids=end_ids,
        pad_id=tokenizer.pad_token_id,
        eos_id=tokenizer.eos_token_id,
        bos_ids=bos_ids,
        added_tokens=tuple(added),
        prepends_space=_prepends_space(tokenizer),
        special_texts=_special_texts(tokenizer),
        **boundaries,
    )
    _probe_abilities(renderer)
    if TODAY.search(text):
        renderer.notes.append("the chat template prints today's date: it is fixed to data.date")
    renderer.hash = _hash(renderer)
    return renderer


def _hash(renderer: Renderer) -> str:
    """Return the sha256 of template, system text, special tokens, vocabulary and a sample's tokens."""
    r = renderer
    specials = [r.template, r.system, r.end_ids, r.pad_id, r.bos_ids]
    cut = r.tokenizer(SAMPLE, add_special_tokens=False)["input_ids"]
    decisive = json.dumps([specials, sorted(r.tokenizer.get_vocab().items()), cut])
    return hashlib.sha256(decisive.encode()).hexdigest()


def _source_of(tokenizer, template: str, adds_bos: bool) -> str:
    if template == "auto" and tokenizer.chat_template:
        return _single(tokenizer.chat_template)
    if file := template_file(template):
        return file.read_text(encoding="utf-8")
    name = "plain" if template == "auto" else template
    return (BOS if adds_bos else "") + BUILT_IN[name]


def _origin(tokenizer, template: str) -> str:
    """Return the file that the template was read from; the setting where it is built in."""
    if template != "auto":
        return f"data.template={template}"
    folder = Path(tokenizer.name_or_path)
    files = [folder / name for name in ("chat_template.jinja", "tokenizer_config.json")]
    return str(next((file for file in files if file.is_file()), folder))


def _single(template) -> str:
    """Return the default one where a tokenizer has several templates by name."""
    return template["default"] if isinstance(template, dict) else template


def _dated(template: str, date: str) -> str:
    """Return the template with the texts of one date in place of its calls for today's.

    So the tokens are the same on a later day, in another stage and in whatever reads the tokenizer.
    """
    day = datetime.fromisoformat(date)
    fixed = TODAY.sub(lambda call: repr(day.strftime(call[2])), template)
    fixed = HAS_TODAY.sub(lambda test: "false" if test[1] else "true", fixed)
    if "strftime_now" in COMMENT.sub("", fixed):
        raise DataError(
            "the chat template asks for today's date in a form that is not written out in it "
            "(strftime_now of something else than a string): give data.template a .jinja file "
            "in which the date is written"
        )
    return fixed


def _settle_eos(tokenizer) -> list[str]:
    if tokenizer.eos_token_id is not None:
        return []
    added = _add(tokenizer, ("<|end|>",))
    tokenizer.eos_token = "<|end|>"
    return added


def _settle_pad(tokenizer, end_ids: list[int]) -> list[str]:
    """Add or choose a PAD that differs from all end tokens; else the end would look like padding."""
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in end_ids:
        return []
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id not in end_ids:
        tokenizer.pad_token = tokenizer.unk_token
        return []
    added = _add(tokenizer, ("<|pad|>",))
    tokenizer.pad_token = "<|pad|>"
    return added


def _add(tokenizer, tokens: tuple[str, ...]) -> list[str]:
    new = [token for token in tokens if token not in tokenizer.get_vocab()]
    tokenizer.add_tokens(new, special_tokens=True)
    return new


def _bos_ids(tokenizer) -> list[int]:
    """Return [bos] when the tokenizer puts one before a text, else []."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][0] == bos else []


def _prepends_space(tokenizer) -> bool:
    ids = tokenizer("a", add_special_tokens=False)["input_ids"]
    return tokenizer.convert_ids_to_tokens(ids)[0].startswith(("▁", "Ġ"))


def _special_texts(tokenizer) -> tuple[str, ...]:
    special = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
    return tuple(sorted(special | set(tokenizer.all_special_tokens), key=len, reverse=True))


def _boundaries(tokenizer, template: str, origin: str) -> dict:
    """Return where a response begins and ends in the template's text, found by rendering a probe.

    A thought that the template puts before a response belongs to the response, and so does a space:
    the prompt is the template's own generation prompt, with the header that it may lack.
    """
    try:
        whole = render_template(tokenizer, (ASK, Message("assistant", ANSWER)), origin=origin)
        prompt = render_template(tokenizer, (ASK,), origin=origin, generation=True)
    except RowError as error:
        raise DataError(f"{origin} cannot render a question: {error}") from error
    if ANSWER not in whole:
        raise DataError(f"data.template={template} leaves out the assistant's turns")
    if not whole.startswith(prompt):
        raise DataError(
            f"data.template={template}: the template's conversation does not begin with its "
            f"generation prompt ({first_difference(prompt, whole)}), so that what is learned would "
            "not be what is sampled: set data.template=chatml, or a .jinja file in which it does"
        )
    between, _, after = whole[len(prompt) :].partition(ANSWER)
    thinks = any(mark in between for mark in THOUGHT)
    prefix = between if thinks else " " * between.endswith(" ")
    end_id, ends = _end_after(tokenizer, after)
    header = between.removesuffix(prefix)
    return {
        "end_id": end_id,
        "probe_prompt": prompt + header,
        "header": header,
        "response_prefix": prefix,
        "response_suffix": None if ends else after,
    }


def _end_after(tokenizer, after: str) -> tuple[int, bool]:
    """Return (end token, whether the template writes it): the first special one, else EOS."""
    places = {t: after.index(t) for t in _special_texts(tokenizer) if t in after}
    if not places:
        return tokenizer.eos_token_id, False
    token = min(places, key=lambda t: (places[t], -len(t)))
    return tokenizer.convert_tokens_to_ids(token), True


def _probe_abilities(renderer: Renderer) -> None:
    """Find out what the template cannot do, and note the workaround."""
    ask, answer = ASK, Message("assistant", ANSWER)
    if not _renders(renderer, (Message("system", MORE), ask)):
        renderer.takes_system = False
        renderer.notes.append(
            "the chat template has no system role: system texts stand at the head of the first turn"
        )
    if not _renders(renderer, (ask, answer, Message("tool", MORE))):
        renderer.takes_tools = False
        renderer.notes.append("the chat template has no tool role: tools speak as users")
    again = Message("user", MORE)
    if len(renderer._context((ask, answer, again))) < 3:
        renderer.rewrites_history = True
        renderer.notes.append(
            "the chat template rewrites earlier turns: only the last assistant turn is supervised"
        )


def _renders(renderer: Renderer, messages: tuple[Message, ...]) -> bool:
    tokenizer, origin = renderer.tokenizer, renderer.origin
    try:
        return MORE in render_template(tokenizer, messages, origin=origin, generation=True)
    except RowError:
        return False
