"""The stage of rationales: its prompts, its files, resuming, and reading the files again."""

import json
from collections import Counter
from pathlib import Path

import pytest

import rlhf_cli
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Check, Keep, LongText, ShotsAs, Source
from rlhf_cli.data.tasks.files import read_tasks
from rlhf_cli.data.tasks.render import example
from rlhf_cli.data.tasks.rows import task_rows
from rlhf_cli.evaluation.rationale_checks import Rationale, verdicts
from rlhf_cli.evaluation.rationale_questions import AnsweredQuestion, answered, read_rationale
from rlhf_cli.evaluation.respond import Answer
from rlhf_cli.launch.signals import Stopped
from rlhf_cli.stages import rationales, samples
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.preparing import prepared
from rlhf_cli.stages.rationales import ask, open_scorer, preview, run
from rlhf_cli.stages.reading import spec_of
from rlhf_cli.stages.saving import Saver
from tests.support.small_stages import changed, little, work
from tests.support.task_files import RTE, SUMS
from tests.support.tasks import write_rows

BIRDS = RTE.replace("clusters: [nli]", "clusters: [birds]\nrationale: why")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Write the tasks sums, all rows with a rationale, and rte, a few rows with one."""
    place = tmp_path_factory.mktemp("tasks")
    (place / "sums.yaml").write_text(SUMS)
    (place / "rte.yaml").write_text(BIRDS)
    write_rows(place / "sums.jsonl", [{"a": i, "b": i + 1, "total": 2 * i + 1} for i in range(40)])
    write_rows(place / "rte.jsonl", [
        {"premise": f"bird {i} sings", "hypothesis": f"bird {i} is loud", "label": i % 2,
         "why": f"bird {i} is a bird." if i % 5 == 0 else None}
        for i in range(40)
    ])  # fmt: skip
    return place


def settings(folder: Path, **values) -> dict:
    plain = {
        "tasks.files": [str(folder)],
        "data.eval_fraction": 0.3,
        "data.max_prompt_tokens": 200,
        "data.max_response_tokens": 24,
        "rationales.limit": 5,
        "rationales.samples": 3,
        "rationales.shots": 2,
        "rationales.checks": [Check.duplicate],
        "rationales.keep": Keep.all,
        "rationales.temperature": 0.6,
        "rationales.batch": 32,
    }
    return plain | {key.replace("__", "."): value for key, value in values.items()}


@pytest.fixture(scope="module")
def questions_for(folder):
    """Return questions_for(key=value, ...) -> ({task: questions}, prompt texts, left out)."""

    def of(**values):
        context = open_context(changed(little(), settings(folder, **values)))
        found = ask(context)
        by_task: dict[str, list[AnsweredQuestion]] = {}
        for one in found.questions:
            by_task.setdefault(one.example.task, []).append(one)
        decode = context.renderer.tokenizer.decode
        texts = {name: [decode(q.prompt_ids) for q in qs] for name, qs in by_task.items()}
        return by_task, texts, found.left_out

    return of


def test_a_prompt_has_exemplars_with_rationales_then_question_and_answer(questions_for):
    questions, texts, _ = questions_for()
    assert {name: len(listed) for name, listed in questions.items()} == {"rte": 5, "sums": 5}
    for name, listed in questions.items():
        for question, text in zip(listed, texts[name], strict=True):
            one = question.example
            ending = f"{one.input} The answer is {one.answer}. Explain step by step why."
            assert "".join(ending.split()) in "".join(text.split())
            assert text.count("Explain step by step why") == 3
            assert "step by step." not in one.input
    for question, text in zip(questions["rte"], texts["rte"], strict=True):
        assert text.count("is a bird") == 2
        assert question.example.rationale is None or question.example.rationale not in text


def test_exemplars_are_training_rows_and_never_the_row_itself(questions_for, folder):
    (task,) = (task for task in read_tasks([str(folder)]) if task.name == "sums")
    rows = task_rows(task, seed=little().seed, eval_fraction=0.3, select_fraction=0.05)
    trained = {row.values["a"] for row in rows.train}
    assert len(trained) < 40
    questions, texts, _ = questions_for(
        rationales__limit=None, rationales__shots=4, data__max_prompt_tokens=400
    )
    assert {q.row for q in questions["sums"]} == {row.number for row in rows.train}
    for text in texts["sums"]:
        shown = [int(part.split()[0]) for part in text.split("what is ")[1:]]
        assert len(shown) == len(set(shown)) == 5
        assert set(shown) <= trained


def test_exemplars_are_dialogue_turns_with_shots_as_turns(questions_for):
    _, text, _ = questions_for()
    _, turns, _ = questions_for(tasks__shots_as=ShotsAs.turns)
    assert turns["sums"][0] != text["sums"][0]
    assert turns["sums"][0].count("Explain step by step why") == 3


def test_the_template_depends_on_the_row_and_is_never_an_inverted_one(questions_for):
    questions, _, _ = questions_for(rationales__limit=None)
    assert {q.example.template for q in questions["rte"]} == {"conclude", "follows"}
    second, _, _ = questions_for()
    by_row = {q.row: q for q in questions["rte"]}
    assert all(by_row[q.row].prompt_ids == q.prompt_ids for q in second["rte"])


def test_the_choice_of_rows_depends_on_the_seed(questions_for):
    def rows(**values) -> list[int]:
        return [q.row for q in questions_for(**values)[0]["sums"]]

    assert rows() == rows()
    assert rows() != rows(seed=5)


def test_exemplars_that_do_not_fit_are_counted_and_too_long_rows_refused(questions_for):
    questions, _, _ = questions_for()
    longest = max(len(q.prompt_ids) for q in questions["sums"])
    _, shorter, left_out = questions_for(data__max_prompt_tokens=longest - 20)
    assert left_out["sums"]["exemplars that do not fit data.max_prompt_tokens"] > 0
    assert min(text.count("Explain") for text in shorter["sums"]) < 3
    with pytest.raises(UserError, match=r"no row of task rte: 5 x response too long; change"):
        questions_for(data__max_response_tokens=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tasks.files": []}, "stage=rationales has no tasks: name task files or presets"),
        ({"data.eval_fraction": 0.94, "seed": 7}, "task rte has no row to train on of 40"),
        ({"tasks.hold_out": ["rte", "sums"]}, "tasks.hold_out leaves none of 2 tasks"),
        ({"data.max_prompt_tokens": 3, "data.long_prompts": LongText.drop}, "5 x prompt too long"),
    ],
)
def test_tasks_without_rows_to_train_on_are_refused_by_name(folder, values, message):
    context = open_context(changed(little(), settings(folder) | values))
    with pytest.raises(UserError, match=message):
        ask(context)


def test_no_rationales_are_written_for_held_out_tasks(questions_for):
    questions, _, left_out = questions_for(tasks__hold_out=["arithmetic"])
    assert set(questions) == set(left_out) == {"rte"}


@pytest.mark.parametrize(
    ("text", "finished", "expected", "is_complete"),
    [
        ("It is so.", True, "It is so.", True),
        ("It is so.\n\nSo it is.", True, "It is so.\n\nSo it is.", True),
        ("It is so.\n\nWhat is 3 plus 4\nThe an", False, "It is so.", True),
        ("It is so.\nThe answer is 7.\n\nWhat", False, "It is so.", True),
        ("It is so. And", False, "It is so. And", False),
        ("It is so, and it is so, and it is so, and it is so.", True, None, False),
    ],
)
def test_an_unfinished_rationale_is_cut_before_the_next_question(
    questions_for, folder, text, finished, expected, is_complete
):
    context = open_context(changed(little(), settings(folder)))
    question = questions_for()[0]["sums"][0]
    answer = Answer(prompt_ids=[], ids=[], text=text, finished=finished)
    found = read_rationale(question, answer, renderer=context.renderer, data=context.cfg.data)
    assert found.rationale == (expected or text)
    assert found.is_complete is is_complete
    assert found.stated == ("7" if "answer is 7" in text else None)
    assert found.num_tokens == len(context.renderer.response_ids(found.rationale)) - 1
    assert (found.task, found.row, found.answer) == ("sums", question.row, question.example.answer)


def test_steps_are_checked_against_the_question_without_its_options(questions_for):
    questions, _, _ = questions_for(tasks__files=["tiny_world/step_facts"], rationales__limit=3)
    cfg = changed(little(), {"data.max_response_tokens": 48})
    renderer = open_context(cfg).renderer
    for question in questions["step_facts"]:
        assert question.example.options
        assert not set(question.example.options) & set(question.question.split())
        text = f"{question.example.rationale} The moon is red."
        answer = Answer(prompt_ids=[], ids=[], text=text, finished=True)
        found = read_rationale(question, answer, renderer=renderer, data=cfg.data)
        assert found.steps == [True, True, False]


@pytest.mark.parametrize("name", ["sums", "facts", "same"])
def test_the_explain_tasks_teach_the_layout_of_the_stage(name):
    asked, explained = read_tasks([f"tiny_world/step_{name}", f"tiny_world_explain/explain_{name}"])
    both = (task_rows(t, seed=1, eval_fraction=0, select_fraction=0) for t in (asked, explained))
    for row, again in zip(*(rows.train[:5] for rows in both), strict=True):
        known = [answered(example(asked, row, template)) for template in asked.templates]
        for template in explained.templates:
            one = example(explained, again, template)
            assert (one.input, one.target) in [(other.input, other.target) for other in known]


@pytest.fixture
def few_rows(monkeypatch):
    """Set steps of four rows."""
    monkeypatch.setattr(rationales, "ROWS", 4)


TINY = Path(rlhf_cli.__file__).parent / "assets" / "tiny"
SHORT = {"data.max_prompt_tokens": 96}  # short prompts: the tests with a second model are quicker


@pytest.fixture(scope="module")
def finished_stage(folder, tmp_path_factory):
    """Return (the folder of the stage without an interruption, its metrics)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rationales, "ROWS", 4)
        place = tmp_path_factory.mktemp("ran")
        return place / "rationales", work("rationales", place, settings(folder) | SHORT)


def read_all(place: Path) -> list[Rationale]:
    rows = lines(place / "rationales.jsonl")
    return [Rationale(**{k: v for k, v in row.items() if k != "dropped"}) for row in rows]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_all_rationales_are_recorded_and_those_that_pass_are_demonstrations(finished_stage, folder):
    place, metrics = finished_stage
    every = lines(place / "rationales.jsonl")
    assert set(Counter((row["task"], row["row"]) for row in every).values()) == {3}
    assert len(every) == 2 * 5 * 3
    found = read_all(place)
    cfg = changed(little(), settings(folder))
    assert [row["dropped"] for row in every] == verdicts(found, cfg.rationales)
    kept = [
        one.demonstration() for one, row in zip(found, every, strict=True) if not row["dropped"]
    ]
    assert kept
    assert lines(place / "data" / "demonstrations.jsonl") == kept
    figures = json.loads((place / "figures.json").read_text())
    assert [step["rationales"] for step in figures["all"]] == [30, len(kept)]
    assert sum(steps[-1]["rationales"] for steps in figures["tasks"].values()) == len(kept)
    assert metrics["rationales/generated"] == 30
    assert metrics["rationales/kept"] == metrics["rationales/left/duplicate"] == len(kept)
    assert metrics["rationales/gain"] == pytest.approx(figures["all"][-1]["gain"])


def test_samples_differ_within_a_row_and_between_steps(finished_stage):
    every = lines(finished_stage[0] / "rationales.jsonl")
    texts = [row["rationale"] for row in every if row["task"] == "sums"]
    assert len(set(texts[:3])) > 1
    assert len(set(texts)) > 6


def assert_same(one: Path, other: Path) -> None:
    for name in ("data/demonstrations.jsonl", "rationales.jsonl", "figures.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def run_again(folder: Path, out: Path, **values) -> None:
    run(changed(little(), settings(folder, **values) | SHORT), {}, out)


def test_a_resumed_stage_samples_the_remaining_rows_and_writes_the_same_files(
    finished_stage, folder, tmp_path, monkeypatch, few_rows
):
    drawn, settings_used = [], []
    respond = samples.respond

    def recording_respond(network, prompts, renderer, params, world, *, batch, seeds):
        drawn.append(len(prompts))
        settings_used.append((params.temperature, batch, len(seeds)))
        return respond(network, prompts, renderer, params, world, batch=batch, seeds=seeds)

    monkeypatch.setattr(samples, "respond", recording_respond)
    monkeypatch.setattr(Saver, "_wanted", lambda self, step: (step == 1, step == 1))
    with pytest.raises(Stopped, match="saved at step 1"):
        run_again(folder, tmp_path)
    monkeypatch.setattr(Saver, "_wanted", lambda self, step: (False, False))
    append = rationales.append_drawn

    def killing_append(path, step, found):
        append(path, step, found)
        if step == 3:
            with path.open("a") as stream:
                stream.write('{"step": 3, "ta')  # a line cut off
            raise MemoryError

    monkeypatch.setattr(rationales, "append_drawn", killing_append)
    with pytest.raises(MemoryError):
        run_again(folder, tmp_path)
    assert drawn == [4, 4, 2]
    monkeypatch.setattr(rationales, "append_drawn", append)
    run_again(folder, tmp_path)
    assert drawn == [4, 4, 2, 2]  # the step that was not saved
    assert set(settings_used) == {(0.6, 32, 3)}
    assert_same(tmp_path, finished_stage[0])


def test_the_written_demonstrations_are_read_as_demonstrations(finished_stage, folder):
    place = finished_stage[0] / "data" / "demonstrations.jsonl"
    values = settings(folder) | {"data.demonstrations": [Source(path=str(place))]}
    context = open_context(changed(little(), values))
    found = prepared(spec_of(context.cfg, "demonstrations"), context.renderer, context.cfg,
                     context.world)  # fmt: skip
    assert found.report.num_bad == 0
    rows = lines(place)
    read = [one.record.messages for side in (found.train, found.select, found.eval) for one in side]
    kept = [tuple(turn["content"] for turn in row["messages"]) for row in rows]
    assert {tuple(m.content for m in messages) for messages in read} == set(kept)


TASK = """
name: again
clusters: [again]
source: {path}
answer: "{{{{ answer }}}}"
rationale: rationale
templates: [{{name: asked, input: "{{{{ question }}}}", target: "{{{{ answer }}}}"}}]
"""


def test_the_written_demonstrations_are_read_by_a_task_file(finished_stage, tmp_path):
    place = finished_stage[0] / "data" / "demonstrations.jsonl"
    (tmp_path / "again.yaml").write_text(TASK.format(path=place))
    (task,) = read_tasks([str(tmp_path / "again.yaml")])
    found = task_rows(task, seed=1, eval_fraction=0.0, select_fraction=0.0)
    assert not found.bad
    for row, kept in zip(found.train, lines(place), strict=True):
        one = example(task, row, task.templates[0], chain=True)
        turns = [turn["content"] for turn in kept["messages"]]
        assert [one.input, one.target] == (
            turns if kept["rationale"] else [kept["question"], kept["answer"]]
        )


def test_the_generator_and_the_scorer_are_the_configured_models(
    finished_stage, folder, tmp_path, few_rows
):
    values = settings(folder, rationales__of="sft", rationales__scorer=str(TINY)) | SHORT
    work("sft", tmp_path, values | {"sft.max_steps": 1})
    work("rationales", tmp_path, values)
    of_base, of_sft = (read_all(place) for place in (finished_stage[0], tmp_path / "rationales"))
    assert [one.rationale for one in of_base] != [one.rationale for one in of_sft]
    context = open_context(changed(little(), values))
    judged = open_scorer(context, context.network(context.causal_lm())).scored(of_sft[:6])
    gains = [one.gain_stated for one in judged]
    assert [one.gain_stated for one in of_sft[:6]] == pytest.approx(gains, abs=1e-3)
    title = json.loads((tmp_path / "rationales" / "figures.json").read_text())["title"]
    assert title == "Rationales of sft, 3 per row"


def test_a_dry_run_shows_the_prompt(folder):
    found = preview(changed(little(), settings(folder, rationales__of="sft")), {})
    assert found.facts["rows"] == "10 of 2 tasks"
    assert found.facts["rationales"] == "3 per row, 30 in all"
    assert "Explain step by step why" in found.example.plain
