"""The split of a record depends on its question and the seed alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cli.data.records import Comparison, Demonstration, Message, Origin, Prompt
from rlhf_cli.data.split import HASHED, NAMED, HeldOut, number, opening, place
from tests.support.data_sources import leak_check

ORIGIN = Origin("a", 1)


def prompt_of(question, *more, **meta):
    return Prompt((Message("user", question), *more), ORIGIN, meta)


def demonstration_of(question, answer="a"):
    return Demonstration((Message("user", question), Message("assistant", answer)), ORIGIN)


def comparison_of(question):
    return Comparison((Message("user", question),), ("a", "b"), ((0, 1),), (), ORIGIN)


QUESTIONS = [f"question {i}?" for i in range(2000)]


def rule(eval_fraction, *, seed=1, named=(), by_hash=True):
    named = numbers(named, seed=seed)
    return HeldOut(named=named, by_hash=by_hash, eval_fraction=eval_fraction), seed


def numbers(texts, *, seed):
    return np.array([number(text, seed=seed) for text in texts], dtype=np.uint64)


def reasons_of(records, rule):
    """Return why each record is not trained on, None where it is."""
    out, seed = rule
    question_numbers = numbers(map(opening, records), seed=seed)
    apart = np.array([bool(record.meta.get("held_out")) for record in records])
    reasons = out.reasons(question_numbers, apart)
    return [next((why for why, which in reasons.items() if which[i]), None)
            for i in range(len(records))]  # fmt: skip


def split(records, out):
    """Return (records to train on, held-out records)."""
    reasons = reasons_of(records, out)
    pairs = list(zip(records, reasons, strict=True))
    return [r for r, reason in pairs if not reason], [r for r, reason in pairs if reason]


def test_the_same_question_is_in_the_same_split_in_every_role():
    lists = [[kind(q) for q in QUESTIONS] for kind in (prompt_of, demonstration_of, comparison_of)]
    sides = [split(records, rule(0.1, seed=3)) for records in lists]
    held = [{opening(r) for r in out} for _, out in sides]
    trained = [{opening(r) for r in train} for train, _ in sides]
    assert held[0] == held[1] == held[2]
    assert all(a.isdisjoint(b) for a in held for b in trained)


def test_a_dialogue_is_split_by_its_first_user_turn():
    later = (Message("assistant", "a"), Message("user", "and?"))
    for q in QUESTIONS[:50]:
        with_system = Prompt((Message("system", "s"), Message("user", q), *later), ORIGIN)
        assert opening(with_system) == opening(prompt_of(q)) == opening(prompt_of(q, *later))


@pytest.mark.parametrize("variant", ["Why  me?", " why me?\n", "WHY ME?", "why\tme?"])
def test_spaces_and_case_do_not_make_another_question(variant):
    assert opening(prompt_of(variant)) == opening(prompt_of("why me?"))


def test_other_words_are_another_question():
    assert opening(prompt_of("why me?")) != opening(prompt_of("why not me?"))


def test_the_held_out_share_is_near_the_fraction_and_depends_on_the_seed():
    def held(seed, fraction):
        return set(np.array(QUESTIONS)[place(numbers(QUESTIONS, seed=seed)) < fraction])

    for fraction in (0.05, 0.3):
        expected, spread = fraction * 2000, (fraction * (1 - fraction) * 2000) ** 0.5
        assert abs(len(held(1, fraction)) - expected) < 4 * spread
    assert held(1, 0.1) != held(2, 0.1)
    assert held(1, 0.05) < held(1, 0.3)  # a larger fraction includes a smaller one


@given(st.text(), st.integers(0, 9))
def test_a_fraction_of_zero_holds_out_nothing_and_one_everything(text, seed):
    record = demonstration_of(text)
    assert split([record], rule(0.0, seed=seed)) == ([record], [])
    assert split([record], rule(1.0, seed=seed)) == ([], [record])


def test_records_marked_held_out_are_held_out():
    marked = [prompt_of(q, held_out=True) for q in QUESTIONS[:20]]
    train, out = split(marked, rule(0.01))
    assert (train, out) == ([], marked)


def test_the_split_keeps_every_record_and_the_order():
    records = [prompt_of(q) for q in QUESTIONS[:100]]
    train, out = split(records, rule(0.3))
    assert sorted(map(opening, train + out)) == sorted(map(opening, records))
    assert train == [r for r in records if r in train]


def test_leaks_are_counted_between_all_roles():
    sides = {
        "demonstrations": ([demonstration_of("a"), demonstration_of("b")], [demonstration_of("c")]),
        "prompts": (
            [prompt_of("c"), prompt_of("d")],
            [prompt_of("A "), prompt_of("a"), prompt_of("e")],
        ),
    }
    assert leak_check(sides) == {
        ("demonstrations", "prompts"): 2,
        ("prompts", "demonstrations"): 1,
    }


def test_a_split_by_hash_leaks_nothing():
    sides = {
        name: split([kind(q) for q in QUESTIONS[part]], rule(0.2, seed=5))
        for name, kind, part in (
            ("demonstrations", demonstration_of, slice(0, 1200)),
            ("comparisons", comparison_of, slice(600, 1800)),
            ("prompts", prompt_of, slice(300, 2000)),
        )
    }
    assert leak_check(sides) == {}


def test_the_reason_is_the_source_marked_eval_or_the_hash():
    out = rule(1.0, named=["a"])
    assert reasons_of([prompt_of("A"), prompt_of("b")], out) == [NAMED, HASHED]
    out = rule(1.0, named=["a"], by_hash=False)
    assert reasons_of([prompt_of("A"), prompt_of("b")], out) == [NAMED, None]
