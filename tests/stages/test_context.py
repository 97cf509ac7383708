"""What a stage opens first: the renderer of its configuration, and the account of its rows."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from rlhf_cli.config.compose import conf_dir, resolve
from rlhf_cli.config.errors import UserError
from rlhf_cli.data.records import Message, Origin
from rlhf_cli.data.report import DataReport
from rlhf_cli.stages.context import Encoded, open_context
from rlhf_cli.stages.reward_scorer import RewardModel, reset_head

DATED = (
    "{{ strftime_now('%d %b %Y') }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def dated(tmp_path):
    """A context whose template prints the date, on a day long ago."""
    path = tmp_path / "dated.jinja"
    path.write_text(DATED)
    words = ["experiment=smoke", "runtime.device=cpu", f"data.template={path}"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return open_context(resolve(compose("config", overrides=[*words, "data.date=2001-02-03"])))


def test_templates_print_the_date_of_the_run(dated, tmp_path):
    """The policy's, and that of a reward model with a template of its own."""
    asked = (Message("user", "Why?"),)
    prompt = dated.renderer.tokenizer.decode(dated.renderer.prompt_ids(asked))
    assert prompt.strip() == "03 Feb 2001<user>Why?<assistant>"
    engine = dated.engine(dated.scalar_model("tiny", new_head=True), dated.cfg.rm.optim)
    reset_head(engine, seed=3)
    folder = tmp_path / "rm"
    dated.export(engine, folder)
    assert RewardModel.load(dated, folder, []).renderer is None
    (folder / "chat_template.jinja").write_text(DATED.replace("}}{% for", "}}: {% for"))
    theirs = RewardModel.load(dated, folder, []).renderer
    prompt = theirs.tokenizer.decode(theirs.prompt_ids(asked))
    assert prompt.strip() == "03 Feb 2001: <user>Why?<assistant>"
    (folder / "chat_template.jinja").write_text(DATED + "{{ '<think>' if add_generation_prompt }}")
    with pytest.raises(UserError, match=r"^the reward model .* give its tokenizer another chat"):
        RewardModel.load(dated, folder, [])


def test_what_a_template_shows_otherwise_is_told_with_an_example(dated, capsys):
    report = DataReport(role="demonstrations")
    report.note(Origin("a.jsonl", 7), "the template differs", "'ours' became 'theirs'")
    notes = []
    recorder = SimpleNamespace(note=notes.append, silent=False)
    Encoded(train=[], select=[], held_out=[], report=report).print_report(recorder)
    assert notes == [report.headline()]
    assert capsys.readouterr().out.count("a.jsonl row 7: 'ours' became 'theirs'") == 1
    notes.clear()
    quiet = replace(report, examples={})
    Encoded(train=[], select=[], held_out=[], report=quiet).print_report(recorder)
    assert notes == [report.headline(), "1 x the template differs"]
    assert capsys.readouterr().out == ""
