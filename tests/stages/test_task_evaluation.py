"""Tasks in the evaluate stage: rows, templates, exemplars, and the files that it writes."""

import json
from collections import Counter
from pathlib import Path

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import Chains, Rank, ShotsAs
from rlhf_cli.evaluation import task_suite
from rlhf_cli.evaluation.task_figures import Asked
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.evaluate.stage import preview, run
from rlhf_cli.stages.task_evaluation import open_suite
from rlhf_cli.stages.task_reading import evaluated_tasks, require_tasks
from tests.support.small_stages import changed, little, work
from tests.support.task_files import RTE, SUMS
from tests.support.tasks import write_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("tasks")
    (place / "rte.yaml").write_text(RTE)
    (place / "sums.yaml").write_text(SUMS)
    write_rows(place / "rte.jsonl", [
        {"premise": f"bird {i} sings", "hypothesis": f"bird {i} is loud", "label": i % 2}
        for i in range(24)
    ])  # fmt: skip
    write_rows(place / "sums.jsonl", [{"a": i, "b": i + 1, "total": 2 * i + 1} for i in range(24)])
    return place


def settings(folder: Path, **values) -> dict:
    plain = {
        "tasks.files": [str(folder)],
        "tasks.hold_out": ["nli", "sums"],
        "data.eval_fraction": 0.3,
        "data.max_prompt_tokens": 400,
        "evaluation.tasks.limit": 3,
        "evaluation.tasks.shots": [0, 2],
    }
    return plain | {key.replace("__", "."): value for key, value in values.items()}


@pytest.fixture(scope="module")
def questions_for(folder):
    """Return questions_for(key=value, ...) -> {task: questions}, dots of keys written as __."""

    def ask(**values):
        context = open_context(changed(little(), settings(folder, **values)))
        suite = open_suite(context)
        return {questions.task.name: questions for questions in suite.tasks}, context.renderer

    return ask


def text_of(renderer, question) -> str:
    return renderer.tokenizer.decode(question.prompt_ids)


def test_every_template_that_asks_is_combined_with_all_rows_and_shots(questions_for):
    found, renderer = questions_for()
    rte = found["rte"].direct
    assert {(q.example.template, q.shots) for q in rte} == {
        (template, shots) for template in ("conclude", "follows") for shots in (0, 2)
    }
    assert len(rte) == 2 * 2 * 3
    assert all(q.example.options == ("yes", "no") for q in rte)
    end = renderer.end_id
    assert all([ids[-1] for ids in q.option_ids] == [end, end] for q in rte)
    assert rte[0].option_ids == tuple(renderer.response_ids(text) for text in ("yes", "no"))
    assert len({q.row for q in rte}) == 3


def test_the_first_templates_are_those_that_ask(questions_for):
    found, _ = questions_for(evaluation__tasks__templates="1")
    assert {q.example.template for q in found["rte"].direct} == {"conclude"}


def test_exemplars_are_rows_that_are_not_evaluated(questions_for, folder):
    found, renderer = questions_for(evaluation__tasks__limit=None)
    questions = [q for q in found["rte"].direct if q.example.template == "follows"]
    evaluated = {q.example.input.split(" follow")[0] for q in questions}
    assert 3 < len(evaluated) < 24
    for question in questions:
        text = text_of(renderer, question)
        assert text.count("follow from") == 1 + question.shots
        shown = text.split("Does ")[1:-1]
        assert len(set(shown)) == question.shots
        for other in evaluated:
            named = text.count(other.removeprefix("Does ") + " follow")
            assert named == (other == question.example.input.split(" follow")[0])


def test_exemplars_are_dialogue_turns_with_shots_as_turns(questions_for):
    found, renderer = questions_for(tasks__shots_as=ShotsAs.turns)
    question = next(q for q in found["sums"].direct if q.shots == 2)
    assert question.prompt_ids.count(renderer.end_id) == 2


def test_exemplars_that_do_not_fit_are_dropped_from_the_first_on(questions_for):
    found, renderer = questions_for(evaluation__tasks__shots=[6])
    questions, before = found["sums"].direct, len(found["sums"].direct[0].prompt_ids)
    assert not found["sums"].left_out.total()
    found, _ = questions_for(evaluation__tasks__shots=[6], data__max_prompt_tokens=before - 4)
    cut = found["sums"].direct[0]
    assert len(cut.prompt_ids) <= before - 4
    whole = text_of(renderer, questions[0])
    last = text_of(renderer, cut).removeprefix(renderer.probe_prompt.split("zebra")[0])
    assert whole.endswith(last)
    assert cut.example.input in last
    assert found["sums"].left_out.total() >= 3


def test_chains_of_thought_are_requested_for_tasks_with_rationales(questions_for):
    found, renderer = questions_for()
    assert found["rte"].chains == []
    texts = [text_of(renderer, q) for q in found["sums"].chains if q.shots == 2]
    assert texts
    for text in texts:
        assert text.count("step by step") == 3
        assert text.count("The answer is") == 2
        assert text.count("plus") >= 3 + 2
    assert not questions_for(evaluation__tasks__cot=Chains.none)[0]["sums"].chains
    everywhere, renderer = questions_for(evaluation__tasks__cot=Chains.all)
    text = next(text_of(renderer, q) for q in everywhere["rte"].chains if q.shots == 2)
    assert text.count("step by step") == 3
    assert text.count("The answer is") == 2


def test_a_task_with_cot_prompt_uses_its_own_exemplars(folder, tmp_path):
    """They come in their order before the question, which the first template asks."""
    (tmp_path / "rte.jsonl").write_text((folder / "rte.jsonl").read_text())
    blocks = "\n\n".join(
        f"Q: case {i}?\nA: Let's think step by step.\nThe answer is no." for i in (1, 2, 3)
    )
    (tmp_path / "cot.txt").write_text(f"Decide.\n\n{blocks}\n")
    (tmp_path / "rte.yaml").write_text(RTE + "cot_prompt: cot.txt\n")
    values = settings(tmp_path) | {"tasks.hold_out": ["nli"]}
    context = open_context(changed(little(), values))
    (found,) = open_suite(context).tasks
    assert {q.example.template for q in found.chains} == {"conclude"}
    for question in found.chains:
        text = text_of(context.renderer, question)
        before = "Decide.\n\nQ: case 1?" in text
        assert [f"case {i}?" in text for i in (1, 2, 3)] == [question.shots == 2] * 2 + [False]
        assert before is (question.shots == 2)
        assert text.count("A: Let's think step by step.") == 1 + question.shots
        assert "OPTIONS:\n- yes\n- no\nA: Let's" in text
    assert {q.example.template for q in found.direct} == {"conclude", "follows"}


def test_the_choice_of_rows_depends_on_the_seed(questions_for):
    def rows(**values) -> list[str]:
        return [q.row for q in questions_for(**values)[0]["sums"].direct]

    assert rows() == rows()
    assert rows() != rows(seed=5)


T0 = """
name: t0
clusters: [sentiment]
source: t0.jsonl
turned_around: [write]
"""


@pytest.fixture
def rendered(tmp_path):
    """rendered(key=value, ...) -> {template: number of its questions} of rows with a template each."""
    (tmp_path / "t0.yaml").write_text(T0)
    write_rows(tmp_path / "t0.jsonl", [
        {"template": name, "prompt": f"{name} {i}", "completion": "good"}
        for i in range(40) for name in ("write", "short", "long")
    ])  # fmt: skip

    def ask(**values) -> Counter[str]:
        values = {"evaluation__tasks__limit": 8, "evaluation__tasks__shots": [0], **values}
        held = {"tasks.hold_out": ["sentiment"]}
        (found,) = open_suite(
            open_context(changed(little(), settings(tmp_path, **values) | held))
        ).tasks
        return Counter(question.example.template for question in found.direct)

    return ask


def test_the_limit_is_of_rows_that_can_be_asked(rendered):
    every = rendered(evaluation__tasks__limit=None)
    assert set(every) == {"short", "long"}
    assert rendered().total() == 8
    assert rendered(evaluation__tasks__templates="1") == {"short": 8}
    assert rendered(evaluation__tasks__limit=1000) == every


def test_rows_that_no_template_asks_are_no_rows_to_evaluate(rendered, tmp_path):
    (tmp_path / "t0.yaml").write_text(T0.replace("[write]", "[write, short, long]"))
    message = r"t0.yaml: none of the \d+ evaluation rows of task t0 .* turned_around"
    with pytest.raises(UserError, match=message):
        rendered()


def test_a_task_whose_options_all_exceed_the_limit_is_refused(questions_for):
    with pytest.raises(
        UserError, match=r"no row of task rte.* an option longer than data.max_resp"
    ):
        questions_for(data__max_response_tokens=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"evaluation.tasks.shots": [40]}, r"shots=\[40\] needs 40 rows that are not evaluated, .* has"),
        ({"data.eval_fraction": 1e-9}, r"task rte has no row to evaluate of 24"),
        ({"evaluation.tasks.also": ["nil"]}, r"evaluation\.tasks\.also: .* named nil.*nli"),
    ],
)  # fmt: skip
def test_tasks_that_cannot_be_evaluated_are_refused_by_name(folder, values, message):
    context = open_context(changed(little(), settings(folder) | values))
    with pytest.raises(UserError, match=message):
        open_suite(context)


def test_held_out_tasks_and_those_of_also_are_evaluated(folder):
    def names(**values) -> list[str]:
        cfg = changed(little(), settings(folder) | {"tasks.hold_out": [], **values})
        return [task.name for task in evaluated_tasks(cfg)]

    assert names() == []
    assert names(**{"evaluation.tasks.also": ["arithmetic"]}) == ["sums"]
    both = {"evaluation.tasks.also": ["sums", "rte"], "tasks.hold_out": ["nli"]}
    assert names(**both) == ["rte", "sums"]


def test_a_run_with_nothing_to_evaluate_is_refused(folder):
    values = settings(folder) | {"tasks.hold_out": []}
    require_tasks(changed(little(), values), alone=False)
    with pytest.raises(UserError, match=r"nothing to evaluate: .* evaluation\.tasks\.also"):
        require_tasks(changed(little(), values), alone=True)
    with pytest.raises(UserError, match="no row to evaluate"):
        require_tasks(
            changed(little(), settings(folder) | {"data.eval_fraction": 1e-9}), alone=True
        )


@pytest.fixture(scope="module")
def finished_stage(folder, tmp_path_factory):
    """Run sft and evaluate with prompts, tasks and votes; return (folder, metrics, calls)."""
    place = tmp_path_factory.mktemp("ran")
    values = settings(
        folder,
        evaluation__tasks__samples=4,
        evaluation__tasks__rank=Rank.byte,
        evaluation__tasks__limit=2,
        evaluation__tasks__shots=[0],
        evaluation__best_of_n=0,
        data__max_response_tokens=8,
        data__max_prompt_tokens=48,
    )
    work("sft", place, values)
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        respond = task_suite.respond

        def recording_respond(network, prompts, renderer, params, world, **settings):
            calls.append((params.temperature, len(prompts), settings["seeds"]))
            return respond(network, prompts, renderer, params, world, **settings)

        patch.setattr(task_suite, "respond", recording_respond)
        metrics = run_evaluate(values, place)
    return place / "evaluate", metrics, calls


def run_evaluate(values: dict, place: Path) -> dict[str, float]:
    (place / "evaluate").mkdir()
    return run(changed(little(), values), {"sft": place / "sft" / "model"}, place / "evaluate")


def answers_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "task_answers.jsonl").read_text().splitlines()]


def test_the_figures_of_every_model_and_way_of_asking_follow_from_the_answers(finished_stage):
    folder, metrics, _ = finished_stage
    figures = json.loads((folder / "tasks.json").read_text())
    assert [(row["model"], row["asked"]) for row in figures["rows"]] == [
        (model, way.name) for model in ("base", "SFT") for way in Asked
    ]
    answers = answers_in(folder)
    for row in figures["rows"]:
        for name, found in row["tasks"].items():
            mine = [
                a["value"] for a in answers
                if (a["model"], a["task"], a["asked"]) == (row["model"], name, row["asked"])
            ]  # fmt: skip
            assert found["value"] == pytest.approx(sum(mine) / len(mine))
            assert len(mine) == 2 * (2 if name == "rte" else 1)
        assert metrics[f"eval/{row['model']}/tasks/0-shot/{row['asked']}"] == row["macro"]
    assert set(figures["rows"][0]["tasks"]["rte"]["ranks"]) == {"sum", "token", "byte", "prior"}
    assert "rank=byte" in figures["title"]
    assert figures["tasks"]["sums"]["groups"] == ["numbers"]
    assert figures["clusters"] == {"rte": ["nli"], "sums": ["arithmetic"]}
    assert figures["parameters"]["base"] == figures["parameters"]["SFT"] > 1000
    for row in figures["rows"]:
        losses = [found["loss"] for found in row["tasks"].values()]
        known = [loss is not None and loss > 0 for loss in losses]
        assert known == [row["asked"] == "direct"] * len(losses)
    assert (folder / "table.json").is_file()


def test_the_value_of_a_task_uses_the_configured_ranking(finished_stage):
    folder, _, _ = finished_stage
    figures = json.loads((folder / "tasks.json").read_text())
    for row in figures["rows"]:
        if row["asked"] == "direct":
            assert row["tasks"]["rte"]["ranks"]["byte"] == row["tasks"]["rte"]["value"]


def test_every_model_answers_with_its_own_weights(finished_stage):
    responses: dict[str, list[str]] = {}
    for entry in answers_in(finished_stage[0]):
        if entry["asked"] == "chain":
            responses.setdefault(entry["model"], []).append(entry["response"])
    assert responses["base"] != responses["SFT"]


def test_a_free_answer_has_the_tokens_of_its_target_for_the_loss(questions_for):
    found, renderer = questions_for()
    for question in found["sums"].direct:
        assert question.target_ids == renderer.response_ids(question.example.target)
    assert not any(q.target_ids for q in (*found["rte"].direct, *found["sums"].chains))


def test_answers_are_greedy_and_votes_are_sampled_separately(finished_stage):
    _, _, calls = finished_stage
    greedy = [call for call in calls if call[0] == 0]
    votes = [call for call in calls if call[1] and call[0] == 0.7]
    assert [call[1] for call in greedy if call[1]] == [2, 2] * 2  # free answers, chains; two models
    assert len(votes) == 2
    assert all(len(set(seeds)) == 4 for _, _, seeds in votes)


def test_an_evaluation_without_tasks_writes_no_file_of_tasks(finished_stage, tmp_path):
    values = {"evaluation.best_of_n": 0}
    metrics = run(
        changed(little(), values), {"sft": finished_stage[0].parent / "sft" / "model"}, tmp_path
    )
    assert not (tmp_path / "tasks.json").exists()
    assert not [name for name in metrics if "tasks" in name]


def test_without_prompts_only_the_tasks_are_evaluated(finished_stage, folder, tmp_path):
    values = settings(folder, evaluation__tasks__limit=1, evaluation__tasks__shots=[0])
    values |= {"data.prompts": [], "data.comparisons": [], "tasks.hold_out": ["nli"]}
    values |= {"data.max_prompt_tokens": 64}
    cfg = changed(little(), values)
    metrics = run(cfg, {"sft": finished_stage[0].parent / "sft" / "model"}, tmp_path)
    assert set(metrics) == {f"eval/{name}/tasks/0-shot/direct" for name in ("base", "SFT")}
    assert not (tmp_path / "table.json").exists()
    assert preview(cfg, {}).facts["tasks"] == "1 row of 1 task"
