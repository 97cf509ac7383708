"""The real stages through the command line: their files, and which stages run again."""

import json
from datetime import datetime
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlhf_cli.telemetry.timing import COSTS
from tests.support.command_line import rlhf
from tests.support.stage_runs import metrics

SMALL = (
    "experiment=smoke",
    "tiny_world.demonstrations=120",
    "tiny_world.comparisons=40",
    "tiny_world.prompts=120",
    "ppo.total_episodes=128",
    "ppo.batch.rollout=64",
    "ppo.batch.minibatch=32",
    "ppo.watch.prompts=4",
    "evaluation.prompts=16",
    "evaluation.best_of_n=2",
    "evaluation.diversity.inputs=4",
    "evaluation.diversity.samples=2",
    "tiny_world.pretraining=60",
    "ppo.ptx.coef=1.0",
    "ppo.ptx.ratio=1",
    "ppo.ema_decay=0.9",
    "sft.batching=packed",
    "rm.ties=davidson",
    "tracking.trackers=[tensorboard]",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Return runs/default of a small run with most options of PPO enabled."""
    folder = tmp_path_factory.mktemp("pipeline")
    done = rlhf(folder, "run", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Evaluation on" in done.stdout
    return folder / "runs" / "default"


def test_a_run_writes_only_into_its_folder(run):
    assert sorted(p.name for p in run.parents[1].iterdir()) == ["runs"]
    stages = {p.name for p in run.iterdir() if not p.name.startswith(".")}
    assert stages == {"sft", "rm", "ppo", "evaluate", "report.html"}
    assert not list(run.glob(".*.work"))
    for stage in ("sft", "rm", "ppo"):
        assert (run / stage / "model" / "model.safetensors").is_file()
        assert any((run / stage / "tensorboard").rglob("events.*"))
    assert not [p for p in run.rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]


def test_what_a_stage_took_is_in_its_manifest_and_in_the_table(run):
    metrics = {
        stage: json.loads((run / stage / "manifest.json").read_text())["metrics"]
        for stage in ("sft", "ppo")
    }
    assert metrics["ppo"]["cost/sampled_responses"] == 128
    assert metrics["ppo"]["cost/scored_responses"] == 128
    assert metrics["sft"]["cost/sampled_responses"] == 0 < metrics["sft"]["cost/trained_tokens"]
    row = json.loads((run / "evaluate" / "table.json").read_text())["rows"]["PPO"]
    for name in COSTS:
        assert row[name][0] == metrics["ppo"][f"cost/{name}"]
    assert row["seconds"][0] == metrics["ppo"]["cost/seconds"] > 0


def test_the_policy_loads_in_transformers_and_ends_its_answers_with_eos(run):
    tokenizer = AutoTokenizer.from_pretrained(run / "ppo" / "model")
    model = AutoModelForCausalLM.from_pretrained(run / "ppo" / "model")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What sound does the dog make?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    torch.manual_seed(0)
    responses = model.generate(**prompt, max_new_tokens=24, num_return_sequences=20)
    ends = (responses[:, prompt["input_ids"].shape[1] :] == tokenizer.eos_token_id).any(1)
    assert ends.float().mean() > 0.5
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


@torch.no_grad()
def test_scores_of_the_exported_reward_model_do_not_depend_on_padding(run):
    tokenizer = AutoTokenizer.from_pretrained(run / "rm" / "model")
    model = AutoModelForSequenceClassification.from_pretrained(run / "rm" / "model")
    texts = [
        "Human: What is 2 plus 3?\n\nAssistant: Sure! 5",
        "Human: Hi.\n\nAssistant: Go away, you dumb cat, and stay there.",
    ]
    texts = [text + tokenizer.eos_token for text in texts]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    together = model(**batch).logits[:, 0]
    alone = [model(**tokenizer(text, return_tensors="pt")).logits[0, 0] for text in texts]
    assert not batch["attention_mask"].all()
    assert together.tolist() == pytest.approx([float(score) for score in alone], abs=1e-5)
    assert float(alone[0]) != pytest.approx(float(alone[1]), abs=1e-3)


def test_show_time_gives_the_duration_of_every_stage(run):
    """The times of metrics.jsonl add up to the duration of the stage without its start."""
    done = rlhf(run.parents[1], "show", "default", "--time")
    assert done.returncode == 0, done.stderr
    for stage in ("sft", "rm", "ppo", "evaluate"):
        row = next(t.split() for t in done.stdout.splitlines() if t.split()[:1] == [stage])
        manifest = json.loads((run / stage / "manifest.json").read_text())
        began, ended = (datetime.fromisoformat(manifest[k]) for k in ("started", "finished"))
        whole = (ended - began).total_seconds()
        assert 0.5 * whole - 1 < float(row[1]) < whole + 1
        learned = [one for one in metrics(run / stage) if one["time/learn"] > 0]
        assert all(one["speed/tokens_per_s"] > 0 for one in learned)
        # the peak rate is measured at another time
        assert all(0 < one["speed/mfu"] < 1.5 for one in learned)
    assert "of the time went into start, most of that in" in done.stdout


def test_ppo_starts_from_its_parents(run):
    first = metrics(run / "ppo")[0]
    assert first["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert first["val/ratio"] == pytest.approx(1, abs=0.05)
    assert first["loss/ptx"] > 0
    assert (run / "ppo" / "value_model" / "model.safetensors").is_file()
    manifest = json.loads((run / "ppo" / "manifest.json").read_text())
    parents = {
        role: json.loads((run / role / "manifest.json").read_text())["digest"]
        for role in ("sft", "rm")
    }
    assert {role: manifest["parents"][role] for role in parents} == parents


def test_the_reward_report_has_the_accuracy_ceiling_and_tie_probability(run):
    found = json.loads((run / "rm" / "report.json").read_text())
    assert 0.5 < found["accuracy_ceiling"][0] <= 1
    assert 0 < found["tie_probability"] < 1
    assert set(found["accuracy_by_k"]) <= {str(k) for k in range(4, 10)}


@pytest.mark.slow
def test_unchanged_stages_are_kept_and_changed_ones_made_again(run):
    folder = run.parents[1]
    before = {s: (run / s / "manifest.json").stat().st_mtime_ns for s in ("sft", "rm", "ppo")}
    done = rlhf(folder, "run", *SMALL, "ppo.clip_eps=0.3")
    after = {s: (run / s / "manifest.json").stat().st_mtime_ns for s in before}
    assert done.returncode == 0, done.stderr
    assert after["sft"] == before["sft"]
    assert after["rm"] == before["rm"]
    assert after["ppo"] > before["ppo"]
    assert "ppo.clip_eps changed 0.2 -> 0.3" in done.stdout
    stale = rlhf(folder, "run", *SMALL, "sft.optim.lr=2e-3", "stage=ppo")
    assert stale.returncode != 0
    assert len(stale.stderr.strip().splitlines()) == 1
    assert "sft.optim.lr" in stale.stderr


def test_a_model_with_too_few_positions_is_refused_in_one_line(run):
    done = rlhf(run.parents[1], "run", "name=long", "stage=sft", "data.max_prompt_tokens=500")
    assert done.returncode == 2
    assert "524 tokens, but the model has 256 positions" in done.stderr.strip().splitlines()[-1]


REAL = (
    "model.lr.sft=1e-3",
    "data.max_prompt_tokens=192",
    "data.max_response_tokens=96",
    "data.eval_fraction=0.2",
    "ppo.total_episodes=32",
    "ppo.batch.rollout=16",
    "ppo.batch.minibatch=16",
    "evaluation.prompts=8",
    "evaluation.best_of_n=2",
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hh", "kwise"])
def test_a_real_model_is_trained_on_real_comparisons(kind, real_data, tmp_path):
    """stories260K (no pad token, no template, ends with bos) on rows of the real files."""
    if kind == "hh":
        source = (
            f"{{path: {real_data}/comparisons/hh_harmless_base.parquet, format: hh, limit: 80}}"
        )
        sources = (f"data.demonstrations=[{source}]", "data.template=hh")
    else:
        source = f"{{path: {real_data}/comparisons/kwise_qa_feedback.jsonl, limit: 60}}"
        shown = f"{{path: {real_data}/demonstrations/instruction_1100.json, limit: 80}}"
        sources = (f"data.demonstrations=[{shown}]", "rm.ties=soft")
    model = f"model={real_data}/models/stories260K"
    done = rlhf(
        tmp_path, "run", model, "data=generic", f"data.comparisons=[{source}]", *sources, *REAL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for stage, auto in (("ppo", AutoModelForCausalLM), ("rm", AutoModelForSequenceClassification)):
        folder = tmp_path / "runs" / "default" / stage / "model"
        _, about = auto.from_pretrained(folder, output_loading_info=True)
        assert not any(about.values())
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
