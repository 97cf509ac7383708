"""The command line as users see it: exit codes, one-line errors, help, composition."""

import logging
import signal
import subprocess
import sys
import time

import pytest

from rlhf_cli import __version__
from rlhf_cli.cli import VERBS, main
from rlhf_cli.config.keys import COMMANDS


def error_of(capsys, *words: str, code: int = 2) -> str:
    """Run `rlhf words`, which must fail; return its one-line error."""
    assert main(list(words)) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("rlhf: ")
    assert captured.err.count("\n") == 1, captured.err
    return captured.err.strip()


def test_every_command_of_help_and_completion_exists():
    assert {verb for verb in VERBS if not verb.startswith("-")} == {*COMMANDS, "help"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "sft.optim.lrr=3"], "unknown key 'sft.optim.lrr': did you mean sft.optim.lr?"),
        (["run", "+sft.optim.lrr=3"], "unknown key 'sft.optim.lrr': did you mean sft.optim.lr?"),
        (["run", "sft.lr=3"], "unknown key 'sft.lr': did you mean sft.optim.lr?"),
        (["run", "modle=tiny"], "unknown key 'modle': did you mean model?"),
        (["run", "lr=3"], "did you mean model.lr or rm.optim.lr or sft.optim.lr?"),
        (["run", "sft.optim.lr=fast"], "sft.optim.lr=fast is not a number"),
        (["run", "sft.epochs=1.5"], "sft.epochs=1.5 is not a whole number"),
        (["run", "sft.epochs=null"], "sft.epochs may not be null"),
        (["run", "dry_run=perhaps"], "dry_run=perhaps is not true or false"),
        (["run", "sft.batching=pcked"], "is not one of grouped, packed: did you mean packed?"),
        (["run", "sft.optim.lr=-1"], "sft.optim.lr=-1.0 must be positive"),
        (["run", "ppo.value_optim.lr=-1"], "ppo.value_optim.lr=-1.0 must be positive"),
        (["run", "ppo.gamma=2"], "ppo.gamma=2.0 must lie in (0, 1]"),
        (
            ["run", "stage=sftt"],
            "rationales, best_of_n: did you mean sft?",
        ),
        (["run", "stage=[]"], "stage is empty"),
        (["run", "model=tyny"], "did you mean model=tiny?"),
        (["run", "data=tiny_wrld"], "did you mean data=tiny_world? data is one of"),
        (
            ["run", "data.prompts=[{path: a, weigth: 3}]"],
            "'weigth' of a data source: did you mean weight?",
        ),
        (["run", "seed=1,2"], "add -m to run once per value"),
        (["run", "sft.epochs", "3"], "expected key=value: did you mean sft.epochs=...?"),
        (["run", "~sft.epochs"], "sft.epochs has no value"),
        (["run", "--multi"], "unknown option --multi"),
        (["run", "--config-name", "none_such"], "no none_such.yaml"),
        (["run", "--config-dir", "none_such"], "--config-dir none_such: no such folder"),
        (["run", "name=../elsewhere"], "must be a plain folder name"),
        (["run", "model=generic"], "model.path has no value"),
        (["run", "ppo.total_episodes=lots"], "ppo.total_episodes=lots is not a whole number"),
        (["run", "experiment=smoke,nplus"], "is ambiguous: add -m to run once per value"),
        (["run", "name=~"], """quote it: 'name="~"'"""),
        (["run", "name=a/b"], "name='a/b' must be a plain folder name"),
        (
            ["run", "data.prompts={path: a}"],
            "data.prompts={path: a}: it is a list: write [...] around it",
        ),
        (["run", "data.prompts=[{path: a"], "a bracket is not closed; put quotes around all of"),
        (["run", "data=my.jsonl"], "a file is data.demonstrations=[{path: my.jsonl}]"),
        (
            ["run", "experiment=try"],
            "is one of flan, flan_supervised, instructgpt, methods, none, nplus, scale, smoke; your own: ",
        ),
        (
            ["run", "sft.optim.lr=${ppo.nosuch}"],
            "sft.optim.lr: it refers to a key that is not there",
        ),
        (["run", "--cfg=foo"], "argument --cfg/-c: invalid choice: 'foo'"),
        (["shwo"], "did you mean rlhf show?"),
        (["stage=sft"], "did you mean rlhf run stage=sft?"),
        (["sft"], "did you mean rlhf run stage=sft?"),
        (["evaluate"], "did you mean rlhf run stage=evaluate?"),
        (["train"], "did you mean rlhf run stage=all?"),
        (["kto"], "'kto' is not there: the stages are sft, rm, ppo"),
        (["chat"], "there is no command 'chat': transformers loads"),
        (["my.yaml"], "did you mean rlhf run my.yaml?"),
        (["data", "chek"], "did you mean rlhf data check?"),
        (["config", "nosuch"], "no section 'nosuch': the sections are name, runs_dir, stage"),
    ],
)
def test_a_mistake_is_refused_in_one_line_with_the_nearest_valid_word(capsys, words, expected):
    assert expected in error_of(capsys, *words)


def test_a_run_ignores_sigusr1_before_its_first_stage():
    """Before the first stage there is nothing to save, and the signal must not end the run."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    try:
        assert main(["run", "sft.optim.lr=nan"]) == 2
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("words", [["--version"], ["run", "--version"]])
def test_the_option_version_prints_the_version(capsys, words):
    assert main(words) == 0
    assert capsys.readouterr().out == f"rlhf {__version__}\n"


@pytest.fixture
def logging_restored():
    """Restore logging, which the option --info of Hydra configures for the whole process."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def test_the_option_info_prints_the_search_path(logging_restored, capsys):
    assert main(["run", "--info", "seed=3"]) == 0
    assert "Config search path" in capsys.readouterr().out


def test_help_is_fast_and_imports_neither_torch_nor_hydra():
    code = "import sys; from rlhf_cli.cli import main; main(['--help']); main(['run', '--help']);"
    code += "print(sorted({'torch', 'hydra', 'omegaconf', 'transformers'} & set(sys.modules)))"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert time.monotonic() - started < 5  # a loaded machine; about 0.2 s otherwise


@pytest.mark.parametrize("verb", ["run", "config", "data", "show", "report"])
def test_help_of_every_command_fits_80_columns(capsys, monkeypatch, verb):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert verb in shown and "…" not in shown


def test_config_prints_values_with_their_comments(capsys):
    assert main(["config", "sft", "sft.epochs=7"]) == 0
    out = capsys.readouterr().out
    assert "epochs: 7" in out
    assert "# passes over the demonstrations" in out
    assert "ppo" not in out.split("#")[0]


def test_cfg_job_shows_the_deepspeed_section(capsys):
    assert main(["run", "--cfg", "job", "runtime=zero2", "-p", "runtime"]) == 0
    shown = capsys.readouterr().out
    assert "deepspeed:\n  zero_optimization:\n    stage: 2\n    overlap_comm: true" in shown


def test_cfg_job_resolves_interpolations(capsys):
    assert main(["run", "--cfg", "job", "-p", "sft.optim"]) == 0
    assert "lr: 0.001" in capsys.readouterr().out


def test_hydra_writes_no_files(rlhf):
    assert rlhf("config", "seed=3").returncode == 0
    assert rlhf("run", "sft.epochs=x").returncode == 2
    assert list(rlhf.folder.iterdir()) == []


def test_config_dir_adds_presets_and_configurations(rlhf):
    own = rlhf.folder / "my" / "experiment"
    own.mkdir(parents=True)
    (own / "short.yaml").write_text("# @package _global_\nsft:\n  epochs: 1\n")
    (rlhf.folder / "my" / "mine.yaml").write_text("defaults: [config, _self_]\nseed: 77\n")
    found = rlhf("config", "--config-dir", "my", "experiment=short", "sft.epochs")
    assert "epochs: 1 " in found.stdout, found.stderr
    assert "seed: 77" in rlhf("config", "--config-dir", "my", "-cn", "mine", "seed").stdout


@pytest.mark.parametrize("where", ["some-org/some-model", "./folder"])
def test_a_folder_or_hub_id_as_model_uses_the_generic_preset(rlhf, where):
    (rlhf.folder / "folder").mkdir()
    found = rlhf("config", "model.path", "model.lr", f"model={where}").stdout
    assert f"path: {where}" in found
    assert "sft: 1e-05" in found


def test_rlhf_traceback_shows_the_traceback(rlhf):
    found = rlhf("run", "sft.epochs=x", RLHF_TRACEBACK="1")
    assert "Traceback" in found.stderr
    assert found.returncode == 2


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("rlhf ru", "run"),
        ("rlhf data ", "check"),
        ("rlhf run stage=", "stage=all"),
        ("rlhf run model=t", "model=tiny"),
        ("rlhf config sft.ep", "sft.epochs="),
    ],
)
def test_completion_of_a_partial_command(rlhf, typed, offered):
    found = rlhf("-sc", "query=bash", COMP_LINE=typed, COMP_POINT=str(len(typed)))
    assert offered in found.stdout.split(), found


def test_completion_is_installed(rlhf):
    assert "complete -o nospace" in rlhf("-sc", "install=bash").stdout
