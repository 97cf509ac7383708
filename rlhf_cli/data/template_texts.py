"""The built-in chat templates, as the Jinja text that travels with the tokenizer."""

from pathlib import Path

from rlhf_cli.config.keys import did_you_mean, nearest
from rlhf_cli.data.records import DataError

BOS = "{{- bos_token -}}"
ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)


def labelled(first: str) -> str:
    r"""Return a template with paragraphs "Human: .." and "Assistant: ..", the latter ended by EOS.

    first: what stands before the first turn; HH-RLHF has an empty paragraph there.
    """
    return (
        "{%- for m in messages -%}"
        "{{- '" + first + r"' if loop.first else '\n\n' -}}"
        "{%- if m['role'] == 'assistant' -%}{{- 'Assistant: ' + m['content'] + eos_token -}}"
        "{%- elif m['role'] == 'system' -%}{{- 'System: ' + m['content'] -}}"
        "{%- elif m['role'] == 'tool' -%}{{- 'Tool: ' + m['content'] -}}"
        "{%- else -%}{{- 'Human: ' + m['content'] -}}"
        "{%- endif -%}{%- endfor -%}"
        r"{%- if add_generation_prompt -%}{{- '\n\nAssistant:' -}}{%- endif -%}"
    )


CHATML = (
    "{%- for m in messages -%}"
    r"{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    r"{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)

ALPACA_TEMPLATE = (
    r"{{- '" + ALPACA + r"' -}}"
    "{%- for m in messages -%}"
    r"{%- if m['role'] == 'assistant' -%}{{- '\n\n### Response:\n' + m['content'] + eos_token -}}"
    r"{%- elif m['role'] == 'system' -%}{{- '\n\n' + m['content'] -}}"
    r"{%- elif m['role'] == 'tool' -%}{{- '\n\n### Input:\n' + m['content'] -}}"
    r"{%- else -%}{{- '\n\n### Instruction:\n' + m['content'] -}}"
    "{%- endif -%}{%- endfor -%}"
    r"{%- if add_generation_prompt -%}{{- '\n\n### Response:\n' -}}{%- endif -%}"
)

NONE = (
    "{%- for m in messages -%}"
    "{%- if m['role'] == 'assistant' -%}{{- ' ' + m['content'] + eos_token -}}"
    r"{%- else -%}{{- ('' if loop.first else '\n') + m['content'] -}}"
    "{%- endif -%}{%- endfor -%}"
)

BUILT_IN = {
    "plain": labelled(""),
    "hh": labelled(r"\n\n"),
    "chatml": CHATML,
    "alpaca": ALPACA_TEMPLATE,
    "none": NONE,
}
CONTROL_TOKENS = {"chatml": ("<|im_start|>", "<|im_end|>")}


def template_file(name: str) -> Path | None:
    """Return the .jinja file that data.template names; None for auto and the built-in names."""
    if name == "auto" or name in BUILT_IN:
        return None
    if not Path(name).expanduser().is_file():
        meant = nearest(name, ["auto", *BUILT_IN])
        raise DataError(
            f"data.template={name} is neither auto, one of {', '.join(BUILT_IN)}, "
            f"nor an existing .jinja file{did_you_mean([meant] if meant else [])}"
        )
    return Path(name).expanduser()
