"""Rows prepared on disk: the same as those encoded in memory, kept, found again, swept."""

import os
from dataclasses import replace

import pytest

from rlhf_cli.config.schema import LongText, Source
from rlhf_cli.data import prepare
from rlhf_cli.data.encode import encode_sides
from rlhf_cli.data.load import survey
from rlhf_cli.data.prepare import REPORT, ROWS, beside, kept, key_of, opened, publish, sweep
from rlhf_cli.data.records import DataError
from rlhf_cli.data.spec import spec_of


@pytest.fixture
def made(tmp_path):
    """made(cfg, role, renderer) -> what is prepared of it, in a folder of its own."""

    def of(cfg, role, renderer):
        folder = tmp_path / f"made-{len(list(tmp_path.glob('made-*')))}"
        folder.mkdir()
        spec = spec_of(cfg, role)
        list(prepare.prepare(spec, renderer, cfg.data, folder))
        return opened(folder, spec)

    return of


def rows(role: str, n: int) -> list[dict]:
    """Rows of every fate: good, bad, cut, left out, alike, with a system text and several turns."""
    found = []
    for i in range(n):
        prompt = f"question {i % (n - 7)}" + " long" * (40 * (i % 9 == 1))
        row = {"prompt": prompt, "system": f"be {i}"} if i % 5 == 2 else {"prompt": prompt}
        if role == "comparisons":
            row |= {"chosen": f"yes {i}" + "!" * (90 * (i % 11 == 3)), "rejected": f"no {i}"}
        if role == "demonstrations":
            row |= {"response": f"answer {i} </s>" if i % 13 == 4 else f"answer {i}"}
        found.append({"prompt": 3} if i % 17 == 5 else row)
    chat = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}] * 2
    return [*found, *([{"messages": chat}] if role == "demonstrations" else [])]


@pytest.fixture
def cfg(config, write):
    def make(**data):
        sources = {
            role: [
                Source(path=str(write(f"{role}-a.jsonl", rows(role, 60))), weight=2),
                Source(path=str(write(f"{role}-b.jsonl", rows(role, 50)[20:])), weight=1),
            ]
            for role in ("demonstrations", "comparisons", "prompts")
        }
        limits = {"max_prompt_tokens": 90, "max_response_tokens": 40, "eval_fraction": 0.3}
        texts = {"pretraining": [write("t.txt", "one\ntwo " + "long " * 60 + "\nthree\n")]}
        return config(**{**sources, **texts, **limits, **data})

    return make


ROLES = ("demonstrations", "comparisons", "prompts", "pretraining")


@pytest.mark.parametrize("long", LongText)
@pytest.mark.parametrize(
    ("role", "data"), [*((r, {}) for r in ROLES), ("prompts", {"prompts": []})]
)
def test_what_is_prepared_is_what_is_encoded_in_memory(cfg, made, plain_renderer, role, data, long):
    """The same rows in the same order, the same account of those that are not there."""
    cfg = cfg(**data, long_prompts=long, long_responses=long)
    loaded = survey(cfg, role)
    sides = encode_sides(plain_renderer, loaded, cfg.data)
    found = made(cfg, role, plain_renderer)
    for expected, rows in zip(sides, (found.train, found.select, found.eval), strict=True):
        assert len(rows) == len(expected)
        for one, other in zip(rows, expected, strict=True):
            for name in set(other.__slots__) - {"record", "notes", "differences"}:
                assert getattr(one, name) == getattr(other, name)
            for name in other.record.__slots__:
                assert getattr(one.record, name) == getattr(other.record, name)
    assert len(found.train) > 2 or role == "pretraining"
    assert found.report == loaded.report
    assert found.report.plain() == loaded.report.plain()


def test_a_view_is_a_list_that_is_read_when_asked(cfg, made, plain_renderer):
    found = made(cfg(), "comparisons", plain_renderer).train
    every = list(found)
    assert [one.record.prompt for one in found[2:5]] == [one.record.prompt for one in every[2:5]]
    assert found[-1].response_ids == every[-1].response_ids
    assert found.lengths() == [max(map(len, one.sequences())) for one in every]


def test_what_was_prepared_is_found_again_under_the_rules_of_now(cfg, tmp_path, plain_renderer):
    cfg, cache = cfg(), tmp_path / "cache"
    spec = spec_of(cfg, "comparisons")
    key = key_of(spec, plain_renderer, cfg.data)
    assert kept(cache, key, spec) is None
    work = beside(cache, key)
    assert kept(cache, key, spec) is None
    list(prepare.prepare(spec, plain_renderer, cfg.data, work))
    publish(work, cache, key, spec)
    assert [path.name for path in cache.iterdir()] == [key]
    for rules, told in (
        ({"max_bad_fraction": 0.0}, r"more than data\.max_bad_fraction=0"),
        ({"strict": True}, r"comparisons-a\.jsonl:6: .*data\.strict=true stops here"),
    ):
        other = replace(spec, **rules)
        assert key_of(other, plain_renderer, cfg.data) == key
        with pytest.raises(DataError, match=told):
            kept(cache, key, other).report.enforce()


def test_whatever_decides_the_rows_decides_where_they_are_kept(cfg, write, plain_renderer):
    def key(role="demonstrations", renderer=plain_renderer, **data):
        now = cfg(**data)
        return key_of(spec_of(now, role), renderer, now.data)

    first = key()
    assert key() == first
    others = [
        key(max_prompt_tokens=80), key(max_response_tokens=41), key(long_prompts=LongText.drop),
        key(long_responses=LongText.drop), key(eval_fraction=0.4), key(role="prompts"),
        key(renderer=replace(plain_renderer, hash="other")),
    ]  # fmt: skip
    write("demonstrations-b.jsonl", rows("demonstrations", 51)[20:])
    sources = [
        Source(path=str(p)) for p in (write("demonstrations-c.jsonl", rows("demonstrations", 9)),)
    ]
    others.append(key(demonstrations=sources))
    assert len({first, *others}) == len(others) + 1


@pytest.mark.parametrize("damage", ["cut", "gone", "text"])
def test_what_is_damaged_is_made_again(cfg, tmp_path, plain_renderer, damage):
    cfg, cache = cfg(), tmp_path / "cache"
    spec = spec_of(cfg, "prompts")
    for _ in range(2):
        work = beside(cache, "key")
        list(prepare.prepare(spec, plain_renderer, cfg.data, work))
        publish(work, cache, "key", spec)
        assert kept(cache, "key", spec)
        if damage == "text":
            (cache / "key" / REPORT).write_text("{")
        elif damage == "gone":
            (cache / "key" / REPORT).unlink()
        else:
            os.truncate(cache / "key" / ROWS, 99)
        assert kept(cache, "key", spec) is None


def test_the_longest_unused_goes_first_and_what_others_are_making_stays(tmp_path):
    for age, name in enumerate(["new", "old", "older", ".begun.1", ".left.2"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / ROWS).write_bytes(b"0" * 100)
        past = 2e5 if name == ".left.2" else age * 60
        os.utime(tmp_path / name, (os.stat(tmp_path).st_mtime - past,) * 2)
    sweep(tmp_path, "older", keep=250)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "older", ".begun.1"}
