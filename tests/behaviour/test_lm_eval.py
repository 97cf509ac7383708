"""`rlhf lm-eval` with the lm-evaluation-harness itself, where it is installed, on tasks in files.

What it measures is compared with forward passes written out here.
"""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_cli.artifacts.lm_eval import read_scores
from rlhf_cli.cli import main
from rlhf_cli.data.records import Message
from rlhf_cli.data.templates import build
from rlhf_cli.evaluation.lm_request import SPACE, ChatSpacing
from tests.support.lm_eval import TINY, choices_task, policy, writing_task

lm_eval = pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
NAMES = ("the dog", "a red apple", "Zibi", "seven", "no", "an animal", "yes", "the town")
ROWS = [
    {
        "q": f"Which is like {NAMES[i % 7]} or {NAMES[i % 5]}, number {i}?",
        "choices": [NAMES[(i + k * (1 + i % 3)) % 8] for k in range(3)],
        "answer": i * i % 3,
    }
    for i in range(40)
]
MODEL = AutoModelForCausalLM.from_pretrained(TINY).eval()
TOKENIZER = AutoTokenizer.from_pretrained(TINY)
RENDERER = build(AutoTokenizer.from_pretrained(TINY), template="auto", system=None)


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """No hub is asked, and data that was read is kept in a folder of the test."""
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policy(tmp_path / "runs/one", "ppo")
    return tmp_path


def ask(words: str) -> int:
    """Return the exit code of the command."""
    return main(["lm-eval", *words.split()])


def text_of(row: dict) -> str:
    return f"Question: {row['q']}\nAnswer:"


def prompt_ids(row: dict, *, chat: bool) -> list[int]:
    if chat:
        return RENDERER.prompt_ids((Message("user", text_of(row)),))
    return TOKENIZER(text_of(row))["input_ids"]


@torch.no_grad()
def logprob(row: dict, choice: str, *, chat: bool) -> float:
    """Return the sum of the log-probs of an option, tokenised as a response of this project is."""
    prompt = prompt_ids(row, chat=chat)
    option = RENDERER.response_ids(choice)[:-1]
    logits = MODEL(torch.tensor([prompt + option])).logits[0].log_softmax(-1)
    return sum(logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(option))


@torch.no_grad()
def written(row: dict, most: int, *, chat: bool) -> str:
    """Return the likeliest tokens, one after the other, up to a line end or an end token."""
    ids, start = prompt_ids(row, chat=chat), len(prompt_ids(row, chat=chat))
    for _ in range(most):
        ids.append(MODEL(torch.tensor([ids])).logits[0, -1].argmax().item())
        if ids[-1] in RENDERER.end_ids or "\n" in TOKENIZER.decode(ids[start:]):
            break
    text = TOKENIZER.decode(ids[start:], skip_special_tokens=True)
    return text.partition("\n")[0].removeprefix(" " * chat)


def value(file: str, task: str, metric: str = "acc") -> float:
    found = read_scores(Path("runs/one/lm_eval") / file)
    return next(one.value for one in found.scores if (one.task, one.metric) == (task, metric))


def test_accuracy_is_that_of_summed_log_probs_with_the_chat_template_and_without(here):
    choices_task(here / "tasks", ROWS)
    expected = {}
    for chat in (True, False):
        best = [
            max(range(3), key=lambda k: logprob(row, row["choices"][k], chat=chat)) for row in ROWS
        ]
        right = sum(found == row["answer"] for found, row in zip(best, ROWS, strict=True))
        expected[chat] = (best, right / len(ROWS))
    assert expected[True][0] != expected[False][0]
    assert expected[True][1] != expected[False][1]
    assert ask("one/ppo choices --tasks-dir tasks") == 0
    assert value("ppo.json", "choices") == pytest.approx(expected[True][1])
    assert ask("one/base choices --tasks-dir tasks") == 0
    assert value("base.json", "choices") == pytest.approx(expected[False][1])
    assert ask("one/ppo choices --tasks-dir tasks --no-chat --batch-size 3") == 0
    assert value("ppo.json", "choices") == pytest.approx(expected[False][1])


@pytest.mark.parametrize("chat", [True, False])
def test_the_log_prob_of_an_option_is_that_of_the_text_that_the_model_was_trained_on(chat):
    from lm_eval.api.instance import Instance

    from rlhf_cli.evaluation.lm_model import StageLM

    lm = StageLM(
        MODEL,
        AutoTokenizer.from_pretrained(TINY),
        batch=4,
        spacing=ChatSpacing(header="", space=SPACE) if chat else None,
    )
    row = ROWS[0]
    history = [{"role": "user", "content": text_of(row)}]
    context = lm.apply_chat_template(history) if chat else text_of(row)
    options = row["choices"] if chat else [f" {choice}" for choice in row["choices"]]
    asked = [
        Instance(request_type="loglikelihood", doc={}, arguments=(context, option), idx=i)
        for i, option in enumerate(options)
    ]
    expected = [logprob(row, choice, chat=chat) for choice in row["choices"]]
    assert [found for found, _ in lm.loglikelihood(asked)] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("chat", [True, False])
def test_a_response_is_written_greedily_from_the_text_that_the_model_was_trained_on(chat, here):
    rows = [{"q": row["q"], "target": written(row, 6, chat=chat)} for row in ROWS[:12]]
    other = [written(row, 6, chat=not chat) for row in ROWS[:12]]
    assert [row["target"] for row in rows] != other
    rows += [{"q": row["q"], "target": "something else"} for row in ROWS[:4]]
    writing_task(here / "tasks", rows)
    option = "--chat" if chat else "--no-chat"
    assert ask(f"one/ppo writing --tasks-dir tasks {option}") == 0
    assert value("ppo.json", "writing", "exact_match") == pytest.approx(12 / 16)


def test_options_reach_the_harness_and_figures_are_those_of_its_own_command(here, monkeypatch):
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM

    choices_task(here / "tasks", ROWS, extra="fewshot_split: test\n")
    assert ask("one/base choices --tasks-dir tasks --limit 15 --shots 2") == 0
    (one,) = read_scores(Path("runs/one/lm_eval/base.json")).scores
    assert (one.count, one.limit, one.shots, one.chat) == (15, 15, 2, False)
    assert (one.task_version, one.lm_eval) == ("2.0", lm_eval.__version__)
    monkeypatch.setattr(evaluator, "add_env_info", lambda found: None)
    monkeypatch.setattr(evaluator, "get_git_commit_hash", lambda: "")
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=MODEL, tokenizer=AutoTokenizer.from_pretrained(TINY)),
        tasks=["choices"],
        task_manager=lm_eval.tasks.TaskManager(include_path="tasks", include_defaults=False),
        limit=15,
        num_fewshot=2,
    )
    assert one.value == found["results"]["choices"]["acc,none"]
    assert one.stderr == found["results"]["choices"]["acc_stderr,none"]


def test_a_group_has_a_row_of_its_own_and_its_parts_belong_to_it(here):
    choices_task(here / "tasks", ROWS, "first")
    choices_task(here / "tasks", ROWS[:10], "second")
    (here / "tasks/both.yaml").write_text(
        "group: both\ntask: [first, second]\naggregate_metric_list:\n  - metric: acc\n"
    )
    assert ask("one/ppo both --tasks-dir tasks") == 0
    found = {one.task: one for one in read_scores(Path("runs/one/lm_eval/ppo.json")).scores}
    assert {name: (one.count, one.group) for name, one in found.items()} == {
        "first": (40, "both"), "second": (10, "both"), "both": (50, None),
    }  # fmt: skip
    weighted = (40 * found["first"].value + 10 * found["second"].value) / 50
    assert found["both"].value == pytest.approx(weighted)


def test_a_system_text_of_the_run_stands_before_the_question(here):
    from rlhf_cli.evaluation import lm_model

    seen = []
    policy(here / "runs/two", "ppo", system="Be brief.")
    choices_task(here / "tasks", ROWS[:1])
    own = lm_model.StageLM.apply_chat_template
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            lm_model.StageLM,
            "apply_chat_template",
            lambda self, history, *rest, **names: (
                seen.append(history),
                own(self, history, *rest, **names),
            )[1],
        )
        for run in ("one", "two"):
            assert ask(f"{run}/ppo choices --tasks-dir tasks") == 0
    question = {"role": "user", "content": text_of(ROWS[0])}
    assert seen == [[question], [{"role": "system", "content": "Be brief."}, question]]


def test_inputs_longer_than_the_model_reads_are_counted(here, capsys):
    rows = [{**ROWS[0], "q": "why " * 400}, ROWS[1]]
    choices_task(here / "tasks", rows)
    writing_task(here / "tasks", [{"q": "why " * 400, "target": "x"}, {"q": "how", "target": "x"}])
    assert ask("one/ppo choices writing --tasks-dir tasks") == 0
    found = read_scores(Path("runs/one/lm_eval/ppo.json")).scores
    assert [one.cut for one in found] == [1, 1]
    assert "choices: 1 questions are longer than the model reads" in capsys.readouterr().out


def test_the_page_of_the_run_shows_the_figures(here, capsys):
    choices_task(here / "tasks", ROWS[:5])
    assert ask("one/ppo choices --tasks-dir tasks") == 0
    assert main(["report", "one"]) == 0
    page = Path("runs/one/report.html").read_text()
    content = page.partition('id="content"')[2].partition(">")[2].partition("</script>")[0]
    sections = {one["title"]: one for one in json.loads(content)["sections"]}
    assert sections["lm-evaluation-harness"]["blocks"][0]["rows"][0]["head"] == ["choices", "acc"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("one/ppo choixes", "there is no task 'choixes': did you mean choices?"),
        ("one/ppo qqqqqqq", "there is no task 'qqqqqqq': `lm_eval ls tasks` lists them"),
        ("one/ppo choices,gone", "the task gone cannot be read: FileNotFoundError"),
        (
            "one/ppo hub",
            "the data of the task hub is not in the cache, and the hub cannot be reached",
        ),
        ("one/ppo lacking", "the task lacking needs the package no_such_package: pip install"),
        ("one/ppo unsafe", "the task unsafe runs code that the model writes"),
        ("one/ppo long", "the task long lets a model write 5000 tokens"),
        ("one/ppo both choices", "the task choices is asked for twice"),
        ("bare choices --chat", "bare has no chat template: --no-chat"),
    ],
)
def test_what_the_harness_cannot_do_is_refused_in_one_line(words, found, here, monkeypatch, capfd):
    from lm_eval import tasks as harness

    monkeypatch.setattr(harness, "__file__", str(here / "no" / "tasks.py"))
    monkeypatch.setattr(harness.manager, "__file__", str(here / "no" / "manager.py"))
    folder = here / "tasks"
    choices_task(folder, ROWS[:2])
    choices_task(folder, ROWS[:2], "gone")
    (folder / "gone.jsonl").unlink()
    choices_task(folder, ROWS[:2], "unsafe", extra="unsafe_code: true\n")
    writing_task(folder, [{"q": "why", "target": "x"}], "long", most=5000)
    (folder / "hub.yaml").write_text(
        (folder / "choices.yaml").read_text().replace("choices\n", "hub\n", 1)
        .replace("dataset_path: json", "dataset_path: some/thing").partition("dataset_kwargs")[0]
        + "test_split: test\noutput_type: multiple_choice\n"
    )  # fmt: skip
    choices_task(folder, ROWS[:2], "lacking", extra="process_docs: !function own.process\n")
    (folder / "own.py").write_text("import no_such_package\n")
    (folder / "both.yaml").write_text("group: both\ntask: [choices]\n")
    MODEL.save_pretrained(here / "bare")
    bare = AutoTokenizer.from_pretrained(TINY)
    bare.chat_template = None
    bare.save_pretrained(here / "bare")
    assert ask(f"{words} --tasks-dir tasks") == 2
    error = capfd.readouterr().err
    assert found in error and error.count("\n") == 1
    assert not (here / "runs/one/lm_eval").exists()


def test_a_file_of_tasks_that_is_no_yaml_is_named(here, capsys):
    choices_task(here / "tasks", ROWS[:2])
    (here / "tasks/broken.yaml").write_text("task: [a\n")
    assert ask("one/ppo choices --tasks-dir tasks") == 2
    assert "tasks/broken.yaml is no definition of a task" in capsys.readouterr().err
