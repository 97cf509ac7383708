"""A chat template chosen and settled, with its end and pad tokens: `build` makes the Renderer."""

from pathlib import Path

from rlhf_cli.data.records import DataError, Message, RowError
from rlhf_cli.data.renderer import Renderer, fingerprint, render
from rlhf_cli.data.template_texts import BOS, BUILT_IN, CONTROL_TOKENS

__all__ = ["Renderer", "build"]
ASK, SAY, MORE = "zebra", "walrus", "ibex"  # words no template contains


def build(
    tokenizer, *, template: str, system: str | None, also_stop: tuple[int, ...] = ()
) -> Renderer:
    """Settle template, end token and pad token; writes all of them into the tokenizer.

    template: auto, a built-in name, or a .jinja file . also_stop: further ids that end a response,
    such as those of the model's generation config.
    """
    added = _settle_eos(tokenizer)
    bos_ids = _bos_ids(tokenizer)
    tokenizer.chat_template = _template_text(tokenizer, template, bool(bos_ids))
    added += _add(tokenizer, CONTROL_TOKENS.get(template, ()))
    seams = _seams(tokenizer, template)
    end_id = seams.pop("end_id")
    end_ids = list(dict.fromkeys([end_id, tokenizer.eos_token_id, *also_stop]))
    added += _settle_pad(tokenizer, end_ids)
    renderer = Renderer(
        tokenizer=tokenizer,
        template=tokenizer.chat_template,
        system=system,
        end_id=end_id,
        end_ids=end_ids,
        pad_id=tokenizer.pad_token_id,
        eos_id=tokenizer.eos_token_id,
        bos_ids=bos_ids,
        added_tokens=tuple(added),
        prepends_space=_prepends_space(tokenizer),
        special_texts=_special_texts(tokenizer),
        **seams,
    )
    _probe_abilities(renderer)
    renderer.hash = fingerprint(renderer)
    return renderer


def _template_text(tokenizer, template: str, adds_bos: bool) -> str:
    if template == "auto" and tokenizer.chat_template:
        return _single(tokenizer.chat_template)
    name = "plain" if template == "auto" else template
    if name in BUILT_IN:
        return (BOS if adds_bos else "") + BUILT_IN[name]
    if not Path(name).expanduser().is_file():
        raise DataError(
            f"data.template={template} is neither auto, one of {', '.join(BUILT_IN)}, "
            "nor an existing .jinja file"
        )
    return Path(name).expanduser().read_text(encoding="utf-8")


def _single(template) -> str:
    """The default one where a tokenizer has several templates by name."""
    return template["default"] if isinstance(template, dict) else template


def _settle_eos(tokenizer) -> list[str]:
    if tokenizer.eos_token_id is not None:
        return []
    added = _add(tokenizer, ("<|end|>",))
    tokenizer.eos_token = "<|end|>"
    return added


def _settle_pad(tokenizer, end_ids: list[int]) -> list[str]:
    """PAD differs from all end tokens, or the end could not be told from padding."""
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
    """[bos] when the tokenizer puts one before a text by itself, else []."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][0] == bos else []


def _prepends_space(tokenizer) -> bool:
    ids = tokenizer("a", add_special_tokens=False)["input_ids"]
    return tokenizer.convert_ids_to_tokens(ids)[0].startswith("▁")


def _special_texts(tokenizer) -> tuple[str, ...]:
    special = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
    return tuple(sorted(special | set(tokenizer.all_special_tokens), key=len, reverse=True))


def _seams(tokenizer, template: str) -> dict:
    """Where a response begins and ends in the template's text, found by rendering a probe.

    lead: the space that belongs to the response . opening: a header the generation prompt lacks .
    gap: what stands between the text and the end token.
    """
    ask, said = Message("user", ASK), Message("assistant", SAY)
    try:
        whole = render(tokenizer, (ask, said), generation=False)
        prompt = render(tokenizer, (ask,), generation=True)
    except RowError as error:
        raise DataError(f"data.template={template} cannot render a question: {error}") from error
    if SAY not in whole:
        raise DataError(f"data.template={template} leaves out what the assistant says")
    between = whole[len(prompt) : whole.index(SAY)] if whole.startswith(prompt) else ""
    lead = " " if between.endswith(" ") else ""
    after = whole[whole.index(SAY) + len(SAY) :]
    end_id, gap = _end_after(tokenizer, after)
    opening = between.removesuffix(" ")
    return {"end_id": end_id, "gap": gap, "lead": lead, "opening": opening}


def _end_after(tokenizer, after: str) -> tuple[int, str]:
    """(end token, text before it): the first special token after a response, else EOS."""
    places = {t: after.index(t) for t in _special_texts(tokenizer) if t in after}
    if not places:
        return tokenizer.eos_token_id, ""
    token = min(places, key=lambda t: (places[t], -len(t)))
    return tokenizer.convert_tokens_to_ids(token), after[: places[token]]


def _probe_abilities(renderer: Renderer) -> None:
    """Find out what the template cannot do, and note how that is got round."""
    ask, said = Message("user", ASK), Message("assistant", SAY)
    if not _shows(renderer, (Message("system", MORE), ask)):
        renderer.takes_system = False
        renderer.notes.append(
            "the chat template has no system role: system texts stand at the head of the first turn"
        )
    if not _shows(renderer, (ask, said, Message("tool", MORE))):
        renderer.takes_tools = False
        renderer.notes.append("the chat template has no tool role: tools speak as users")
    again = Message("user", MORE)
    pieces = renderer._pieces((ask, said, again))
    if len(pieces) < 3:
        renderer.rewrites_history = True
        renderer.notes.append(
            "the chat template rewrites earlier turns: only the last assistant turn is supervised"
        )


def _shows(renderer: Renderer, messages: tuple[Message, ...]) -> bool:
    try:
        return MORE in render(renderer.tokenizer, messages, generation=True)
    except RowError:
        return False
