"""Records and encoded rows on disk: equal to those in memory, in order, and read from the cache."""

import os
from dataclasses import replace
from random import Random

import pytest

from rlhf_cli.config.schema import LongText, Source
from rlhf_cli.data import load, prepare
from rlhf_cli.data.cache import REPORT, making, sweep
from rlhf_cli.data.encode import encode
from rlhf_cli.data.load import RECORDS, Reading, marked_alone, records_key
from rlhf_cli.data.prepare import ROWS, rows_key
from rlhf_cli.data.records import DataError, RowError
from rlhf_cli.data.split import opening
from rlhf_cli.stages.reading import records_of, spec_of
from tests.support.data_sources import place_of, survey


@pytest.fixture
def prepare_rows(tmp_path):
    """Return prepare_rows(cfg, role, renderer), which prepares rows in a new folder."""

    def of(cfg, role, renderer):
        folder = tmp_path / f"made-{len(list(tmp_path.glob('made-*')))}"
        spec = spec_of(cfg, role)
        records = records_of(spec, folder, silent=True)
        list(prepare.prepare(records, renderer, cfg.data, folder))
        return prepare.opened(folder, spec, records)

    return of


def rows(role: str, n: int) -> list[dict]:
    """Return rows of every kind: good, bad, too long, left out, equal, with system texts."""
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


def encoded_individually(renderer, records, data) -> list:
    """Return (record, encoding) of the records that can be encoded, each on its own."""
    found = []
    for record in records:
        try:
            found.append((record, encode(renderer, record, data)))
        except RowError:
            continue
    return found


@pytest.mark.parametrize("long", LongText)
@pytest.mark.parametrize(
    ("role", "data"), [*((r, {}) for r in ROLES), ("prompts", {"prompts": []})]
)
def test_prepared_rows_equal_the_encoding_of_each_record(
    cfg, prepare_rows, plain_renderer, role, data, long
):
    """They keep their order and their records, and the report counts all others."""
    cfg = cfg(**data, long_prompts=long, long_responses=long)
    loaded, found = survey(cfg, role), prepare_rows(cfg, role, plain_renderer)
    for records, rows in zip(loaded.sides, (found.train, found.select, found.eval), strict=True):
        expected = encoded_individually(plain_renderer, records, cfg.data)
        assert len(rows) == len(expected)
        for one, (record, other) in zip(rows, expected, strict=True):
            for name in set(other.__slots__) - {"record", "notes", "differences"}:
                assert getattr(one, name) == getattr(other, name)
            for name in record.__slots__:
                assert getattr(one.record, name) == getattr(record, name)
    assert len(found.train) > 2 or role == "pretraining"
    report = found.report
    kept = (len(found.train), len(found.select), len(found.eval))
    assert (report.num_train, report.num_select, report.num_eval) == kept
    assert report.num_kept == sum(kept)
    assert report.rows == loaded.report.rows
    everything = report.num_kept + report.num_bad + report.left_out.total()
    assert everything == report.rows.total()


def test_splits_keep_the_order_of_files_and_a_mixture_that_of_its_draw(config, write):
    """The expected order is computed from the hash and the random generator alone."""
    texts = {name: [f"{name} {i}" for i in range(num)] for name, num in (("a", 70), ("b", 50))}
    paths = {
        name: write(f"{name}.jsonl", [{"prompt": q, "response": "yes"} for q in questions])
        for name, questions in texts.items()
    }
    data = {"eval_fraction": 0.3, "select_fraction": 0.1}

    def sides(*weights):
        sources = zip(paths.values(), weights, strict=True)
        cfg = config(**data, demonstrations=[Source(path=str(p), weight=w) for p, w in sources])
        seed = cfg.seed
        return seed, [[opening(r) for r in side] for side in survey(cfg, "demonstrations").sides]

    seed, (train, select, held) = sides(None, None)
    places = {q: place_of(q, seed=seed) for questions in texts.values() for q in questions}
    assert held == [q for q, u in places.items() if u < 0.3]
    assert select == [q for q, u in places.items() if 0.3 <= u < 0.4]
    left = {name: [q for q in questions if places[q] >= 0.4] for name, questions in texts.items()}
    assert train == left["a"] + left["b"]
    seed, (mixed, *others) = sides(1, 3)
    total = min(len(left["a"]) / 0.25, len(left["b"]) / 0.75)
    draws = [(left["a"], 0.25), (left["b"], 0.75)]
    expected = []
    for number, (questions, share) in enumerate(draws):
        num = min(len(questions), round(total * share))
        expected += Random(f"{seed}/demonstrations/{number}").sample(questions, num)
    assert mixed == expected
    assert others == [select, held]


def test_a_view_reads_its_rows_on_access(cfg, prepare_rows, plain_renderer):
    found = prepare_rows(cfg(), "comparisons", plain_renderer).train
    every = list(found)
    assert [one.record.prompt for one in found[2:5]] == [one.record.prompt for one in every[2:5]]
    assert found[-1].response_ids == every[-1].response_ids
    assert found.lengths() == [max(map(len, one.sequences())) for one in every]


def test_rows_of_many_record_batches_are_read_correctly(
    config, write, plain_renderer, prepare_rows
):
    """There are more rows than in a batch of the file and between two releases of memory."""
    rows = [{"prompt": f"q {i}", "chosen": f"a {i}", "rejected": "b"} for i in range(2_100)]
    found = prepare_rows(
        config(comparisons=[write("c.jsonl", rows)]), "comparisons", plain_renderer
    )
    both = [(one.record.prompt[0].content, one.record.responses) for one in found.train]
    assert len(both) > 1_500
    assert all(responses == (f"a {question[2:]}", "b") for question, responses in both)
    texts = [plain_renderer.decode_response(one.response_ids[0]) for one in found.train]
    assert texts == [responses[0] for _, responses in both]


def test_cached_rows_are_checked_against_the_current_limits(cfg, tmp_path, plain_renderer):
    cfg, cache = cfg(), tmp_path / "cache"
    spec = spec_of(cfg, "comparisons")
    key = records_key(spec)
    assert load.opened(cache / key, spec) is None
    records = records_of(spec, cache, silent=True)
    assert [path.name for path in cache.iterdir()] == [key]
    for rules, expected in (
        ({"max_bad_fraction": 0.0}, r"more than data\.max_bad_fraction=0"),
        ({"strict": True}, r"comparisons-a\.jsonl:6: .*data\.strict=true stops here"),
    ):
        other = replace(spec, **rules)
        assert records_key(other) == key
        with pytest.raises(DataError, match=expected):
            load.opened(cache / key, other).report.enforce()
        with making(cache, "rows") as work:
            list(prepare.prepare(records, plain_renderer, cfg.data, work))
        with pytest.raises(DataError, match=expected):
            prepare.opened(cache / "rows", other, records).report.enforce()


def test_cached_sources_are_not_read_again(cfg, tmp_path, monkeypatch):
    """This includes sources marked eval, which several roles need."""
    data = cfg().data
    held = [replace(data.comparisons[0], eval=True, weight=None), data.comparisons[1]]
    now, cache, read = cfg(comparisons=held), tmp_path / "cache", []
    rows = Reading.rows
    monkeypatch.setattr(
        Reading, "rows", lambda self: read.append(self.spec.sources[0].path) or rows(self)
    )
    for _ in range(2):
        for role in ("demonstrations", "comparisons", "prompts"):
            records_of(spec_of(now, role), cache, silent=True)
    marked = held[0].path
    assert read == [data.demonstrations[0].path, marked, marked, data.prompts[0].path]
    (alone,) = marked_alone(spec_of(now, "demonstrations"))
    assert alone.sources == (replace(held[0], eval=False),)
    assert alone.pinned and not alone.marked


def test_the_key_of_the_cache_covers_everything_that_changes_the_rows(cfg, write, plain_renderer):
    def key(role="demonstrations", renderer=plain_renderer, **data):
        now = cfg(**data)
        return rows_key(records_key(spec_of(now, role)), renderer, now.data, role)

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
@pytest.mark.parametrize("step", ["records", "rows"])
def test_damaged_cache_entries_are_removed(cfg, tmp_path, plain_renderer, step, damage):
    cfg, cache = cfg(), tmp_path / "cache"
    spec = spec_of(cfg, "prompts")
    for _ in range(2):
        records = records_of(spec, cache, silent=True)
        key, name = records_key(spec), RECORDS
        if step == "rows":
            key, name = "rows", ROWS
            with making(cache, key) as work:
                list(prepare.prepare(records, plain_renderer, cfg.data, work))

        def found():
            if step == "records":
                return load.opened(cache / key, spec)  # noqa: B023
            return prepare.opened(cache / key, spec, records)  # noqa: B023

        assert found()
        if damage == "text":
            (cache / key / REPORT).write_text("{")
        elif damage == "gone":
            (cache / key / REPORT).unlink()
        else:
            os.truncate(cache / key / name, 99)
        assert found() is None
        assert not [path for path in cache.iterdir() if path.name.startswith(".")]


def test_two_concurrent_runs_share_one_cache_entry(cfg, tmp_path):
    spec, cache = spec_of(cfg(), "comparisons"), tmp_path / "cache"
    key = records_key(spec)
    with making(cache, key) as first, making(cache, key) as second:
        for work in (first, second):
            reading = Reading(spec, work)
            list(reading.rows())
            reading.settle([])
        own = load.opened(first, spec)
    assert [path.name for path in cache.iterdir()] == [key]
    other = load.opened(cache / key, spec)
    assert list(own.each(own.train)) == list(other.each(other.train)) != []


def test_a_failure_leaves_no_cache_entry(tmp_path, config, write):
    spec = spec_of(config(prompts=[write("p.csv", "prompt\n")]), "prompts")
    with pytest.raises(DataError, match="no rows"):
        records_of(spec, tmp_path / "cache", silent=True)
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_sweep_removes_the_oldest_entries_and_keeps_those_in_progress(tmp_path):
    for age, name in enumerate(["new", "old", "older", ".begun.1", ".left.2"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / ROWS).write_bytes(b"0" * 100)
        past = 2e5 if name == ".left.2" else age * 60
        os.utime(tmp_path / name, (os.stat(tmp_path).st_mtime - past,) * 2)
    sweep(tmp_path, {"older"}, keep=250)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "older", ".begun.1"}
