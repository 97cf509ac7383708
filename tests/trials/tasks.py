"""F. Task files: what is wrong in them, and what the stages make of them."""

from collections.abc import Sequence

from tests.support.task_files import RTE, SUMS
from tests.trials.row import Came, Row
from tests.trials.samples import lines

PAIRS = [
    {"premise": f"bird {i} sings", "hypothesis": f"bird {i} is loud", "label": i % 2}
    for i in range(20)
]
NUMBERS = [{"a": i, "b": i + 1, "total": 2 * i + 1} for i in range(20)]
FILES = {
    "rte.yaml": RTE,
    "rte.jsonl": lines(PAIRS),
    "sums.yaml": SUMS,
    "sums.jsonl": lines(NUMBERS),
}
MIXTURE = ("data=generic", "tasks.files=[tasks]", "data.demonstrations=[{path: 'tasks:train'}]")
SMALL = ("data.max_prompt_tokens=60", "data.max_response_tokens=30", "runtime=cpu", "samples=0")


def tasks(
    tried: str,
    *has: str,
    files: dict[str, str] | None = None,
    command: Sequence[str] = ("data", "check", "stage=sft"),
    words: Sequence[str] = (),
    code: int = 2,
    quick: bool = True,
) -> Row:
    """A command on a folder of task files: the two of FILES, with `files` in their place or beside them."""

    def play(place) -> Came:
        for name, text in (FILES | (files or {})).items():
            place.write(f"tasks/{name}", text)
        run = place.rlhf if quick else place.command
        return run(*command, *MIXTURE, *SMALL, *words)

    said = f"{tried} (`{' '.join([*command[:1], *words])}`)" if words else tried
    return Row(tried=said, play=play, has=has, code=(code,), quick=quick)


def rte(old: str, new: str) -> dict[str, str]:
    """The task rte with another text in its file."""
    assert old in RTE
    return {"rte.yaml": RTE.replace(old, new)}


def row(**values) -> dict[str, str]:
    """The rows of rte, and one more."""
    return {"rte.jsonl": lines(PAIRS, {**PAIRS[0], **values})}


RUN = ("run", "name=x", "dry_run=true")
RENDERED = "name: rte\nclusters: [nli]\nsource: rte.jsonl\n"
PROMPTSOURCE = """
dataset: rte
templates:
  a: !Template
    answer_choices: yes ||| no
    id: a
    jinja: "{{premise}} So {{hypothesis}}? ||| {{ answer_choices[label] }}"
    metadata: !TemplateMetadata
      original_task: true
    name: so
    reference: ''
"""
BY_PROMPTSOURCE = """
name: rte
clusters: [nli]
source: rte.jsonl
templates: promptsource/templates.yaml
"""

WORDS = RTE.replace("options[label]", "word")
WORD_ROWS = lines([{**pair, "word": ["yes", "no"][pair["label"]]} for pair in PAIRS])
TURNED = RTE.replace("name: conclude,", "name: conclude, turned_around: true,").replace(
    "name: follows,", "name: follows, turned_around: true,"
)
IMPORTED = {"rte.yaml": BY_PROMPTSOURCE, "promptsource/templates.yaml": PROMPTSOURCE}
DUMP = [{"prompt": f"Is it {i}?", "completion": "no", "template": "a"} for i in range(30)]
EMPTY = {"rte.yaml": RENDERED, "rte.jsonl": lines(DUMP, {**DUMP[0], "completion": " "})}

ROWS_OF_TASKS = [
    tasks("a template with an unknown name",
          r"rte.yaml: template conclude uses \{\{premiss\}\}, which .*rte.jsonl:1 .*did you mean premise",
          files=rte("{{ premise }}\\nSo", "{{ premiss }}\\nSo")),
    tasks("an answer that is none of the options, line 21",
          r"1 bad", r"rte.jsonl:21: .*maybe", code=0,
          files={"rte.yaml": WORDS, "rte.jsonl": WORD_ROWS + lines([{**PAIRS[0], "word": "maybe"}])}),
    tasks("a label beyond the options, line 21", r"1 bad", r"rte.jsonl:21: .*answer: .*no element 5",
          files=row(label=5), code=0),
    tasks("a null in a column, line 21", r"1 bad +1? *|a null where", r"rte.jsonl:21",
          files=row(premise=None), code=0),
    tasks("a task without clusters", r"rte.yaml: task rte has no clusters.*write clusters: \[",
          files=rte("clusters: [nli]\n", "")),
    tasks("two tasks of one name", r"rte.yaml: a task rte is already in .*again.yaml; give one another",
          files={"again.yaml": RTE}),
    tasks("two templates of one name", r"rte.yaml: two templates are named conclude; rename one",
          files=rte("name: follows", "name: conclude")),
    tasks("no template asks for the answer", r"rte.yaml: all templates of rte are turned around; one must",
          files={"rte.yaml": TURNED}),
    tasks("fewer rows than exemplars", r"tasks.shots=\[30\] needs 31 rows .*conclude has 18; lower",
          words=["tasks.shots=[30]"]),
    tasks("an option list of one", r"rte.yaml: options has 1 entry; a choice needs two or more",
          files=rte('["yes", "no"]', '["yes"]')),
    tasks("options that YAML reads as truth values", r"rte.yaml: options has true: write .* in quotes",
          files=rte('["yes", "no"]', "[yes, no]")),
    tasks("a misspelt key of a task file", r"rte.yaml: unknown key 'cluster': did you mean clusters\?",
          files=rte("clusters:", "cluster:")),
    tasks("a task file that is no YAML", r"rte.yaml:4: .*see the YAML around this line",
          files=rte("clusters: [nli]", "clusters: [nli")),
    tasks("a mixture with nothing left",
          r"tasks.hold_out leaves none of 2 tasks .*\(rte: held out, and 1 more\); hold out less",
          words=["tasks.hold_out=[nli,arithmetic]"]),
    tasks("a cluster that no task has",
          r"tasks.hold_out: no task and no cluster is named nly: did you mean nli",
          words=["tasks.hold_out=[nly]"]),
    tasks("task files that are not there", r"taks is no file, no folder and no preset; the presets: ",
          words=["tasks.files=[taks]"]),
    tasks("a preset that is not there", r"gsm8 is no file.*did you mean gsm8k",
          words=["tasks.files=[gsm8]"]),
    tasks("every template with its supervised tokens", r"task rte, template conclude$",
          r"Assistant:\[\[yes<\|eos\|>\]\]", r"template invent, turned around", r"template follows",
          r"task sums, template plain", r"Assistant:\[\[3<\|eos\|>\]\]", code=0),
    tasks("rendered rows with an empty target, line 21", r"1 empty target", r"rte.jsonl:21: template a",
          files=EMPTY, code=0),
    tasks("promptsource's `|||` file", r"task rte, template so$", r"bird 0 sings So bird 0 is loud\?",
          r"\[\[yes<\|eos\|>\]\]", files=IMPORTED, code=0),
    tasks("an evaluation with nothing held out", r"nothing to evaluate: .*name one in tasks.hold_out or in",
          command=RUN, words=["stage=evaluate"]),
    tasks("an unknown task in evaluation.tasks.also",
          r"evaluation.tasks.also: no task and no cluster is named rt: did you mean rte",
          command=RUN, words=["stage=evaluate", "evaluation.tasks.also=[rt]"]),
    tasks("more exemplars than rows in an evaluation",
          r"evaluation.tasks.shots=\[0, 40\] needs 40 rows .*task rte has \d+: lower it, or add rows",
          command=RUN,
          words=["stage=evaluate", "evaluation.tasks.also=[rte]", "evaluation.tasks.shots=[0,40]"]),
    tasks("rationales without tasks", r"stage=rationales has no tasks: name task files or presets in",
          command=RUN, words=["stage=rationales", "tasks.files=[]"]),
    tasks("what a run would train on and hold out", r"1 trained on: sums", r"without rte: held out",
          r"1 row of 1 task", code=0, command=RUN, quick=False,
          words=["stage=[sft,evaluate]", "tasks.hold_out=[nli]"]),
    tasks("the rationales that would be written", r"rationales  5 per row, 160 in all",
          r"The answer is yes. Explain step by step why.", code=0, command=RUN, quick=False,
          words=["stage=rationales"]),
]  # fmt: skip
