"""The base model's text: what its documents teach is true."""

import re
from random import Random

import pytest

from rlhf_cli.tiny_world.base_text import (
    LONGEST,
    base_document,
    claims,
    copies,
    critique,
    members,
    paper,
    verdict,
)
from rlhf_cli.tiny_world.gold import RUDE_WORDS
from rlhf_cli.tiny_world.pretraining import size
from rlhf_cli.tiny_world.rows import THREE_WAY


def documents(kind, num: int = 200) -> list[str]:
    rng = Random(1)
    return [kind(rng) for _ in range(num)]


def test_the_same_seed_gives_the_same_text_and_it_fits_a_row():
    first = documents(base_document)
    assert first == documents(base_document)
    assert max(map(size, first)) <= LONGEST


def test_a_copy_is_exact():
    for text in documents(copies):
        for line in text.splitlines():
            first, second = line.removesuffix(".").split(": ")
            assert first == second


def test_a_word_is_one_of_a_list_or_not():
    for text in documents(members):
        shown = text.partition(". ")[0].split(", ")
        for word, answer in re.findall(r"Is (\w+) one of these\? (\w+)\.", text):
            assert (answer == "yes") == (word in shown)


def test_a_paper_solves_different_questions_in_one_form():
    solved = [text.split("\n\n") for text in documents(paper)]
    assert max(map(len, solved)) >= 5
    for examples in solved:
        assert len(set(examples)) == len(examples)
        for mark in ("OPTIONS:", "Let's think step by step.", "Question: "):
            assert len({mark in one for one in examples}) == 1, examples


def test_claims_have_the_verdicts_of_their_sentences():
    for text in documents(claims):
        premise, rest = re.match(r"Suppose (.*?)\. (.*)", text).groups()
        for claim, answer in re.findall(r"that (.*?)\? (.*?)\.", rest):
            assert answer in THREE_WAY
            if " never " in claim or claim.startswith("no "):
                assert answer == "no"
            if answer == "yes" and claim.startswith("the "):
                assert claim.split() == [w for w in premise.split() if w != premise.split()[1]]


@pytest.mark.parametrize("asked", ["politer", "shorter", "right", "better"])
def test_verdicts_of_every_kind_name_either_reply(asked):
    found = [text for text in documents(verdict, 400) if f"Which is {asked}?" in text]
    assert {text[-3:] for text in found} == {"(A)", "(B)"}


def test_the_shorter_reply_is_the_shorter_one():
    for text in documents(verdict, 300):
        if "Which is shorter?" in text:
            first, second = re.search(r"\n\(A\) (.*)\n\(B\) (.*)\nWhich", text, re.DOTALL).groups()
            count = [len(re.findall(r"[a-z0-9]+", reply.lower())) for reply in (first, second)]
            assert (count[0] < count[1]) == text.endswith("(A)")


def test_a_revision_is_not_rude():
    for text in documents(critique):
        before, after = text.split("\n\nCritique: ")
        fault, revision = after.split("\n\nRevision: ")
        words = [set(re.findall(r"[a-z]+", part.lower())) for part in (before, revision)]
        assert not words[1] & RUDE_WORDS
        assert ("rude" in fault) <= bool(words[0] & RUDE_WORDS)
