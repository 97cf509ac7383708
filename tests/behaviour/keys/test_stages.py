"""Keys that every stage reads when it opens: what they change in what it works with."""

import json
import random
import sys
from dataclasses import replace
from datetime import timedelta
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn

from rlhf_cli.config.schema import Graphs, Tracker
from rlhf_cli.data.records import Message
from rlhf_cli.models.compile import blocks
from rlhf_cli.models.forward import reads_unpadded
from rlhf_cli.models.generation import sampling
from rlhf_cli.runtime.world import close_world
from rlhf_cli.stages.context import open_context
from rlhf_cli.stages.ppo import stage as ppo_stage
from rlhf_cli.stages.samples import sample_answers
from rlhf_cli.stages.stage_run import open_recorder, trackers_of
from tests.support.configuration import composed

ASKED = (Message("user", "what is hot"),)


@pytest.fixture(scope="module")
def default():
    return composed("experiment=smoke", "runtime.device=cpu")


@pytest.fixture
def opened(default, monkeypatch):
    """opened("data", system="..") opens a stage's context with these keys of a section changed."""
    threads, seeds = torch.get_num_threads(), (random.getstate(), torch.get_rng_state())
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")

    def opened(section: str = "", **keys):
        if not section:
            return open_context(replace(default, **keys))
        changed = replace(getattr(default, section), **keys)
        return open_context(replace(default, **{section: changed}))

    yield opened
    torch.set_num_threads(threads)
    random.setstate(seeds[0])
    torch.set_rng_state(seeds[1])


def test_template_and_system_decide_how_a_question_is_written(opened):
    """The model's own template unless another one is named; no system text unless one is given."""

    def written(**keys):
        renderer = opened("data", **keys).renderer
        return renderer.tokenizer.decode(renderer.prompt_ids(ASKED))

    own, chatml, told = written(), written(template="chatml"), written(system="be polite")
    assert "<|im_start|>" in chatml
    assert "<|im_start|>" not in own
    assert "polite" in told
    assert "polite" not in own


def test_seed_decides_what_is_drawn(opened):
    def drawn(seed):
        context = opened(seed=seed)
        found = [random.random(), float(torch.rand(()))]
        context.seed_dropout("sft", 3)
        return [*found, float(torch.rand(()))]

    one, same, other = drawn(1), drawn(1), drawn(2)
    assert one == same
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_a_small_model_gets_one_thread_unless_a_number_is_chosen(opened):
    for chosen, threads in ((None, 1), (3, 3)):
        torch.set_num_threads(4)
        opened("runtime", num_threads=chosen).causal_lm()
        assert torch.get_num_threads() == threads


def test_reference_implementation_reads_padded_rows(opened):
    for plainly in (True, False):
        model = opened("runtime", reference_implementation=plainly).causal_lm()
        assert reads_unpadded(model) is not plainly


def test_compile_compiles_the_blocks_of_what_is_trained(opened, monkeypatch):
    """Torch's compiler is told of them; its own import takes seconds, and it starts at the first call."""
    told = []
    monkeypatch.setattr(nn.Module, "compile", lambda block, **how: told.append(block))
    monkeypatch.setenv("CXX", sys.executable)
    for asked in (True, False):
        context = opened("runtime", compile=asked)
        context.network(context.causal_lm())
        trained = context.engine(context.causal_lm(), context.cfg.sft.optim).model
        assert told == (blocks(trained) if asked else [])
        told.clear()


def test_collectives_give_up_after_the_watchdog_has_spoken(opened, monkeypatch):
    """A process group is there for DeepSpeed alone."""
    monkeypatch.setattr(dist.distributed_c10d, "default_pg_timeout", timedelta(minutes=30))
    assert not dist.is_initialized()
    opened("runtime", timeout=17.0)
    assert not dist.is_initialized()
    opened("runtime", timeout=17.0, deepspeed={"zero_optimization": {"stage": 2}})
    try:
        assert dist.is_initialized()
        assert dist.distributed_c10d.default_pg_timeout == timedelta(seconds=34)
    finally:
        close_world()


@pytest.fixture
def ways(monkeypatch):
    """(reference, graphs) of every time that responses were sampled."""
    found, way = [], sampling.decoder_class

    def told(model, device, *, reference, cuda_graphs):
        found.append((reference, cuda_graphs))
        return way(model, device, reference=reference, cuda_graphs=cuda_graphs)

    monkeypatch.setattr(sampling, "decoder_class", told)
    return found


@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("graphs", [Graphs.auto, Graphs.never])
def test_how_responses_are_sampled(reference, graphs, opened, ways, monkeypatch):
    """By evaluation and the samples that are shown; by PPO, of which no more is run than its start."""
    context = opened("runtime", reference_implementation=reference, cuda_graphs=graphs)
    context.cfg.data = replace(context.cfg.data, max_response_tokens=3)
    prompt = SimpleNamespace(ids=context.renderer.prompt_ids(ASKED))
    sample_answers(context, context.network(context.causal_lm()), [prompt], seed=1)
    assert ways == [(reference, graphs is Graphs.auto)]

    context.cfg.ppo = replace(context.cfg.ppo, temperature=0.8)
    begun = []
    monkeypatch.setattr(
        ppo_stage, "train", lambda models, prompts, params, *rest, **more: begun.append(params)
    )
    monkeypatch.setattr(ppo_stage, "batches", lambda *rest, **more: iter(()))
    models, stage_run = SimpleNamespace(policy=None), SimpleNamespace(recorder=None, saver=None)
    ppo_stage.train_or_save(context, models, [], SimpleNamespace(iteration=0), stage_run, None)
    (params,) = begun
    assert (params.reference, params.cuda_graphs) == (reference, graphs is Graphs.auto)
    assert params.temperature == 0.8
    assert params.max_new_tokens == context.cfg.data.max_response_tokens
    assert (params.end_ids, params.pad_id) == (context.renderer.end_ids, context.renderer.pad_id)


@pytest.mark.parametrize(("every", "steps"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_tracking_every_thins_the_lines(every, steps, opened, tmp_path):
    context = opened("tracking", every=every)
    with open_recorder(context, tmp_path, stage="sft", total_steps=5) as recorder:
        for step in range(1, 6):
            recorder.log({"sft/loss": 1.0}, step)
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in found if "step" in row] == steps


@pytest.fixture
def wandb(monkeypatch):
    """The library stands in as a module that keeps what it is told; accelerate's class is the real one."""
    told = []
    config = SimpleNamespace(update=lambda values, **more: told.append(("config", values)))
    run = SimpleNamespace(
        id="7", config=config, finish=lambda: None,
        log=lambda values, **more: told.append(("line", values)),
    )  # fmt: skip
    module = ModuleType("wandb")
    module.__spec__, module.config = ModuleSpec("wandb", None), config
    module.init = lambda **settings: told.append(("run", settings)) or run
    monkeypatch.setitem(sys.modules, "wandb", module)
    return told


def test_trackers_get_every_line_under_the_runs_name_and_project(opened, wandb, default, tmp_path):
    context = opened("tracking", trackers=[Tracker.wandb], project="mine")
    context.cfg.name = "own"
    with open_recorder(context, tmp_path, stage="rm", total_steps=1) as recorder:
        recorder.log({"rm/loss": 1.5}, 1)
    (run,) = (settings for kind, settings in wandb if kind == "run")
    assert (run["project"], run["name"]) == ("mine", "own-rm")
    (config,) = (values for kind, values in wandb if kind == "config")
    assert config["rm.optim.lr"] == default.rm.optim.lr
    assert any(kind == "line" and values["rm/loss"] == 1.5 for kind, values in wandb)
    assert trackers_of(default, tmp_path, "rm", {}) == []


def test_a_model_folder_says_all_tokens_that_end_a_response(opened, tmp_path):
    """The end of the template's turns and EOS, where they are two."""
    context = opened("data", template="chatml")
    engine = context.engine(context.causal_lm(), context.cfg.sft.optim)
    context.export(engine, tmp_path / "model")
    said = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert len(said["eos_token_id"]) == 2
    assert said["eos_token_id"] == context.renderer.end_ids
    assert said["pad_token_id"] == context.renderer.pad_id
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["vocab_size"] >= len(context.renderer.tokenizer)
