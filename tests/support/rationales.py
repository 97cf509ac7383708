"""A rationale that passes every check."""

from rlhf_cli.evaluation.rationale_checks import Rationale

GOOD = Rationale(
    task="sums",
    template="plain",
    row=0,
    origin="sums.jsonl:1",
    question="What is 3 plus 4?",
    answer="7",
    rationale="Three and four make 7.",
    num_tokens=8,
    is_complete=True,
    stated=None,
    gain=0.5,
    gain_stated=2.0,
    steps=None,
)
