"""Keys that every stage reads when it opens, and their effects."""

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

QUESTION = (Message("user", "what is hot"),)


@pytest.fixture(scope="module")
def default():
    return composed("experiment=smoke", "runtime.device=cpu")


@pytest.fixture
def open_stage(default, monkeypatch):
    """Return open_stage("data", system=".."), a context with these keys of a section changed."""
    threads, seeds = torch.get_num_threads(), (random.getstate(), torch.get_rng_state())
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")

    def open_stage(section: str = "", **keys):
        if not section:
            return open_context(replace(default, **keys))
        changed = replace(getattr(default, section), **keys)
        return open_context(replace(default, **{section: changed}))

    yield open_stage
    torch.set_num_threads(threads)
    random.setstate(seeds[0])
    torch.set_rng_state(seeds[1])


def test_data_template_and_system_change_the_rendered_prompt(open_stage):
    """The defaults are the template of the model and no system text."""

    def written(**keys):
        renderer = open_stage("data", **keys).renderer
        return renderer.tokenizer.decode(renderer.prompt_ids(QUESTION))

    own, chatml, with_system = written(), written(template="chatml"), written(system="be polite")
    assert "<|im_start|>" in chatml
    assert "<|im_start|>" not in own
    assert "polite" in with_system
    assert "polite" not in own


def test_the_seed_determines_all_random_numbers(open_stage):
    def drawn(seed):
        context = open_stage(seed=seed)
        found = [random.random(), float(torch.rand(()))]
        context.seed_dropout("sft", 3)
        return [*found, float(torch.rand(()))]

    one, same, other = drawn(1), drawn(1), drawn(2)
    assert one == same
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_a_small_model_gets_one_thread_unless_num_threads_is_set(open_stage):
    for chosen, threads in ((None, 1), (3, 3)):
        torch.set_num_threads(4)
        open_stage("runtime", num_threads=chosen).causal_lm()
        assert torch.get_num_threads() == threads


def test_reference_implementation_reads_padded_rows(open_stage):
    for padded in (True, False):
        model = open_stage("runtime", reference_implementation=padded).causal_lm()
        assert reads_unpadded(model) is not padded


def test_compile_compiles_the_blocks_of_trained_models_alone(open_stage, monkeypatch):
    """Calls of nn.Module.compile are recorded, because the compiler takes seconds to import."""
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda block, **how: compiled.append(block))
    monkeypatch.setenv("CXX", sys.executable)
    for enabled in (True, False):
        context = open_stage("runtime", compile=enabled)
        context.network(context.causal_lm())
        trained = context.engine(context.causal_lm(), context.cfg.sft.optim).model
        assert compiled == (blocks(trained) if enabled else [])
        compiled.clear()


def test_the_timeout_of_collectives_is_longer_than_that_of_the_watchdog(open_stage, monkeypatch):
    """A process group is opened in one process only for DeepSpeed."""
    monkeypatch.setattr(dist.distributed_c10d, "default_pg_timeout", timedelta(minutes=30))
    assert not dist.is_initialized()
    open_stage("runtime", timeout=17.0)
    assert not dist.is_initialized()
    open_stage("runtime", timeout=17.0, deepspeed={"zero_optimization": {"stage": 2}})
    try:
        assert dist.is_initialized()
        assert dist.distributed_c10d.default_pg_timeout == timedelta(seconds=34)
    finally:
        close_world()


@pytest.fixture
def decoder_options(monkeypatch):
    """Record (reference, graphs) of every choice of a decoder."""
    found, way = [], sampling.decoder_class

    def recording_decoder(model, device, *, reference, cuda_graphs):
        found.append((reference, cuda_graphs))
        return way(model, device, reference=reference, cuda_graphs=cuda_graphs)

    monkeypatch.setattr(sampling, "decoder_class", recording_decoder)
    return found


@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("graphs", [Graphs.auto, Graphs.never])
def test_reference_implementation_and_cuda_graphs_reach_the_sampler(
    reference, graphs, open_stage, decoder_options, monkeypatch
):
    """This holds for evaluation, displayed samples and PPO, of which only the start runs."""
    context = open_stage("runtime", reference_implementation=reference, cuda_graphs=graphs)
    context.cfg.data = replace(context.cfg.data, max_response_tokens=3)
    prompt = SimpleNamespace(ids=context.renderer.prompt_ids(QUESTION))
    sample_answers(context, context.network(context.causal_lm()), [prompt], seed=1)
    assert decoder_options == [(reference, graphs is Graphs.auto)]

    context.cfg.ppo = replace(context.cfg.ppo, temperature=0.8)
    started = []
    monkeypatch.setattr(
        ppo_stage, "train", lambda models, prompts, params, *rest, **more: started.append(params)
    )
    monkeypatch.setattr(ppo_stage.episodes, "batches", lambda *rest, **more: iter(()))
    models, stage_run = SimpleNamespace(policy=None), SimpleNamespace(recorder=None, saver=None)
    ppo_stage.train_or_save(
        context, models, [], SimpleNamespace(iteration=0), stage_run, None, None
    )
    (params,) = started
    assert (params.reference, params.cuda_graphs) == (reference, graphs is Graphs.auto)
    assert params.temperature == 0.8
    assert params.max_new_tokens == context.cfg.data.max_response_tokens
    assert (params.end_ids, params.pad_id) == (context.renderer.end_ids, context.renderer.pad_id)


@pytest.mark.parametrize(("every", "steps"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_tracking_every_is_the_interval_of_logged_steps(every, steps, open_stage, tmp_path):
    context = open_stage("tracking", every=every)
    with open_recorder(context, tmp_path, stage="sft", total_steps=5) as recorder:
        for step in range(1, 6):
            recorder.log({"sft/loss": 1.0}, step)
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in found if "step" in row] == steps


@pytest.mark.parametrize(("price", "money"), [(None, None), (2.5, 2.5)])
def test_the_price_of_an_hour_makes_money_of_the_time(price, money, open_stage, tmp_path):
    context = open_stage("tracking", price_per_hour=price)
    with open_recorder(context, tmp_path, stage="sft", total_steps=5) as recorder:
        recorder.started -= 3600
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last.get("cost/money") == (money and pytest.approx(money, rel=0.01))


@pytest.fixture
def wandb(monkeypatch):
    """The library is a fake module that records its calls; the tracker class is the real one."""
    calls = []
    config = SimpleNamespace(update=lambda values, **more: calls.append(("config", values)))
    run = SimpleNamespace(
        id="7", config=config, finish=lambda: None,
        log=lambda values, **more: calls.append(("line", values)),
    )  # fmt: skip
    module = ModuleType("wandb")
    module.__spec__, module.config = ModuleSpec("wandb", None), config
    module.init = lambda **settings: calls.append(("run", settings)) or run
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


def test_trackers_receive_every_line_with_the_name_and_project_of_the_run(
    open_stage, wandb, default, tmp_path
):
    context = open_stage("tracking", trackers=[Tracker.wandb], project="mine")
    context.cfg.name = "own"
    with open_recorder(context, tmp_path, stage="rm", total_steps=1) as recorder:
        recorder.log({"rm/loss": 1.5}, 1)
    (run,) = (settings for kind, settings in wandb if kind == "run")
    assert (run["project"], run["name"]) == ("mine", "own-rm")
    (config,) = (values for kind, values in wandb if kind == "config")
    assert config["rm.optim.lr"] == default.rm.optim.lr
    assert any(kind == "line" and values["rm/loss"] == 1.5 for kind, values in wandb)
    assert trackers_of(default, tmp_path, "rm", {}) == []


def test_an_exported_folder_lists_all_end_tokens(open_stage, tmp_path):
    """These are the end of the template's turns and EOS, where they differ."""
    context = open_stage("data", template="chatml")
    engine = context.engine(context.causal_lm(), context.cfg.sft.optim)
    context.export(engine, tmp_path / "model")
    generation = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert len(generation["eos_token_id"]) == 2
    assert generation["eos_token_id"] == context.renderer.end_ids
    assert generation["pad_token_id"] == context.renderer.pad_id
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["vocab_size"] >= len(context.renderer.tokenizer)
