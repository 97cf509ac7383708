"""The driver: which stages run, which are kept and why, and how a run ends."""

import json
import signal
import time

import pytest

from tests.support.command_line import done, manifest, ran, refused


def test_the_stages_run_in_order(rlhf):
    assert ran(done(rlhf)) == ["sft", "rm", "ppo", "evaluate"]


def test_a_second_run_keeps_everything(after_a_run):
    rlhf = after_a_run
    output = done(rlhf)
    assert ran(output) == []
    assert output.count("unchanged, skipped (finished 20") == 4


def test_a_run_keeps_the_date_of_its_start_on_a_later_day(rlhf):
    """Templates may print the date, so a change of the day must not change the stages."""
    done(rlhf, "stage=sft", "data.date=2001-02-03")
    output = done(rlhf, "stage=[sft,rm]")
    assert ran(output) == ["rm"]
    for stage in ("sft", "rm"):
        assert manifest(rlhf, stage)["date"] == "2001-02-03"
        config = json.loads((rlhf.folder / "runs/default" / stage / "config.json").read_text())
        assert config["data"]["date"] == "2001-02-03"
    output = done(rlhf, "stage=sft", "data.date=2001-02-04")
    assert "data.date changed 2001-02-03 -> 2001-02-04" in output


def test_keys_without_effect_on_results_rerun_nothing(after_a_run):
    rlhf = after_a_run
    same = ["tracking.every=5", "samples=0", "runtime.num_threads=1", "model.lr.sft=0.001"]
    assert ran(done(rlhf, *same)) == []


def test_a_change_reruns_its_stage_and_all_that_depend_on_it(after_a_run):
    rlhf = after_a_run
    output = done(rlhf, "rm.optim.lr=0.0001")
    assert ran(output) == ["rm", "ppo", "evaluate"]
    assert "rm.optim.lr changed 0.0005 -> 0.0001" in output
    assert "raise the score, close to the SFT model (parent rm changed)" in output


def test_changed_data_reruns_the_stages_that_read_it(after_a_run):
    rlhf = after_a_run
    output = done(rlhf, "tiny_world.demonstrations=1400")
    assert "tiny_world.demonstrations changed" in output


def test_the_manifest_names_parents_files_and_metrics(after_a_run):
    rlhf = after_a_run
    sft, ppo = manifest(rlhf, "sft"), manifest(rlhf, "ppo")
    assert ppo["parents"]["sft"] == sft["digest"]
    assert ppo["step"] == 7
    assert ppo["metrics"] == {"fake/loss": 0.5, "fake/undefined": None}
    assert {"model/model.safetensors", "config.json", "metrics.jsonl"} <= set(sft["files"])
    assert sft["tokenizer_hash"]


def test_a_single_stage_without_its_parents_is_refused(rlhf):
    assert "make it with stage=[sft,rm,ppo]" in refused(rlhf, "stage=ppo")
    assert list(rlhf.folder.iterdir()) == []


def test_a_stale_parent_is_refused_with_the_remedy(after_a_run):
    rlhf = after_a_run
    message = refused(rlhf, "stage=ppo", "sft.epochs=9")
    assert "sft.epochs changed 2 -> 9" in message
    assert "parents.sft=runs/default/sft" in message
    given = ["parents.sft=runs/default/sft", "parents.rm=runs/default/rm"]
    assert (
        ran(done(rlhf, "stage=ppo", "sft.epochs=9", *given)) == []
    )  # the ppo here was made with them
    assert ran(done(rlhf, "stage=ppo", "name=other", *given)) == ["ppo"]


def test_a_damaged_stage_is_made_again_or_refused_as_a_parent(after_a_run):
    rlhf = after_a_run
    weights = rlhf.folder / "runs/default/sft/model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:10])
    assert "is truncated: 10 bytes instead of 64" in refused(rlhf, "stage=rm")
    assert "is truncated" in done(rlhf, "stage=sft")
    assert ran(done(rlhf, "stage=rm")) == ["rm"]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("runs/default/rm", "holds the stage rm, not sft"),
        ("none_such", "is no finished stage"),
        ("runs", "is no finished stage"),
    ],
)
def test_wrong_parents_are_refused(after_a_run, place, expected):
    assert expected in refused(after_a_run, "stage=rm", "name=other", f"parents.sft={place}")


@pytest.mark.parametrize(
    ("key", "architecture", "labels", "expected"),
    [
        ("parents.rm", "LlamaForCausalLM", 1, "is a LlamaForCausalLM and no reward model"),
        ("parents.rm", "LlamaForSequenceClassification", 3, "with 3 outputs"),
        ("parents.sft", "LlamaForSequenceClassification", 1, "has no language-model head"),
        ("model.path", "LlamaForSequenceClassification", 1, "has no language-model head"),
    ],
)
def test_a_model_of_the_wrong_kind_is_refused_before_any_stage(
    rlhf, key, architecture, labels, expected
):
    folder = rlhf.folder / "given"
    folder.mkdir()
    content = {"architectures": [architecture], "id2label": dict.fromkeys(range(labels), "a")}
    (folder / "config.json").write_text(json.dumps(content))
    message = refused(
        rlhf, f"{key}={folder}", "stage=[sft,rm,ppo]" if key != "parents.sft" else "stage=rm"
    )
    assert expected in message and key in message
    assert not (rlhf.folder / "runs").exists()


def test_a_hub_model_can_be_a_parent(rlhf, tmp_path_factory, monkeypatch):
    """Without a network the cache of the hub must hold it, or the run is refused."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    words = ("stage=[sft,rm]", "parents.sft=some-org/some-model")
    assert "parents.sft=some-org/some-model is no local folder, the hub" in refused(rlhf, *words)
    assert not (rlhf.folder / "runs").exists()
    (cache / "models--some-org--some-model" / "snapshots" / "main" / "config.json").mkdir(
        parents=True
    )
    output = done(rlhf, *words)
    assert ran(output) == ["rm"]
    assert manifest(rlhf, "rm")["parents"]["sft"] == "hub:some-org/some-model@main"


def test_the_evaluation_uses_existing_stages_and_names_missing_ones(rlhf):
    output = done(rlhf, "stage=[sft,evaluate]")
    assert "without ppo (not there)" in output
    assert "without rloo" not in output  # no part of stage=all
    assert set(manifest(rlhf, "evaluate")["parents"]) == {"base", "sft"}
    assert ran(done(rlhf)) == ["rm", "ppo", "evaluate"]


def test_nothing_to_evaluate_is_refused(rlhf):
    assert "run them first with stage=all" in refused(rlhf, "stage=evaluate")


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("fail", "sft failed: the data is bad at a.jsonl:3"),
        ("crash", "sft failed: ZeroDivisionError: boom (traceback: runs/default/.sft.work/"),
        pytest.param("die", "sft failed: its process ended with code 9", marks=pytest.mark.slow),
        ("killed", "sft failed: killed by signal 9"),
    ],
)
def test_a_failing_stage_is_reported_in_one_line_and_its_files_are_kept(rlhf, how, expected):
    assert expected in refused(rlhf, f"tracking.project={how}", code=1)
    work = rlhf.folder / "runs/default/.sft.work"
    assert (work / "config.json").is_file()
    assert not (rlhf.folder / "runs/default/sft").exists()
    assert "sft did not finish" in rlhf("show", "default").stdout
    assert ran(done(rlhf, "stage=sft")) == ["sft"]
    assert not work.exists()


def wait_for(stream, text: str) -> None:
    for entry in stream:
        if text in entry:
            return
    raise AssertionError(f"the command ended without {text!r}")


def test_a_missing_tracker_is_refused_before_the_first_stage(rlhf):
    message = refused(rlhf, "tracking.trackers=[trackio]")
    assert "pip install 'rlhf-cli[trackio]'" in message
    assert list(rlhf.folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_prints_the_command_that_resumes_it(rlhf, number):
    running = rlhf.start("run", "tracking.project=sleep", "seed=2")
    wait_for(running.stdout, "sleeping")
    running.send_signal(number)
    _, errors = running.communicate(timeout=20)
    assert running.returncode == 130
    assert errors == (
        "rlhf: stopped during sft; finished stages are kept. "
        "Resume with: rlhf run tracking.project=sleep seed=2\n"
    )


def test_a_worker_ends_when_its_parent_is_killed(rlhf):
    running = rlhf.start("run", "tracking.project=sleep")
    wait_for(running.stdout, "sleeping")
    running.kill()
    running.wait(timeout=20)
    time.sleep(0.5)
    # the worker held the pipe, which is closed when its last writer has ended
    assert running.stdout.read() == ""


def test_a_second_run_in_the_same_folder_is_refused(rlhf):
    running = rlhf.start("run", "tracking.project=sleep")
    wait_for(running.stdout, "sleeping")
    try:
        message = refused(rlhf, "seed=3")
        assert f"runs/default is in use by process {running.pid}" in message
        assert "rlhf run tracking.project=sleep" in message
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=20)


def test_a_sweep_makes_one_run_per_value(rlhf):
    found = rlhf("run", "-m", "seed=1,2", "stage=sft", "name=many")
    assert found.returncode == 0, found.stderr
    names = sorted(p.name for p in (rlhf.folder / "runs").iterdir())
    assert names == [".sweeps", "many-seed=1", "many-seed=2"]
    assert manifest(rlhf, "sft", "many-seed=2")["seed"] == 2
    assert "the same but for the seed (1, 2)" in found.stdout
    assert found.stdout.endswith("  rlhf show many-seed=1 many-seed=2\n")
    assert len(list((rlhf.folder / "runs").rglob("multirun.yaml"))) == 1
    assert [p.name for p in rlhf.folder.iterdir()] == ["runs"]


def test_a_sweep_continues_after_a_failed_run(rlhf):
    found = rlhf("run", "-m", "tracking.project=fail,fine", "stage=sft")
    assert found.returncode == 1
    assert "sft failed" in found.stderr
    assert manifest(rlhf, "sft", "default-tracking.project=fine")


def test_dry_run_shows_and_writes_nothing(rlhf):
    output = done(rlhf, "dry_run=true", "stage=[sft,rm]")
    assert output.count("optimizer steps  3") == 2
    assert output.count("would run: new") == 2
    assert list(rlhf.folder.iterdir()) == []


def test_show_prints_stages_lineage_and_problems(after_a_run):
    rlhf = after_a_run
    done(rlhf, "stage=sft", "sft.epochs=3")
    page = rlhf("show", "default").stdout
    assert "fake/undefined nan" in page
    assert "fake/loss 0.5" in page
    assert "runs/default/sft" in page
    assert "problem: rm was made with another sft than the one here" in page
    assert "default  sft -> rm -> ppo -> evaluate" in rlhf("show").stdout
    assert "did you mean default?" in rlhf("show", "defalt").stderr


def test_show_time_without_timings_is_refused(after_a_run):
    rlhf = after_a_run
    assert "--time needs a run: rlhf show RUN --time" in rlhf("show", "--time").stderr
    without_timings = rlhf("show", "default", "--time")  # the fake stages record no timings
    assert without_timings.returncode == 2
    assert without_timings.stderr.startswith("rlhf: runs/default has no timings: ")
    assert without_timings.stderr.count("\n") == 1


def test_a_run_inside_another_run_is_refused(after_a_run):
    found = after_a_run("run", "runs_dir=runs/default", "name=sft")
    assert found.returncode == 2
    assert "runs_dir=runs/default is inside the run" in found.stderr
