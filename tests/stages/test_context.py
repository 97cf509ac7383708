"""The context of a stage: templates, models, checks before training, and exports."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file, save_file

from rlhf_cli.config.compose import resolve
from rlhf_cli.config.errors import UserError
from rlhf_cli.config.keys import conf_dir
from rlhf_cli.core.microbatches import Share
from rlhf_cli.data.records import Message, Origin
from rlhf_cli.data.report import DataReport
from rlhf_cli.runtime.factory import local_parameters
from rlhf_cli.runtime.world import World
from rlhf_cli.stages.context import Encoded, open_context
from rlhf_cli.stages.reward_scorer import RewardModel, reset_head
from tests.support.small_stages import changed, little

DATED = (
    "{{ strftime_now('%d %b %Y') }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def dated(tmp_path):
    """Return a context whose template prints the date, with data.date set."""
    path = tmp_path / "dated.jinja"
    path.write_text(DATED)
    words = ["experiment=smoke", "runtime.device=cpu", f"data.template={path}"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return open_context(resolve(compose("config", overrides=[*words, "data.date=2001-02-03"])))


def test_templates_print_the_date_of_the_run(dated, tmp_path):
    """This holds for the policy and for a reward model with its own template."""
    messages = (Message("user", "Why?"),)
    prompt = dated.renderer.tokenizer.decode(dated.renderer.prompt_ids(messages))
    assert prompt.strip() == "03 Feb 2001<user>Why?<assistant>"
    engine = dated.engine(dated.scalar_model("tiny", new_head=True), dated.cfg.rm.optim)
    reset_head(engine, seed=3)
    folder = tmp_path / "rm"
    dated.export(engine, folder)
    assert RewardModel.load(dated, [folder], []).renderer is None
    (folder / "chat_template.jinja").write_text(DATED.replace("}}{% for", "}}: {% for"))
    own_renderer = RewardModel.load(dated, [folder], []).renderer
    prompt = own_renderer.tokenizer.decode(own_renderer.prompt_ids(messages))
    assert prompt.strip() == "03 Feb 2001: <user>Why?<assistant>"
    (folder / "chat_template.jinja").write_text(DATED + "{{ '<think>' if add_generation_prompt }}")
    with pytest.raises(UserError, match=r"^the reward model .* give its tokenizer another chat"):
        RewardModel.load(dated, [folder], [])


def test_notes_of_the_data_report_are_printed_with_an_example(dated, capsys):
    report = DataReport(role="demonstrations")
    report.note(Origin("a.jsonl", 7), "the template differs", "'ours' became 'theirs'")
    notes = []
    recorder = SimpleNamespace(note=notes.append, silent=False)
    Encoded(train=[], select=[], held_out=[], report=report).print_report(recorder)
    assert notes == [report.headline()]
    assert capsys.readouterr().out.count("a.jsonl row 7: 'ours' became 'theirs'") == 1
    notes.clear()
    without_example = replace(report, examples={})
    Encoded(train=[], select=[], held_out=[], report=without_example).print_report(recorder)
    assert notes == [report.headline(), "1 x the template differs"]
    assert capsys.readouterr().out == ""


@pytest.fixture(scope="module")
def context():
    return open_context(little())


def test_a_model_with_fewer_positions_than_the_texts_is_refused(context):
    cfg = changed(context.cfg, {"data.max_prompt_tokens": 100, "data.max_response_tokens": 157})
    with pytest.raises(UserError, match="257 tokens, but the model has 256 positions"):
        replace(context, cfg=cfg).causal_lm()
    fits = changed(cfg, {"data.max_response_tokens": 156})
    assert replace(context, cfg=fits).causal_lm() is not None


def test_batch_sizes_that_the_processes_do_not_divide_are_refused(context):
    four = replace(context, world=World(Share(0, 4)))
    four.require_whole_shares({"sft.batch.size": 8})
    with pytest.raises(UserError, match=r"sft\.batch\.size=6 cannot be divided among 4 .* 4 or 8"):
        four.require_whole_shares({"sft.batch.size": 6})


def test_a_scalar_model_gets_the_pad_token_of_the_renderer(context):
    other = replace(context, renderer=SimpleNamespace(pad_id=7))
    assert other.scalar_model("tiny", new_head=True).config.pad_token_id == 7


def test_dropout_is_seeded_by_the_stage_and_the_step(context):
    def drawn(*place):
        context.seed_dropout(*place)
        return float(torch.rand(()))

    assert drawn("sft", 1) == drawn("sft", 1)
    assert len({drawn("sft", 1), drawn("sft", 2), drawn("rm", 1)}) == 3


@pytest.fixture
def save_broken(context, tmp_path):
    """Return save_broken(engine), which exports a model folder with one NaN weight."""

    def made(engine) -> Path:
        context.export(engine, tmp_path / "broken")
        file = tmp_path / "broken" / "model.safetensors"
        tensors = load_file(file)
        name = sorted(tensors)[-1]
        tensors[name].view(-1)[5] = float("nan")
        save_file(tensors, file, metadata={"format": "pt"})
        return tmp_path / "broken"

    return made


def test_a_model_with_nan_weights_is_refused_when_it_is_loaded(context, save_broken):
    """The error comes before the first loss, whose error suggests a lower learning rate."""
    folder = save_broken(context.engine(context.causal_lm(), context.cfg.sft.optim))
    for load in (context.causal_lm, partial(context.scalar_model, new_head=True)):
        with pytest.raises(UserError, match=r"the model .*/broken is broken: its weight .* NaN"):
            load(folder)


def test_an_average_that_is_not_finite_is_not_exported(context, tmp_path):
    engine = context.engine(context.causal_lm(), context.cfg.ppo.optim, ema_decay=0.9)
    engine.average[3].view(-1)[0] = float("inf")
    context.export(engine, tmp_path / "weights")  # the weights themselves are finite
    engine.use_average()
    with pytest.raises(UserError, match=r"not written: its weight .* holds an infinite number"):
        context.export(engine, tmp_path / "average")
    assert not (tmp_path / "average").exists()


def test_local_parameters_exclude_the_padding_of_a_shard():
    """Three processes hold seven numbers as 3, 3 and 1; the last shard ends with stale values."""
    model = torch.nn.Linear(7, 1, bias=False)
    model.weight.ds_numel = 7
    model.weight.ds_tensor = torch.tensor([1.0, float("nan"), float("nan")])
    ((_, shard),) = local_parameters(model, World(Share(2, 3)))
    assert shard.tolist() == [1.0]
    ((_, shard),) = local_parameters(model, World(Share(0, 3)))
    assert len(shard) == 3


def test_what_the_devices_use_is_a_cost_where_they_count_it(monkeypatch):
    monkeypatch.setattr("rlhf_cli.stages.context.energy_meter", lambda device, world: lambda: 0.5)
    clock = open_context(little()).clock
    clock.interval()
    assert clock.costs["energy_kwh"] == 0.5
