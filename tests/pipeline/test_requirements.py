"""Requirements that the parent process checks before any stage, each refused in one line."""

from dataclasses import replace

import pytest

from rlhf_cli.artifacts.manifest import ArtifactError
from rlhf_cli.cli import main
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import SelectBy, Source, WatchBy
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.data.load import Reading
from rlhf_cli.data.spec import ROLES
from rlhf_cli.pipeline import requirements
from rlhf_cli.pipeline.model_folders import shipped
from rlhf_cli.pipeline.requirements import require, require_device, roles_of
from rlhf_cli.stages import reading
from tests.support.configuration import composed
from tests.support.suites import classifier, suites, write_suites


@pytest.fixture(scope="module")
def default():
    return composed()


@pytest.fixture
def with_rows(default, tmp_path):
    """Return with_rows(demonstrations=[rows], ...): the configuration with these rows alone."""

    def made(**rows):
        sources = {role: [] for role in ROLES}
        for role, lines in rows.items():
            path = tmp_path / f"{role}.jsonl"
            path.write_text("\n".join(lines))
            sources[role] = [Source(path=str(path))]
        return replace(default, data=replace(default.data, **sources))

    return made


DEMONSTRATIONS = [f'{{"prompt": "q {i}", "response": "a"}}' for i in range(60)]
COMPARISONS = [f'{{"prompt": "q {i}", "chosen": "a", "rejected": "b"}}' for i in range(60)]


def specs(*names):
    return [STAGES[name] for name in names or ("sft", "rm", "ppo", "evaluate")]


def test_the_roles_are_those_that_the_stages_read_in_their_order(with_rows):
    cfg = with_rows(comparisons=COMPARISONS)
    assert roles_of(cfg, specs()) == ["demonstrations", "comparisons", "prompts"]
    assert roles_of(cfg, specs("rm")) == ["comparisons"]
    assert roles_of(with_rows(demonstrations=DEMONSTRATIONS), specs("rm")) == [
        "comparisons",
        "demonstrations",
    ]
    cfg = with_rows(pretraining=["{}"])
    with_texts = replace(cfg, ppo=replace(cfg.ppo, ptx=replace(cfg.ppo.ptx, coef=1.0)))
    assert roles_of(with_texts, specs("ppo")) == ["prompts", "pretraining"]


def test_a_run_of_all_stages_without_comparisons_is_refused(with_rows):
    with pytest.raises(UserError, match=r"data\.comparisons has no rows: name a source, or set"):
        require(with_rows(demonstrations=DEMONSTRATIONS), specs())
    require(with_rows(demonstrations=DEMONSTRATIONS), specs("sft"))
    require(with_rows(demonstrations=DEMONSTRATIONS, comparisons=COMPARISONS), specs())


@pytest.mark.parametrize("names", [("sft",), ("evaluate",)])
def test_texts_beyond_the_positions_of_the_base_model_are_refused(default, names):
    long = replace(default, data=replace(default.data, max_prompt_tokens=233))
    with pytest.raises(UserError, match=r"233 .*=24 make 257 tokens, but the model has 256 pos"):
        require(long, specs(*names))
    require(replace(default, data=replace(default.data, max_prompt_tokens=232)), specs(*names))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "comparisons.jsonl is empty (0 bytes)"),
        ([*COMPARISONS, *["{}"] * 20], "20 of 80 rows are bad (25.0%), more than"),
        (COMPARISONS[:1] * 9, "none is left to"),
    ],
)
def test_bad_rows_of_a_later_stage_are_refused_before_the_first_stage(with_rows, rows, expected):
    cfg = with_rows(demonstrations=DEMONSTRATIONS, comparisons=rows)
    with pytest.raises(UserError) as error:
        require(cfg, specs("sft", "rm"))
    assert expected in str(error.value)


def test_rows_are_read_once_and_cached_for_the_worker_and_the_next_run(
    with_rows, tmp_path, monkeypatch
):
    """Rows are read once per role; a dry run caches nothing."""
    monkeypatch.setattr(reading, "CACHE", ".cache")
    read = []
    rows = Reading.rows
    monkeypatch.setattr(Reading, "rows", lambda self: read.append(self.spec.role) or rows(self))
    cfg = replace(
        with_rows(demonstrations=DEMONSTRATIONS, comparisons=COMPARISONS),
        runs_dir=str(tmp_path / "runs"),
    )
    require(replace(cfg, dry_run=True), specs())
    assert read == ["demonstrations", "comparisons"]
    assert not (tmp_path / "runs").exists()
    for _ in range(2):
        require(cfg, specs())
    assert read == ["demonstrations", "comparisons"] * 2
    assert len(list((tmp_path / "runs" / ".cache").iterdir())) == 2


def test_the_parent_shows_progress_while_it_reads(with_rows, tmp_path, capsys):
    cfg = replace(with_rows(demonstrations=DEMONSTRATIONS), runs_dir=str(tmp_path / "runs"))
    require(cfg, specs("sft"))
    assert "reading data.demonstrations ..." in capsys.readouterr().out
    require(cfg, specs("sft"))
    assert capsys.readouterr().out == ""


def test_a_damaged_file_of_probes_is_refused_before_an_evaluation(with_rows, tmp_path):
    cfg = with_rows(demonstrations=DEMONSTRATIONS, prompts=DEMONSTRATIONS)
    (tmp_path / "mine.yaml").write_text("kind:\n- {prompt: a, better: b}\n")
    probes = str(tmp_path / "mine.yaml")
    cfg = replace(cfg, evaluation=replace(cfg.evaluation, probes=probes))
    with pytest.raises(UserError, match=r"mine\.yaml: kind, entry 1: worse is missing"):
        require(cfg, specs("sft", "evaluate"))
    require(cfg, specs("sft"))


def test_an_unknown_template_is_refused(with_rows):
    cfg = with_rows(demonstrations=DEMONSTRATIONS)
    cfg = replace(cfg, data=replace(cfg.data, template="chatmll"))
    with pytest.raises(UserError, match=r"data\.template=chatmll is neither .*did you mean chatml"):
        require(cfg, specs("sft"))


def test_a_missing_or_wrong_sft_reward_model_is_refused(with_rows):
    cfg = with_rows(demonstrations=DEMONSTRATIONS)
    sft = replace(cfg.sft, select_by=SelectBy.rm_score, reward_model="runs/nosuch/rm")
    with pytest.raises(
        ArtifactError, match=r"sft\.reward_model=runs/nosuch/rm is no finished stage"
    ):
        require(replace(cfg, sft=sft), specs("sft"))
    with pytest.raises(ArtifactError, match=r"sft\.reward_model=.*and no reward model"):
        require(replace(cfg, sft=replace(sft, reward_model=shipped("tiny"))), specs("sft"))


def test_a_file_of_a_suite_is_read_before_anything_runs(default, tmp_path):
    (tmp_path / "x.csv").write_text("prompt,label\na,safe\n")
    named = suites(xstest=str(tmp_path / "x.csv"))
    cfg = replace(default, evaluation=replace(default.evaluation, suites=named))
    with pytest.raises(UserError, match=r"x\.csv:1: no column type \(found 'prompt', 'label'\)"):
        require(cfg, specs("sft", "evaluate"))
    require(cfg, specs("sft"))  # which does not read it


def test_a_classifier_without_a_known_label_is_refused_before_anything_runs(default, tmp_path):
    named = suites(
        **{key.rpartition(".")[2]: path for key, path in write_suites(tmp_path, "bias").items()},
        toxicity_model=classifier(tmp_path / "right", ["neutral", "toxic"]),
        sentiment_model=classifier(tmp_path / "wrong", ["LABEL_0", "LABEL_1"]),
    )
    cfg = replace(default, evaluation=replace(default.evaluation, suites=named))
    message = (
        r"evaluation\.suites\.sentiment_model=.*wrong: none of its labels \(LABEL_0, LABEL_1\)"
    )
    with pytest.raises(UserError, match=message):
        require(cfg, specs("evaluate"))
    cfg.evaluation.suites.sentiment_model = None
    require(cfg, specs("evaluate"))


def test_missing_or_wrong_models_that_compare_responses_are_refused(default):
    """But where they are not read: without samples, and without the evaluation."""

    def named(samples: int = 8, **places):
        diversity = replace(default.evaluation.diversity, samples=samples, **places)
        return replace(default, evaluation=replace(default.evaluation, diversity=diversity))

    absent = named(embedder="./nosuch", nli="./nosuch")
    with pytest.raises(ArtifactError, match=r"diversity\.embedder=\./nosuch: there is no such fol"):
        require(absent, specs("evaluate"))
    with pytest.raises(ArtifactError, match=r"diversity\.nli=\./nosuch: there is no such folder"):
        require(replace(absent, evaluation=named(nli="./nosuch").evaluation), specs("evaluate"))
    with pytest.raises(ArtifactError, match=r"nli=.*names no labels, and contradiction, entailme"):
        require(named(nli=shipped("tiny")), specs("evaluate"))
    require(named(embedder=shipped("tiny")), specs("evaluate"))
    require(absent, specs("sft"))
    require(named(0, embedder="./nosuch", nli="./nosuch"), specs("evaluate"))


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [
        ("cuda", 0, "runtime.device=cuda cannot be used on this machine"),
        ("cuda:99", 2, "runtime.device=cuda:99 does not exist: this machine has 2 GPUs"),
    ],
)
def test_a_missing_gpu_is_refused(default, monkeypatch, device, gpus, expected):
    monkeypatch.setattr(requirements, "count_gpus", lambda: gpus)
    monkeypatch.setattr(requirements, "DRIVER", requirements.Path("/no/driver"))
    with pytest.raises(UserError) as error:
        require_device(replace(default.runtime, device=device))
    assert expected in str(error.value)
    assert "use runtime.device=auto" in str(error.value)


@pytest.mark.parametrize(
    ("device", "gpus"), [("cuda:1", 2), ("cuda", 1), ("cpu", 0), ("auto", 0), ("mps", 0)]
)
def test_a_device_that_may_exist_is_left_to_the_worker(default, monkeypatch, device, gpus):
    monkeypatch.setattr(requirements, "count_gpus", lambda: gpus)
    monkeypatch.setattr(requirements, "DRIVER", requirements.Path("/no/driver"))
    require_device(replace(default.runtime, device=device))


def test_cuda_with_a_driver_but_no_counted_gpus_is_left_to_the_worker(
    default, monkeypatch, tmp_path
):
    monkeypatch.setattr(requirements, "count_gpus", lambda: 0)
    monkeypatch.setattr(requirements, "DRIVER", tmp_path)
    require_device(replace(default.runtime, device="cuda"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data=generic", "data.demonstrations=[{path: d.jsonl}]"], "data.comparisons has no rows"),
        (["data.template=nosuch"], "data.template=nosuch is neither"),
        (["model=./nosuchdir"], "model=./nosuchdir: no such folder"),
        (["data.template=nosuch", "dry_run=true"], "data.template=nosuch is neither"),
    ],
)
def test_a_refused_run_starts_no_worker_and_leaves_no_folder(
    tmp_path, monkeypatch, capsys, words, expected
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rlhf_cli.pipeline.driver.run_workers", None)
    (tmp_path / "d.jsonl").write_text("\n".join(DEMONSTRATIONS))
    assert main(["run", *words]) == 2
    assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]


def test_judges_are_reward_models_that_the_run_does_not_train_against(default, tmp_path):
    specs, own = [STAGES["evaluate"]], f"{default.runs_dir}/{default.name}/rm"
    for check, judges, problem in (
        (str(tmp_path), [], "parents.check=.* is no finished stage"),
        (None, [str(tmp_path)], r"evaluation.judges\[0\]=.* is no finished stage"),
    ):
        cfg = replace(
            default,
            parents=replace(default.parents, check=check),
            evaluation=replace(default.evaluation, judges=judges),
        )
        with pytest.raises(ArtifactError, match=problem):
            require(cfg, specs)
    cfg = replace(default, parents=replace(default.parents, check=own))
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(UserError, match="is the reward model that this run trains against"),
    ):
        patch.setattr(requirements, "external", lambda *_: None)
        require(cfg, specs)


def test_the_judge_is_a_language_model_unless_a_server_has_it(default, tmp_path):
    specs = [STAGES["evaluate"]]
    cfg = replace(default, judge=replace(default.judge, model=str(tmp_path)))
    with pytest.raises(ArtifactError, match=r"judge\.model=.* is no finished stage"):
        require(cfg, specs)
    require(replace(cfg, judge=replace(cfg.judge, url="http://x/v1")), specs)
    require(replace(cfg, judge=replace(cfg.judge, model="tiny_xs")), specs)  # of the package


def test_a_check_must_be_there_where_it_chooses_weights(default, tmp_path):
    cfg = replace(default, parents=replace(default.parents, check=str(tmp_path)))
    with pytest.raises(ArtifactError, match=r"parents\.check="):
        require(cfg, [STAGES["ppo"]])
    watch = replace(cfg.ppo.watch, by=WatchBy.score)
    require(replace(cfg, ppo=replace(cfg.ppo, watch=watch)), [STAGES["ppo"]])
