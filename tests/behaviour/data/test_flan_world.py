"""The task files of the tiny world: what their templates render, and what of them is trained on."""

import re
from itertools import islice
from random import Random

import pytest
from omegaconf import OmegaConf

from rlhf_cli.config.command_line import compose_each
from rlhf_cli.config.keys import conf_dir
from rlhf_cli.data.embedded import table_rows
from rlhf_cli.data.records import DataError, Demonstration
from rlhf_cli.data.report import DataReport
from rlhf_cli.data.tasks.files import read_tasks
from rlhf_cli.data.tasks.holdout import left_out
from rlhf_cli.data.tasks.render import example
from rlhf_cli.data.tasks.rows import task_rows
from rlhf_cli.data.tasks.source import Mixture
from rlhf_cli.data.tasks.task import TaskRow
from rlhf_cli.tiny_world.base_text import base_document
from rlhf_cli.tiny_world.tables import TABLES
from tests.support.configuration import composed

SMALL = ("nli_kinds", "fit", "opposite", "step_facts")  # tables with few rows
TASKS = {task.name: task for task in read_tasks(["tiny_world"])}


def some_rows(name: str, num: int = 8) -> list[TaskRow]:
    return [
        TaskRow(task=name, number=i, origin=origin, question="", values=values, rendered={})
        for i, (origin, values) in enumerate(islice(table_rows(f"tiny_world:{name}/eval"), num))
    ]


def test_every_table_is_a_task_of_its_cluster_with_five_templates_or_more():
    assert {name: task.clusters for name, task in TASKS.items()} == {
        name: (table.cluster,) for name, table in TABLES.items()
    }
    assert min(len(task.templates) for task in TASKS.values()) >= 5


@pytest.mark.parametrize("name", TABLES)
def test_every_template_renders_every_row_with_its_options(name):
    task = TASKS[name]
    for row in some_rows(name):
        texts = set()
        for template in task.templates:
            one = example(task, row, template, chain=True)
            assert ("OPTIONS:\n- " in one.input) == bool(one.options) == (name != "step_sums")
            assert one.chain == (TABLES[name].cluster == "reasoning")
            assert one.chain or one.target == one.answer
            assert "{" not in one.input
            texts.add(one.input)
        assert len(texts) == len(task.templates)


def test_the_rows_of_a_task_are_those_of_its_table_and_all_can_be_used():
    rows = task_rows(TASKS["nli_kinds"], seed=1, eval_fraction=0.1, select_fraction=0.05)
    assert not rows.bad
    assert not rows.num_asked_again
    assert len(rows.evaluation) == len(list(table_rows("tiny_world:nli_kinds/eval")))
    assert {row.origin.source for row in rows.train} == {"tiny_world:nli_kinds"}


def test_templates_use_only_words_that_the_base_model_has_read():
    rng = Random(0)
    read = {word for _ in range(3000) for word in words_in(base_document(rng))}
    written = [t.input for task in TASKS.values() for t in task.templates]
    unread = {w for text in written for w in words_in(re.sub(r"\{\{.*?\}\}", "", text))} - read
    assert not unread


def words_in(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]+", text)


def trained(hold_out: list[str]) -> list[Demonstration]:
    files = ", ".join(f"tiny_world/{name}" for name in SMALL)
    cfg = composed(
        "data=flan_world", f"tasks.hold_out=[{','.join(hold_out)}]", f"tasks.files=[{files}]"
    )
    mixture = Mixture(settings=cfg.tasks, seed=1, epochs=1, eval_fraction=0.1, select_fraction=0.05)
    report = DataReport(role="demonstrations")
    return [r for r in mixture.records(report) if isinstance(r, Demonstration)]


def test_nothing_of_a_held_out_cluster_is_in_the_mixture():
    records = trained(["nli"])
    assert {record.meta["task"] for record in records} == {*SMALL} - {"nli_kinds"}
    text = "\n".join(record.messages[0].content for record in records)
    for row in some_rows("nli_kinds", 200):
        one = example(TASKS["nli_kinds"], row, TASKS["nli_kinds"].templates[0], show_options=False)
        assert one.input not in text


def test_paraphrase_leaves_with_nli_and_no_other_cluster_does():
    cfg = composed("data=flan_world", "tasks.hold_out=[nli]")
    gone = left_out(list(TASKS.values()), cfg.tasks)
    clusters = ("nli", "paraphrase")
    assert gone.keys() == {name for name, t in TABLES.items() if t.cluster in clusters}


def test_the_mixture_is_the_same_for_the_same_seed():
    assert trained(["reasoning"]) == trained(["reasoning"])


def test_a_table_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(DataError, match=r"tiny_world:nli is no table.*tiny_world:nli_events"):
        list(table_rows("tiny_world:nli"))


def test_the_preset_names_the_task_files_and_the_three_steps_stay_without():
    assert composed("data=flan_world").tasks.files == ["tiny_world"]
    assert composed().tasks.files == []
    assert composed("data=flan_world", "tasks.files=[other]").tasks.files == ["other"]
    assert (conf_dir() / "tasks" / "tiny_world").is_dir()


def test_the_presets_of_the_study_ask_tasks_alone():
    cfg = composed("experiment=flan", "tasks.hold_out=[nli]")
    assert ([*cfg.stage], [*cfg.tasks.files]) == (["sft", "evaluate"], ["tiny_world"])
    assert [source.path for source in cfg.data.demonstrations] == ["tasks:train"]
    assert not cfg.data.prompts and not cfg.data.comparisons
    assert composed("experiment=scale").tasks.hold_out == ["nli", "facts", "coreference"]


def test_the_supervised_preset_has_every_task_alone_and_evaluates_it():
    preset = OmegaConf.load(conf_dir() / "experiment" / "flan_supervised.yaml")
    swept = preset.hydra.sweeper.params["tasks.train"]
    clusters = {cluster for task in TASKS.values() for cluster in task.clusters}
    alone = [f"{name}/{name}" if name in clusters else name for name in sorted(TASKS)]
    assert re.findall(r"[\w/]+", swept) == alone
    own = ["data=generic", "tasks.files=[x/]", "tasks.train=[a],[b]", "dry_run=true"]
    found = []
    compose_each(["-m", "experiment=flan_supervised", *own], found.append)
    assert [cfg.name for cfg in found] == [
        "supervised-tasks.train=[a]",
        "supervised-tasks.train=[b]",
    ]
    assert [cfg.evaluation.tasks.also for cfg in found] == [["a"], ["b"]]
    assert [[*cfg.tasks.files] for cfg in found] == [["x/"]] * 2
