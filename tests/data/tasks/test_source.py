"""The source tasks:train as the stages read it: no leaks, epochs, splits, and its key."""

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest

from rlhf_cli.config.schema import Batch, Batching, LongText, LossOn, ShotsAs, Source
from rlhf_cli.core.microbatches import Share
from rlhf_cli.data.collate import BatchOptions, of_epoch, sft_batches
from rlhf_cli.data.load import records_key
from rlhf_cli.data.prepare import opened, prepare
from rlhf_cli.data.records import DataError, Demonstration
from rlhf_cli.stages.reading import records_of, spec_of
from tests.support.data_sources import load, survey
from tests.support.tasks import make, mixture, records, rows, settings

SOURCE = Source(path="tasks:train")


@pytest.fixture
def tasks_config(config):
    """Return tasks_config(files, epochs=, sources=, data=, **settings), a configuration."""

    def made(*files, epochs=2, seed=1, sources=(SOURCE,), data=None, **changes):
        cfg = config(demonstrations=list(sources), **(data or {}))
        sft = replace(cfg.sft, epochs=epochs)
        return replace(cfg, tasks=settings(*files, **changes), sft=sft, seed=seed)

    return made


@pytest.fixture
def four_tasks(tmp_path):
    """Write four tasks: two to train on, one held out by its cluster, one left out with it."""
    dev = {
        "path": "sst.jsonl",
        "eval_path": "dev.jsonl",
        "columns": {"premise": "p", "hypothesis": "h", "label": "y"},
    }
    (tmp_path / "dev.jsonl").write_text("".join(f"{line}\n" for line in _lines("dev", 10)))
    return [
        make(tmp_path, 60, name="rte", clusters=["nli"]),
        make(tmp_path, 60, name="mrpc", clusters=["paraphrase"]),
        make(tmp_path, 90, name="sst", clusters=["sentiment"], source=dev),
        make(tmp_path, 60, name="boolq", clusters=["qa"]),
    ]


def _lines(name: str, num: int) -> list[str]:
    import json

    return [json.dumps(row) for row in rows(num, name)]


def prepared(cfg, renderer, folder):
    """Return the encoded rows of a configuration's demonstrations."""
    spec = spec_of(cfg, "demonstrations")
    found = records_of(spec, folder / "cache", silent=True)
    (folder / "rows").mkdir()
    list(prepare(found, renderer, cfg.data, folder / "rows"))
    return opened(folder / "rows", spec, found)


def batches(cfg, train, epoch: int, share: Share | None = None):
    options = BatchOptions(
        batch=Batch(size=8, microbatch=4, max_tokens=None),
        seed=cfg.seed,
        epoch=epoch,
        pad_id=0,
        **({} if share is None else {"share": share}),
    )
    kind = {"batching": Batching.grouped, "loss_on": LossOn.response}
    return sft_batches(train, options, **kind, max_tokens=10_000)


def texts(cfg, train, renderer, epoch: int, share: Share | None = None) -> list[str]:
    """Return the text of every row of every microbatch of an epoch."""
    steps = batches(cfg, train, epoch, share)
    return [
        renderer.tokenizer.decode(row[mask])
        for step in (steps[i] for i in range(len(steps)))
        for micro in step
        for row, mask in zip(micro.tokens, micro.mask, strict=True)
        if micro.loss_mask.any()
    ]


@pytest.mark.parametrize("shots_as", ShotsAs)
def test_no_evaluation_text_is_in_a_training_batch(
    shots_as, four_tasks, tasks_config, plain_renderer, tmp_path
):
    """No text or exemplar has rows of held-out tasks, of evaluation or of selection."""
    cfg = tasks_config(
        *four_tasks, hold_out=["nli"], shots=[0, 2], cot=0.5, options=0.5, epochs=3, shots_as=shots_as,
        data={"max_prompt_tokens": 2000},
    )  # fmt: skip
    found = prepared(cfg, plain_renderer, tmp_path)
    seen = "\n".join(
        text for epoch in range(3) for text in texts(cfg, found.train, plain_renderer, epoch)
    )
    assert "sst dog" in seen and "boolq dog" in seen
    for name in ("rte", "mrpc", "dev"):
        assert f"{name} dog" not in seen and f"{name} animal" not in seen
    not_trained_on = [one.record for one in (*found.select, *found.eval)]
    assert {r.meta["task"] for r in not_trained_on} == {"sst", "boolq"}
    for record in not_trained_on:
        dog = " ".join(record.meta["question"].split()[:3])  # "sst dog 7"
        assert f"{dog} runs" not in seen and f"{dog.replace('dog', 'animal')} moves" not in seen
    assert {r.origin.source.rpartition("/")[2] for r in not_trained_on} == {
        "sst.jsonl", "dev.jsonl", "boolq.jsonl",
    }  # fmt: skip
    turned = {r.meta["template"] for r in not_trained_on}
    assert "invent" not in turned and "Write a premise." in seen


def test_any_number_of_processes_trains_on_the_same_texts(
    four_tasks, tasks_config, plain_renderer, tmp_path
):
    cfg = tasks_config(*four_tasks, hold_out=["nli"], shots=[0, 1], cot=0.3)
    train = prepared(cfg, plain_renderer, tmp_path).train
    for epoch in range(2):
        alone = Counter(texts(cfg, train, plain_renderer, epoch))
        shared = Counter()
        for rank in range(2):
            shared += Counter(texts(cfg, train, plain_renderer, epoch, Share(rank=rank, size=2)))
        assert alone == shared


def test_a_row_occurs_once_per_epoch_with_another_template_in_the_next(
    four_tasks, tasks_config, plain_renderer, tmp_path
):
    cfg = tasks_config(*four_tasks, hold_out=["nli"], epochs=3)
    train = prepared(cfg, plain_renderer, tmp_path).train
    seen: dict[str, list[str]] = {}
    for epoch in range(3):
        drawn = [one.record for one in of_epoch(train, epoch)]
        assert len(drawn) == len(train) / 3
        questions = [record.meta["question"] for record in drawn]
        assert len(set(questions)) == len(questions)
        for record in drawn:
            assert record.meta["epoch"] == epoch
            seen.setdefault(record.meta["question"], []).append(record.meta["template"])
    assert all(set(names) == {"conclude", "true", "invent"} for names in seen.values())
    again = [one.record.origin for one in of_epoch(train, 4)]
    assert again == [one.record.origin for one in of_epoch(train, 1)]


def test_an_epoch_keeps_its_size_when_renderings_are_left_out(
    four_tasks, tasks_config, plain_renderer, tmp_path
):
    """The next rendering replaces one that does not fit."""
    cfg = tasks_config(
        four_tasks[3], epochs=3, data={"max_prompt_tokens": 80, "long_prompts": LongText.drop}
    )
    found = prepared(cfg, plain_renderer, tmp_path)
    assert found.report.left_out["prompt too long"] > 10
    sizes = {len(of_epoch(found.train, epoch)) for epoch in range(3)}
    assert len(sizes) == 1 and sizes == {found.report.num_train}
    named = {one.record.meta["template"] for one in of_epoch(found.train, 0)}
    assert named == {"true", "invent"}


def test_the_report_names_tasks_rows_and_the_size_of_an_epoch(four_tasks, tasks_config):
    found = survey(tasks_config(*four_tasks, hold_out=["nli"], epochs=3), "demonstrations").report
    assert found.rows == {"tasks:train sst": 100, "tasks:train boolq": 60}
    per_epoch = {k: n for k, n in found.notes.items() if k.startswith("examples per epoch")}
    assert found.num_train == sum(per_epoch.values())
    assert found.num_kept == 3 * found.num_train + found.num_select + found.num_eval
    assert found.num_checked == 160


def test_the_fraction_of_bad_rows_is_of_the_rows_and_not_of_the_draw(tmp_path, tasks_config):
    bad = [{**row, "y": 7} if i < 10 else row for i, row in enumerate(rows(100))]
    for examples, epochs in product((5, 500), (1, 4)):
        cfg = tasks_config(make(tmp_path, rows=bad), examples=examples, epochs=epochs)
        report = survey(cfg, "demonstrations").report
        assert (report.num_bad, report.num_checked) == (10, 100)


def test_a_task_without_usable_rows_is_named_and_the_others_are_used(tmp_path, tasks_config):
    bad = [{**row, "y": 7} for row in rows(20)]
    files = [make(tmp_path, name="a", rows=bad), make(tmp_path, name="b")]
    report = survey(tasks_config(*files), "demonstrations").report
    assert report.notes["task a is not trained on: none of its rows can be used"] == 1
    assert report.num_train > 20
    alone = survey(tasks_config(files[0]), "demonstrations").report
    assert "rows are bad" in replace(alone, max_bad_fraction=0.5).verdict()


def test_a_weight_holds_per_epoch_and_keeps_all_renderings_of_a_row(tmp_path, tasks_config):
    plain = tmp_path / "plain.jsonl"
    plain.write_text("".join(f'{{"prompt": "q {i}", "response": "a"}}\n' for i in range(40)))
    sources = (replace(SOURCE, weight=1.0), Source(path=str(plain), weight=2.0))
    cfg = tasks_config(make(tmp_path, 100), sources=sources, epochs=3)
    found = load(cfg, "demonstrations")
    plain_rows = [r for r in found.train if "task" not in r.meta]
    slots = Counter(r.meta["slot"] for r in found.train if "task" in r.meta)
    assert set(slots.values()) == {3}
    assert abs(len(plain_rows) - 2 * len(slots)) <= 1
    assert found.report.num_train == len(plain_rows) + len(slots)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ((SOURCE, SOURCE), "names tasks:train twice"),
        ((replace(SOURCE, eval=True),), "cannot be marked eval"),
        (
            (Source(path="tasks:eval"),),
            "tasks:eval is no source of tasks; the one there is: tasks:tr",
        ),
    ],
)
def test_an_invalid_source_of_tasks_is_refused(sources, message, tmp_path, tasks_config):
    with pytest.raises(DataError, match=message):
        spec_of(tasks_config(make(tmp_path), sources=sources), "demonstrations")


def test_a_mixture_outside_demonstrations_is_refused(tmp_path, tasks_config, config):
    cfg = config(prompts=[SOURCE])
    with pytest.raises(
        DataError, match=r"stands under data.prompts; it belongs under data.demonst"
    ):
        spec_of(cfg, "prompts")


def test_the_records_depend_on_the_settings_and_the_seed_alone(tmp_path):
    path = make(tmp_path, 60)
    changes = {"shots": [0, 2], "cot": 0.5, "options": 0.5}
    first, second = (records(mixture(path, **changes))[0] for _ in range(2))
    assert first == second and all(isinstance(r, Demonstration) for r in first)
    assert records(mixture(path, seed=2, **changes))[0] != first


def key(cfg) -> str:
    return records_key(spec_of(cfg, "demonstrations"))


CHANGES = {
    "examples": 7, "cap": 9, "rate": 11, "templates": 2, "options": 0.5, "shots": [0, 1], "cot": 0.5,
    "hold_out": ["qa"], "train": ["qa"],
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_the_key_covers_every_setting_that_changes_the_records(name, four_tasks, tasks_config):
    assert key(tasks_config(*four_tasks)) != key(tasks_config(*four_tasks, **{name: CHANGES[name]}))


def test_the_key_ignores_settings_without_effect(four_tasks, tasks_config, tmp_path):
    usual = key(tasks_config(*four_tasks, hold_out=["nli"]))
    assert usual == key(tasks_config(*four_tasks, hold_out=["rte", "mrpc"], exclusive=[]))
    assert usual == key(tasks_config(*four_tasks[2:]))
    assert usual == key(tasks_config(*four_tasks, train=["qa", "sst"]))
    assert usual == key(tasks_config(*four_tasks, hold_out=["nli"], shots_as=ShotsAs.turns))
    plain = make(tmp_path, 30, name="plain", rationale=None)
    assert key(tasks_config(plain)) == key(tasks_config(plain, cot=0.5))
    assert usual != key(tasks_config(*four_tasks, hold_out=["nli"], shots=[2]))
    shot = key(tasks_config(*four_tasks, shots=[2]))
    assert shot != key(tasks_config(*four_tasks, shots=[2], shots_as=ShotsAs.turns))
    assert usual != key(tasks_config(*four_tasks, hold_out=["nli"], epochs=3))


def test_the_key_covers_rows_and_templates_and_no_settings_of_evaluation(tmp_path, tasks_config):
    path = make(tmp_path, 30)
    usual = key(tasks_config(path))
    make(tmp_path, 30, metric="f1", groups=["a"])
    assert usual == key(tasks_config(path))
    (tmp_path / "moved").mkdir()
    assert usual == key(tasks_config(make(tmp_path / "moved", 30)))
    make(tmp_path, 31)
    assert usual != key(tasks_config(path))
    make(tmp_path, 30, options=["no", "yes"])
    assert usual != key(tasks_config(path))


def test_the_settings_of_tasks_do_not_change_the_key_of_other_sources(
    tmp_path, tasks_config, config
):
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"prompt": "q", "response": "a"}\n')
    sources = (Source(path=str(plain)),)
    one, other = (tasks_config(sources=sources, examples=n, epochs=n) for n in (2, 3))
    assert key(one) == key(other)
    assert not [
        k for k in spec_of(one, "demonstrations").config() if k.startswith(("tasks", "sft"))
    ]


@pytest.mark.parametrize("name", [*CHANGES, "shots_as"])
def test_every_setting_of_the_mixture_changes_the_records(name, tmp_path):
    files = [make(tmp_path, 60, name="a", clusters=["qa"]), make(tmp_path, 20, name="b")]
    usual = {"shots": [1]}
    value = {**CHANGES, "shots_as": ShotsAs.turns, "shots": [0]}[name]
    assert (
        records(mixture(*files, **usual))[0]
        != records(mixture(*files, **{**usual, name: value}))[0]
    )


def test_rows_of_an_evaluation_source_are_held_out(four_tasks, tasks_config):
    """Evaluation rows are held out whatever the hash of their question."""
    found = load(tasks_config(four_tasks[2]), "demonstrations")
    held = [r.origin.source.rpartition("/")[2] for r in found.eval]
    assert set(held) == {"dev.jsonl"} and len(held) == 10
    assert not [r for r in found.train if r.origin.source.endswith("dev.jsonl")]


def test_every_epoch_is_collated_from_its_own_renderings(
    four_tasks, tasks_config, plain_renderer, tmp_path
):
    cfg = tasks_config(four_tasks[3], epochs=3)
    train = prepared(cfg, plain_renderer, tmp_path).train
    epochs = [texts(cfg, train, plain_renderer, epoch) for epoch in range(3)]
    assert [len(one) for one in epochs] == [len(train) / 3] * 3
    dogs = [sorted(t.partition("boolq ")[2].split()[1] for t in one) for one in epochs]
    assert dogs[0] == dogs[1] == dogs[2] and set(epochs[0]) != set(epochs[1])


def test_the_contents_of_the_mixture_list_the_remaining_tasks(four_tasks, tasks_config):
    def contents(**changes):
        return list(
            spec_of(tasks_config(*four_tasks, **changes), "demonstrations").contents().values()
        )

    names = [f"tasks:train {name}" for name in ("rte", "mrpc", "sst", "boolq")]
    (every,), (left,) = contents(), contents(hold_out=["nli"])
    assert (list(every), list(left)) == (names, names[2:])
    assert contents(train=["sst", "boolq"]) == [left]
    assert left == {name: every[name] for name in names[2:]}


def test_rows_apart_are_asked_for_chains_of_thought_in_the_share_that_is_trained_on(tmp_path):
    path = make(tmp_path, 60)

    def chains(cot: float) -> float:
        found, _ = records(mixture(path, cot=cot))
        apart = [one for one in found if "slot" not in one.meta]
        assert len(apart) > 10
        return sum("Let's think" in one.messages[0].content for one in apart) / len(apart)

    assert (chains(0.0), chains(1.0)) == (0.0, 1.0)
    assert 0.0 < chains(0.5) < 1.0
