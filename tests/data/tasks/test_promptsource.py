"""Template files of promptsource, with their tags, answer choices and functions."""

import pytest

from rlhf_cli.data.records import DataError
from rlhf_cli.data.tasks.promptsource import promptsource_templates
from rlhf_cli.data.tasks.render import example
from rlhf_cli.data.tasks.rows import task_rows
from tests.support.tasks import make, one_task

FILE = """dataset: glue
subset: rte
templates:
  03a7ae07-5ddd-46c4-92f3-2152223d44ec: !Template
    answer_choices: yes ||| no
    id: 03a7ae07-5ddd-46c4-92f3-2152223d44ec
    jinja: '{{premise}}

      Does this mean that {{hypothesis}}? Yes or no? ||| {{answer_choices[label]}}'
    metadata: !TemplateMetadata
      choices_in_prompt: true
      languages:
      - en
      metrics:
      - Accuracy
      original_task: true
    name: mean
    reference: ''
  4ee6ff27-de63-4e7b-a9d4-82a17eba407a: !Template
    answer_choices: null
    id: 4ee6ff27-de63-4e7b-a9d4-82a17eba407a
    jinja: "{% if label == 0 %}Write what follows from: {{premise}}\\n{{ ['x', 'y'] | choice }}
      ||| {{hypothesis}}{% endif %}"
    metadata: !TemplateMetadata
      original_task: false
    name: write
    reference: ''
"""
SPLIT = {"seed": 1, "eval_fraction": 0.2, "select_fraction": 0.1}


@pytest.fixture
def path(tmp_path):
    """Return a task whose templates are a file of promptsource."""
    (tmp_path / "templates.yaml").write_text(FILE)
    return make(tmp_path, templates="templates.yaml", options=None, answer=None, rationale=None)


def test_a_promptsource_template_has_its_own_choices_input_and_target(path):
    found = task_rows(one_task(path), **SPLIT)
    mean, write = found.templates
    row = found.train[0]
    one = example(found.task, row, mean)
    answer = ("yes", "no")[row.number % 2]
    assert (one.answer, one.target, one.options) == (answer, answer, ("yes", "no"))
    assert one.input.endswith(f"mean that rte animal {row.number} moves? Yes or no?")
    assert (mean.turned_around, write.turned_around) == (False, True)


def test_rows_to_which_a_template_does_not_apply_are_left_out(path):
    from tests.support.tasks import mixture, records

    found, report = records(mixture(path, epochs=2))
    made = [r for r in found if hasattr(r, "messages") and r.meta["template"] == "write"]
    written = {int(r.messages[1].content.split()[2]) % 2 for r in made}
    assert written == {0} and not report.num_bad
    skipped = [r for r in found if not hasattr(r, "messages")]
    assert skipped and all(r.left_out and r.detail == "write" for r in skipped)


def test_the_random_choice_of_a_template_is_deterministic(path):
    found = task_rows(one_task(path), **SPLIT)
    row = next(row for row in found.train if row.values["y"] == 0)
    texts = {example(found.task, row, found.templates[1]).input for _ in range(3)}
    assert len(texts) == 1 and next(iter(texts))[-1] in "xy"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\n", "templates.yaml: no templates"),
        ("templates: {k: {name: a}}\n", "template k has no text under jinja"),
        ("templates: {k: {name: a, jinja: x}}\n", r"template k has no \|\|\| between"),
        ("templates: {k: [\n", r"templates.yaml:2: "),
    ],
)
def test_an_invalid_promptsource_file_is_refused(content, message, tmp_path):
    (tmp_path / "templates.yaml").write_text(content)
    with pytest.raises(DataError, match=message):
        promptsource_templates(tmp_path / "templates.yaml")
