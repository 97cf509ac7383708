"""Tasks of the harness by name: which are known, which are in a folder alone, what is refused."""

import logging
from fnmatch import filter as matching
from types import SimpleNamespace

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.evaluation import lm_tasks
from rlhf_cli.evaluation.lm_tasks import _expanded, _has_all, _loaded, few_messages, load_tasks

KNOWN = ["mmlu", "mmlu_law", "mmlu_art", "hellaswag"]


def index(*tasks: str, groups: dict | None = None, load=None) -> SimpleNamespace:
    """Return an index of tasks as the harness has one. groups: {name: its parts}."""
    groups = groups or {}
    known = [*tasks, *groups]
    return SimpleNamespace(
        all_tasks=known,
        all_groups=list(groups),
        task_index={name: SimpleNamespace(cfg={"task": parts}) for name, parts in groups.items()},
        match_tasks=lambda names: [one for name in names for one in matching(known, name)],
        load=load,
    )


def test_names_are_taken_as_they_are_and_patterns_are_filled_in():
    manager = index(*KNOWN)
    assert _expanded(["hellaswag", "mmlu_*"], KNOWN, manager) == [
        "hellaswag",
        "mmlu_law",
        "mmlu_art",
    ]
    assert _expanded(["mmlu_l?w", "mmlu_law"], KNOWN, manager) == ["mmlu_law"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("helaswag", "there is no task 'helaswag': did you mean hellaswag"),
        ("qqq", "lm_eval ls tasks"),
        ("bbh_*", "there is no task"),
    ],
)
def test_an_unknown_name_is_refused(name, found):
    with pytest.raises(UserError, match=found):
        _expanded(["mmlu", name], KNOWN, index(*KNOWN))


@pytest.mark.parametrize(
    ("parts", "has_all"),
    [
        (["a"], True),
        ([{"task": "a"}], True),
        (["a", "elsewhere"], False),
        ([{"group": "x", "task": ["a"]}], False),
    ],
)
def test_a_folder_is_enough_where_it_has_the_tasks_and_all_parts_of_groups(parts, has_all):
    manager = index("a", groups={"g": parts})
    assert _has_all(manager, ["a"]) is has_all
    assert _has_all(manager, ["g"]) is has_all
    assert not _has_all(manager, ["b"])


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ModuleNotFoundError("no", name="sympy"), "needs the package sympy: pip install sympy"),
        (ConnectionError("no hub"), "the data of the task a is not in the cache, and the hub"),
        (ValueError("two\nlines"), "the task a cannot be read: ValueError: two lines"),
    ],
)
def test_a_task_that_cannot_be_loaded_is_refused_with_the_reason(error, found):
    def load(names):
        raise error

    with pytest.raises(UserError, match=found):
        _loaded(index("a", load=load), "a")


def task(**names) -> SimpleNamespace:
    return SimpleNamespace(UNSAFE_CODE=False, MULTIMODAL=False, **names)


@pytest.fixture
def harness(monkeypatch):
    """Return a function that makes an index of these tasks that of the harness. tasks: {name: parts}."""
    monkeypatch.setattr(lm_tasks, "goes_offline", lambda: True)

    def of(found: dict[str, dict]):
        manager = index(*found, load=lambda names: {"tasks": found[names[0]], "groups": {}})
        monkeypatch.setattr(lm_tasks, "_manager", lambda names, folder: manager)

    return of


def test_all_tasks_are_loaded_and_none_twice(harness):
    a, b = task(), task()
    harness({"a": {"a": a}, "g": {"a": a, "b": b}, "b": {"b": b}})
    assert load_tasks(["a", "b"], None) == {"tasks": {"a": a, "b": b}, "groups": {}}
    with pytest.raises(
        UserError, match="the task a is asked for twice: alone or in a group, and in g"
    ):
        load_tasks(["a", "g"], None)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"UNSAFE_CODE": True}, "runs code that the model writes"),
        ({"MULTIMODAL": True}, "pictures"),
    ],
)
def test_a_task_that_is_not_done_here_is_refused(names, found, harness):
    harness({"a": {"a": SimpleNamespace(**names)}})
    with pytest.raises(UserError, match=found):
        load_tasks(["a"], None)


def test_the_libraries_print_errors_alone_for_a_while():
    logger = logging.getLogger("lm_eval")
    before = logger.level
    with few_messages():
        assert not logger.isEnabledFor(logging.WARNING) and logger.isEnabledFor(logging.ERROR)
    assert logger.level == before
