"""The plan of a run: its folder, its stages, and what an interrupted stage resumes from."""

import json
import pickle
import subprocess
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest

from rlhf_cli.artifacts import attempts, checkpoints
from rlhf_cli.artifacts.attempts import Attempt
from rlhf_cli.artifacts.manifest import ArtifactError
from rlhf_cli.config.compose import freeze
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import KLController, MissingEOSMode, ScheduleKind, Source, Ties
from rlhf_cli.config.schema.run import Parents, Resume
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.data.tasks import source
from rlhf_cli.data.tasks.files import read_tasks
from rlhf_cli.pipeline.messages import foreseen, plan_rows
from rlhf_cli.pipeline.plan import Planner, State
from tests.support.artifacts import finished_stage
from tests.support.configuration import composed
from tests.support.run_folders import finish
from tests.support.small_stages import changed


@pytest.fixture(scope="module")
def default():
    return composed()


@pytest.fixture
def planner(default, tmp_path):
    """Return planner(stage=[..], ...), of the default configuration with these keys."""

    def made(**keys) -> Planner:
        return Planner(cfg=replace(default, **{"runs_dir": str(tmp_path / "runs"), **keys}))

    return made


def test_the_folder_of_a_run_is_its_name_in_runs_dir(planner):
    assert planner(name="own", runs_dir="else/where").folder == Path("else/where/own")


def test_the_stages_are_those_selected_without_those_that_parents_replaces(planner):
    def chosen(**keys):
        return [spec.name for spec in planner(**keys).chosen()]

    everything = [name for name, spec in STAGES.items() if spec.default]
    assert chosen() == chosen(stage=everything) == everything
    assert chosen(stage=["sft", "ppo"]) == ["sft", "ppo"]
    given = Parents(sft="some/model", rm=None, check=None)
    assert chosen(stage=everything, parents=given) == ["rm", "ppo", "evaluate"]
    with pytest.raises(ArtifactError, match=r"parents\.sft=some/model replaces the selected sft"):
        chosen(stage=["sft"], parents=given)


def test_several_reward_models_are_parents_of_their_own(planner, tmp_path):
    folders = [
        finished_stage(tmp_path / name, {"model/weights": name}, "rm") for name in ("one", "two")
    ]
    given = Parents(sft=None, rm=[str(folder) for folder in folders], check=None)
    plan = planner(stage=["ppo"], parents=given)
    parents = plan.parents(STAGES["ppo"])
    assert [parents[role].folder for role in ("rm", "rm/2")] == folders
    digests = plan.fingerprint(STAGES["ppo"]).parents
    assert digests["rm"] != digests["rm/2"] and len(digests) == 3
    other = planner(stage=["ppo"], parents=replace(given, rm=given.rm[:1]))
    assert set(other.fingerprint(STAGES["ppo"]).parents) == {"sft", "rm"}
    (row,) = [row for row in plan_rows(plan, []) if row[0] == "rm"]
    assert row[2] == f"taken from {folders[0]}, {folders[1]} (parents.rm)"


@pytest.mark.parametrize(("resume", "step"), [("auto", 4), ("last_valid", 4), ("never", None)])
def test_an_interrupted_stage_resumes_unless_resume_is_never(planner, resume, step):
    mine = planner(stage=["sft"])
    work, _ = attempts.start(mine.folder, "sft", mine.fingerprint(STAGES["sft"]), Attempt())
    checkpoints.create(work, 4)
    checkpoints.commit(work, 4, {}, 2)
    (found,) = planner(stage=["sft"], resume=Resume[resume]).plan()
    assert found.attempt.step == step
    assert ("resume=never" in found.reason) is (resume == "never")


ROWS = "".join(
    json.dumps({"prompt": f"q {i}", "chosen": "a", "rejected": "b"}) + "\n" for i in range(9)
)


@pytest.fixture
def changes(planner, default, tmp_path, monkeypatch):
    """Return changes(stage, before, after): why the stage runs again after this change of keys."""
    monkeypatch.chdir(tmp_path)
    for name in ("c.jsonl", "d.jsonl"):
        Path(name).write_text(ROWS)
    files = {
        "data.comparisons": [Source(path="c.jsonl")],
        "data.demonstrations": [Source(path="d.jsonl")],
        "data.prompts": [],
    }

    def found(stage: str, before: dict, after: dict, *, meanwhile=lambda: None) -> list[str]:
        def made(values):
            values = changed(default, {**files, **values})
            return planner(**{f.name: getattr(values, f.name) for f in fields(values)
                              if f.name != "runs_dir"}).fingerprint(STAGES[stage])  # fmt: skip

        earlier = made(before)
        meanwhile()
        return made(after).changes(earlier)

    return found


def test_another_path_to_the_same_file_is_no_change_of_the_data(changes, tmp_path):
    Path("link.jsonl").symlink_to("c.jsonl")
    for path in ("./c.jsonl", str(tmp_path / "c.jsonl"), "link.jsonl"):
        assert changes("rm", {}, {"data.comparisons": [Source(path=path)]}) == []


def test_a_base_model_is_compared_by_the_content_of_its_folder(changes, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "link").symlink_to("model")
    paths = [{"model.path": path} for path in ("model", "./model", "link")]
    assert [changes("sft", paths[0], path) for path in paths] == [[], [], []]
    write = partial((tmp_path / "model/config.json").write_text, '{"a": 1}')
    assert changes("sft", paths[0], paths[0], meanwhile=write) == ["model base changed"]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ({"data.comparisons": [Source(path="other.jsonl")]},
         "data.comparisons: path c.jsonl -> other.jsonl"),
        ({"data.comparisons": [Source(path="c.jsonl", limit=5)]},
         "data.comparisons[0].limit changed null -> 5"),
        ({"data.eval_fraction": 0.4}, "data.eval_fraction changed 0.1 -> 0.4"),
        ({"data.template": "chatml"}, "data.template: path auto -> chatml"),
    ],
)  # fmt: skip
def test_a_change_of_the_data_is_named(changes, after, expected):
    Path("other.jsonl").write_text(ROWS[:200])
    assert changes("rm", {}, after) == [expected]


def test_an_edited_data_file_template_or_tokenizer_is_a_change(changes, tmp_path):
    for key, name, expected in (
        ("data.comparisons", "c.jsonl", "data.comparisons: c.jsonl was edited"),
        ("data.template", "t.jinja", "data.template: t.jinja was edited"),
        ("model.tokenizer", "words/tokenizer.json", "model tokenizer changed"),
    ):
        place = tmp_path / name
        place.parent.mkdir(exist_ok=True)
        place.write_text(ROWS)
        value = {"c.jsonl": [Source(path=name)], "t.jinja": name}.get(name, "words")
        edit = partial(place.write_text, f"{ROWS} ")
        stages = ("sft",) if key == "model.tokenizer" else ("rm", "ppo", "evaluate")
        for stage in stages:
            place.write_text(ROWS)
            assert changes(stage, {key: value}, {key: value}, meanwhile=edit) == [expected]


def test_an_eval_source_of_another_role_is_a_change_because_it_affects_the_split(changes):
    Path("e.jsonl").write_text(ROWS[:100])
    after = {"data.comparisons": [Source(path="c.jsonl"), Source(path="e.jsonl", eval=True)]}
    marked, path_change = changes("sft", {}, after)
    assert marked == "data.comparisons.eval[0].eval changed null -> true"
    assert path_change == "data.comparisons: path none -> e.jsonl"
    assert changes("sft", {}, {"data.comparisons": [Source(path="d.jsonl", limit=3)]}) == []


NO_EFFECT = [
    ("sft", {"data.max_bad_fraction": 0.9, "data.strict": True, "sft.batch.microbatch": 1}),
    ("sft", {"model.gradient_checkpointing": True, "sft.batch.max_tokens": 99}),
    ("sft", {"tiny_world.noise": 0.1, "tiny_world.prompts": 77, "data.demonstrations": "world"}),
    ("sft", {"sft.reward_model": "none/such", "rm.ties": Ties.soft}),
    ("rm", {"rm.tie_param": 3.0, "rm.batch.microbatch": 1, "data.pretraining": []}),
    ("ppo", {"ppo.alerts.kl": 1.0, "ppo.kl.target": 1.0, "ppo.kl.horizon": 9}),
    ("ppo", {"ppo.ptx.ratio": 3, "ppo.missing_eos.value": 0.5, "data.select_fraction": 0.2}),
    ("ppo", {"rm.ties": Ties.soft, "ppo.batch.microbatch": 1, "rm.batch.microbatch": 1}),
    ("evaluate", {"evaluation.batch": 1, "sft.epochs": 9}),
    ("evaluate", {"evaluation.tasks.limit": 7, "tasks.shots": [2]}),
    ("evaluate", {"runtime.device": "cpu", "runtime.dtype": "float32"}),
]


@pytest.mark.parametrize(("stage", "values"), NO_EFFECT)
def test_keys_that_cannot_change_the_result_of_a_stage_do_not_run_it_again(changes, stage, values):
    before = {"ppo.missing_eos.mode": MissingEOSMode.none, "runtime.device": "cpu"}
    if values.pop("data.demonstrations", None):
        before["data.demonstrations"] = [Source(path="tiny_world:demonstrations")]
    assert changes(stage, before, before | values) == []


@pytest.mark.parametrize(
    ("stage", "before", "values"),
    [
        ("rm", {"rm.ties": Ties.davidson}, {"rm.tie_param": 3.0}),
        ("ppo", {"ppo.kl.controller": KLController.adaptive}, {"ppo.kl.target": 1.0}),
        ("ppo", {"ppo.ptx.coef": 1.0}, {"ppo.ptx.ratio": 3}),
        ("ppo", {"ppo.ptx.coef": 1.0}, {"tiny_world.pretraining": 77}),
        ("sft", {"data.demonstrations": [Source(path="tiny_world:demonstrations")]},
         {"tiny_world.demonstrations": 77}),
        ("sft", {}, {"runtime.dtype": "bfloat16"}),
        ("sft", {"sft.schedule.kind": ScheduleKind.linear}, {"sft.schedule.final": 0.7}),
    ],
)  # fmt: skip
def test_keys_that_matter_only_under_another_setting_run_the_stage_again(
    changes, stage, before, values
):
    before = {"runtime.device": "cpu", **before}
    (change,) = changes(stage, before, before | values)
    (key,) = values
    assert change.startswith(f"{key} changed ")


TASK = """
name: {name}
clusters: [nli]
source: {rows}
answer: "{{{{ a }}}}"
templates: [{{name: plain, input: "{{{{ q }}}}", target: "{{{{ answer }}}}"}}]
"""


@pytest.fixture
def task(tmp_path):
    """Return task(name, comment=, rows=), which writes a task file and returns tasks.files."""

    def make(name: str, *, comment: str = "", rows: str = '{"q": "1 + 1", "a": 2}') -> list[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "rows.jsonl").write_text(rows + "\n")
        (folder / "task.yaml").write_text(TASK.format(name=name, rows="rows.jsonl") + comment)
        return [str(folder / "task.yaml")]

    return make


def test_rationales_depend_on_the_content_of_the_tasks_and_of_the_scorer(changes, task):
    before = {"tasks.files": task("rte")}
    same = {"tasks.files": task("rte", comment="# new"), "rationales.batch": 7}
    same |= {"evaluation.tasks.also": ["rte"], "evaluation.batch": 7, "tasks.shots": [2]}
    assert changes("rationales", before, before | same) == []
    assert changes("rationales", before, before | {"tasks.files": task("cb")})
    for key, value in (("rationales.gain", 0.5), ("rationales.max_tokens", 9), ("seed", 9)):
        (found,) = changes("rationales", before, before | {key: value})
        assert found.startswith(f"{key} changed ")
        unused = before | {"rationales.checks": []}
        assert bool(changes("rationales", unused, unused | {key: value})) == (key == "seed")
    scorer = {"rationales.scorer": "none/such"}
    assert changes("rationales", before, before | scorer) == ["model scorer changed"]


def test_the_evaluation_depends_on_the_content_of_its_suites(changes, tmp_path):
    key = "evaluation.suites.toxicity"
    for name in ("a.jsonl", "b.jsonl"):
        Path(name).write_text('{"prompt": "x"}\n')
    before, moved = {key: "a.jsonl"}, {key: "b.jsonl"}
    assert changes("evaluate", before, moved) == []
    edit = partial(Path("a.jsonl").write_text, '{"prompt": "y"}\n')
    assert changes("evaluate", before, before, meanwhile=edit) == [f"{key}: a.jsonl was edited"]
    assert changes("evaluate", {}, moved)[-1] == f"{key}: path none -> b.jsonl"
    scorer = {"evaluation.suites.toxicity_model": "org/toxic"}
    assert changes("evaluate", before, before | scorer) == ["model toxicity_model changed"]
    assert changes("evaluate", {}, scorer) == []
    assert changes("ppo", before, before | scorer) == []
    with pytest.raises(UserError, match=r"toxicity=none\.jsonl cannot be read: No such file"):
        changes("evaluate", before, {key: "none.jsonl"})


@pytest.mark.parametrize(
    ("key", "value", "suites"),
    [("samples", 3, {"toxicity", "bias"}), ("persona", "Nero", {"toxicity"}),
     ("limit", 5, {"toxicity", "bias", "xstest"})],
)  # fmt: skip
def test_keys_of_suites_count_where_a_suite_uses_them(changes, key, value, suites):
    for suite in ("toxicity", "bias", "xstest"):
        before = {f"evaluation.suites.{suite}": "c.jsonl"}
        found = changes("evaluate", before, {**before, f"evaluation.suites.{key}": value})
        assert bool(found) == (suite in suites)
    assert changes("evaluate", {}, {f"evaluation.suites.{key}": value}) == []


def test_the_evaluation_depends_on_the_content_of_its_tasks(changes, task):
    """Paths and comments do not count; rows, templates and the selection of tasks do."""
    before = {"tasks.files": task("rte"), "tasks.hold_out": ["nli"]}
    assert changes("evaluate", before, before | {"tasks.files": task("rte", comment="# new")}) == []
    also = {"tasks.hold_out": [], "evaluation.tasks.also": ["rte"]}
    assert changes("evaluate", before, before | also) == []
    assert changes("sft", before, before | {"tasks.files": task("cb")}) == []
    for other in (
        {"tasks.files": task("rte", rows='{"q": "1 + 1", "a": 3}')},
        {"tasks.files": task("cb")},
    ):
        assert changes("evaluate", before, before | other)
    assert changes("evaluate", before, before | {"evaluation.tasks.limit": 7})
    assert not changes("evaluate", before, before | {"evaluation.tasks.temperature": 0.5})
    votes = {"evaluation.tasks.samples": 5}
    assert changes(
        "evaluate", before | votes, before | votes | {"evaluation.tasks.temperature": 0.5}
    )


def test_the_evaluation_depends_on_the_content_of_its_probes(changes, tmp_path):
    one, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    for path in (one, other):
        path.write_text("kind:\n- {prompt: a, better: b, worse: c}\n")
    before, moved = {"evaluation.probes": str(one)}, {"evaluation.probes": str(other)}
    assert changes("evaluate", before, moved) == []
    assert changes("evaluate", before, {"evaluation.probes": None}) == [
        f"evaluation.probes: path {one} -> none"
    ]
    other.write_text("kind:\n- {prompt: a, better: b, worse: d}\n")
    assert changes("evaluate", before, moved) == [f"evaluation.probes: path {one} -> {other}"]
    assert changes("rm", before, moved) == []


def test_a_run_without_tasks_is_planned_without_the_template_engine(planner):
    """Its import takes a tenth of a second of every start."""
    code = "import pickle, sys; from rlhf_cli.pipeline.driver import Planner, require;"
    code += "planner = Planner(cfg=pickle.load(sys.stdin.buffer));"
    code += "require(planner.cfg, [step.spec for step in planner.plan()]);"
    code += "read = {'jinja2', 'rlhf_cli.data.tasks.files'} & set(sys.modules);"
    code += "print(*planner.judged, *read)"
    cfg = pickle.dumps(planner().cfg)
    done = subprocess.run([sys.executable, "-c", code], input=cfg, capture_output=True, check=True)
    read = done.stdout.decode().split()
    assert read == list(STAGES)[: list(STAGES).index("evaluate") + 1]


def test_the_tasks_of_a_mixture_are_read_once(planner, default, task, monkeypatch):
    read = []
    monkeypatch.setattr(source, "read_tasks", lambda *a, **b: read.append(a) or read_tasks(*a, **b))
    data = replace(default.data, demonstrations=[Source(path="tasks:train")])
    planner = planner(tasks=replace(default.tasks, files=task("rte")), data=data)
    first = planner.fingerprint(STAGES["sft"])
    assert first == planner.fingerprint(STAGES["sft"])
    assert list(first.data["data.demonstrations"]) == ["tasks:train rte"]
    assert len(read) == 1


def test_an_automatic_dtype_equals_the_dtype_of_the_earlier_run(changes):
    on_gpu = {"runtime.device": "cuda:0"}
    assert changes("sft", on_gpu, {"runtime.device": "cpu"}) == []
    cpu = {"runtime.device": "cpu", "runtime.dtype": "float32"}
    assert changes("sft", on_gpu, cpu) == ["runtime.dtype changed bfloat16 -> float32"]


@pytest.fixture
def finished(planner):
    """Return planner, with the stages of stage=all finished with the default configuration."""
    for name, spec in ((name, spec) for name, spec in STAGES.items() if spec.default):
        made = planner()
        fingerprint = made.fingerprint(spec)
        finish(
            made.folder,
            name,
            config=freeze(made.cfg),
            made_of=fingerprint.config,
            data=fingerprint.data,
            parents=fingerprint.parents,
            version=fingerprint.version,
        )
    assert {step.state for step in planner().plan()} == {State.fresh}
    return planner


def other_kl(default):
    return replace(default.ppo, kl=replace(default.ppo.kl, coef=0.5))


def test_an_evaluation_that_would_leave_out_a_stale_stage_is_refused(finished, default):
    """Its table would replace one that includes that stage."""
    with pytest.raises(
        ArtifactError, match=r"would leave out ppo: .*ppo\.kl\.coef changed .* -> 0\.5"
    ):
        finished(stage=["evaluate"], ppo=other_kl(default)).plan()


def test_an_evaluation_that_would_leave_out_a_damaged_stage_is_refused(finished):
    (finished().folder / "ppo" / "config.json").write_text("{}")
    with pytest.raises(
        ArtifactError, match=r"leave out ppo: .*ppo/config\.json is truncated.*stage=\[ppo,"
    ):
        finished(stage=["evaluate"]).plan()


def test_an_evaluation_leaves_out_missing_stages_and_children_of_stages_that_run(finished, default):
    sft = replace(default.sft, epochs=9)
    steps = finished(stage=["sft", "evaluate"], sft=sft).plan()
    assert [step.state for step in steps] == [State.run, State.run]
    (finished().folder / "ppo").rename(finished().folder / "away")
    (step,) = finished(stage=["evaluate"]).plan()
    assert step.why == "parent ppo changed"


def test_a_dry_run_reports_what_is_kept_and_why_the_other_stages_run(finished, default):
    mine = finished(dry_run=True, ppo=other_kl(default), stage=["sft", "ppo"])
    steps = [mine.judge(spec.name) for spec in mine.chosen()]
    rows = {row[0]: row[2] for row in plan_rows(mine, steps, would="would ")}
    assert rows["sft"] == "would be kept: unchanged"
    assert rows["ppo"].startswith("would run: ppo.kl.coef changed")
    assert list(foreseen(mine, steps)) == ["ppo took 0:00 for 7 steps when it was last made here"]


def test_a_dry_run_reports_what_a_run_would_refuse(planner):
    mine = planner(dry_run=True, stage=["rm"])
    steps = [mine.judge("rm")]
    refused, unknown = foreseen(mine, steps)
    assert refused.startswith("a run would refuse this: rm needs sft: ")
    assert unknown == "time and memory of rm: known only after a first run here"
