"""Trials of the command line, as a new user would and as an adversary would, and the table of them.

    python -m tests.trials --write docs/trials.md

Each row is a command, what must come and what must not. Nothing of the product is replaced.
"""
