"""A small embedded task."""

from rlhf_cli.config.schema import TinyWorld

SETTINGS = TinyWorld(
    demonstrations=200,
    comparisons=150,
    prompts=200,
    held_out_prompts=30,
    pretraining=100,
    completions=[4, 9],
    noise=0.5,
    tie_margin=0.2,
    length_bias=0.0,
    format_bias=0.0,
)
