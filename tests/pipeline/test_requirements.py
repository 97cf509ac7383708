"""What is refused before anything is trained, in the parent and in one line."""

from dataclasses import replace

import pytest

from rlhf_cli.artifacts.manifest import ArtifactError
from rlhf_cli.cli import main
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.schema import SelectBy, Source
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.data.spec import ROLES
from rlhf_cli.pipeline import requirements
from rlhf_cli.pipeline.model_folders import shipped
from rlhf_cli.pipeline.requirements import require, require_device, roles_of
from rlhf_cli.stages import reading
from tests.support.configuration import composed


@pytest.fixture(scope="module")
def default():
    return composed()


@pytest.fixture
def own(default, tmp_path):
    """own(demonstrations=[rows], ...): the default configuration with these rows alone."""

    def made(**rows):
        sources = {role: [] for role in ROLES}
        for role, lines in rows.items():
            path = tmp_path / f"{role}.jsonl"
            path.write_text("\n".join(lines))
            sources[role] = [Source(path=str(path))]
        return replace(default, data=replace(default.data, **sources))

    return made


SHOWN = [f'{{"prompt": "q {i}", "response": "a"}}' for i in range(60)]
RANKED = [f'{{"prompt": "q {i}", "chosen": "a", "rejected": "b"}}' for i in range(60)]


def specs(*names):
    return [STAGES[name] for name in names or ("sft", "rm", "ppo", "evaluate")]


def test_roles_are_those_that_the_stages_need_in_their_order(own):
    cfg = own(comparisons=RANKED)
    assert roles_of(cfg, specs()) == ["demonstrations", "comparisons", "prompts"]
    assert roles_of(cfg, specs("rm")) == ["comparisons"]
    assert roles_of(own(demonstrations=SHOWN), specs("rm")) == ["comparisons", "demonstrations"]
    cfg = own(pretraining=["{}"])
    with_texts = replace(cfg, ppo=replace(cfg.ppo, ptx=replace(cfg.ppo.ptx, coef=1.0)))
    assert roles_of(with_texts, specs("ppo")) == ["prompts", "pretraining"]


def test_all_stages_without_comparisons_are_refused_before_the_first(own):
    with pytest.raises(UserError, match=r"data\.comparisons has no rows: name a source, or set"):
        require(own(demonstrations=SHOWN), specs())
    require(own(demonstrations=SHOWN), specs("sft"))
    require(own(demonstrations=SHOWN, comparisons=RANKED), specs())


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "comparisons.jsonl is empty (0 bytes)"),
        ([*RANKED, *["{}"] * 20], "20 of 80 rows are bad (25.0%), more than"),
        (RANKED[:1] * 9, "none is left to"),
    ],
)
def test_the_rows_of_a_later_stage_are_read_before_the_first(own, rows, expected):
    cfg = own(demonstrations=SHOWN, comparisons=rows)
    with pytest.raises(UserError) as error:
        require(cfg, specs("sft", "rm"))
    assert expected in str(error.value)


def test_what_was_read_is_there_for_the_worker_and_the_next_start(own, tmp_path, monkeypatch):
    """Once for each role; a dry run leaves nothing, and reads for itself."""
    monkeypatch.setattr(reading, "CACHE", ".cache")
    read = []
    rows = reading.Reading.rows
    monkeypatch.setattr(
        reading.Reading, "rows", lambda self: read.append(self.spec.role) or rows(self)
    )
    cfg = replace(own(demonstrations=SHOWN, comparisons=RANKED), runs_dir=str(tmp_path / "runs"))
    require(replace(cfg, dry_run=True), specs())
    assert read == ["demonstrations", "comparisons"]
    assert not (tmp_path / "runs").exists()
    for _ in range(2):
        require(cfg, specs())
    assert read == ["demonstrations", "comparisons"] * 2
    assert len(list((tmp_path / "runs" / ".cache").iterdir())) == 2


def test_the_parent_says_how_fast_it_reads(own, tmp_path, capsys):
    cfg = replace(own(demonstrations=SHOWN), runs_dir=str(tmp_path / "runs"))
    require(cfg, specs("sft"))
    assert "reading data.demonstrations ..." in capsys.readouterr().out
    require(cfg, specs("sft"))
    assert capsys.readouterr().out == ""


def test_a_template_that_is_not_there_is_refused(own):
    cfg = own(demonstrations=SHOWN)
    cfg = replace(cfg, data=replace(cfg.data, template="chatmll"))
    with pytest.raises(UserError, match=r"data\.template=chatmll is neither .*did you mean chatml"):
        require(cfg, specs("sft"))


def test_the_reward_model_that_selects_is_looked_at_first(own):
    cfg = own(demonstrations=SHOWN)
    sft = replace(cfg.sft, select_by=SelectBy.rm_score, reward_model="runs/nosuch/rm")
    with pytest.raises(
        ArtifactError, match=r"sft\.reward_model=runs/nosuch/rm is no finished stage"
    ):
        require(replace(cfg, sft=sft), specs("sft"))
    with pytest.raises(ArtifactError, match=r"sft\.reward_model=.*and no reward model"):
        require(replace(cfg, sft=replace(sft, reward_model=shipped("tiny"))), specs("sft"))


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [
        ("cuda", 0, "runtime.device=cuda cannot be used on this machine"),
        ("cuda:99", 2, "runtime.device=cuda:99 does not exist: this machine has 2 GPUs"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(default, monkeypatch, device, gpus, expected):
    monkeypatch.setattr(requirements, "count_gpus", lambda: gpus)
    monkeypatch.setattr(requirements, "DRIVER", requirements.Path("/no/driver"))
    with pytest.raises(UserError) as error:
        require_device(replace(default.runtime, device=device))
    assert expected in str(error.value)
    assert "use runtime.device=auto" in str(error.value)


@pytest.mark.parametrize(
    ("device", "gpus"), [("cuda:1", 2), ("cuda", 1), ("cpu", 0), ("auto", 0), ("mps", 0)]
)
def test_a_device_that_may_be_there_is_left_to_the_worker(default, monkeypatch, device, gpus):
    monkeypatch.setattr(requirements, "count_gpus", lambda: gpus)
    monkeypatch.setattr(requirements, "DRIVER", requirements.Path("/no/driver"))
    require_device(replace(default.runtime, device=device))


def test_where_the_driver_is_but_no_tool_counts_the_worker_decides(default, monkeypatch, tmp_path):
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
    (tmp_path / "d.jsonl").write_text("\n".join(SHOWN))
    assert main(["run", *words]) == 2
    assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]
