"""The help pages. They start fast: neither Hydra nor torch is imported."""

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from rlhf_cli import __version__
from rlhf_cli.config.keys import COMMANDS, GROUPS, conf_dir
from rlhf_cli.config.stage_table import STAGES
from rlhf_cli.telemetry.console import console, line

EXAMPLES = {
    "rlhf run": "the embedded tiny world: no GPU, no download, under 3 minutes",
    "rlhf run dry_run=true": "show one batch of each stage, count the steps, stop",
    "rlhf run model=gpt2 stage=sft": "another model, one step of the three",
    "rlhf run -m seed=1,2,3": "a sweep: one run per value, then a comparison",
}
RUN_OPTIONS = {
    "key=value": "set a value: sft.optim.lr=1e-4, stage=[sft,rm], sft.optim.grad_clip=null",
    "group=choice": "take a whole group of values from conf/ (above)",
    "my.yaml": "a file of your own settings (as experiment=my.yaml)",
    "+key=value  ~key": "add or remove an entry of a dictionary",
    "-m, --multirun": "a sweep: key=a,b,c runs once for each value, each as its own run",
    "--config-dir DIR": "your own conf folder: its files join the groups and win over ours",
    "--config-name NAME": "compose from NAME.yaml instead of config.yaml",
    "--cfg job [-p SECTION]": "print the resolved configuration and stop",
    "--hydra-help, --info": "what Hydra itself offers",
}
FIRST_KEYS = {
    "name=default": "the run; all its files are in runs/<name>/",
    "stage=all": "all, one of the stages, or a list such as [sft,rm]",
    "model=tiny": "a preset, a hub id (org/name) or a local folder",
    "dry_run=true": "show what each stage would train on, then stop",
    "parents.sft=FOLDER": "start from this SFT model instead of the run's own (also parents.rm)",
    "runtime.device=auto": "auto, cpu, cuda, cuda:1, mps",
}


def print_help() -> None:
    """Print the first screen."""
    screen = console()
    screen.print(Text.assemble(("rlhf", "bold"), f" {__version__}  ", _pipeline()))
    screen.print(Text("From a pretrained language model to one that people prefer.\n"))
    rows = {f"rlhf {name} {usage}": text for name, (usage, text) in COMMANDS.items()}
    _section("commands", rows)
    _section("to begin with", EXAMPLES)
    screen.print(
        Text(
            "rlhf run --help lists the ways to set values.\n"
            'Completion: eval "$(rlhf -sc install=bash)"',
            style="dim",
        )
    )


def _pipeline() -> Text:
    return Text(" -> ", style="dim").join(
        [Text(spec.label, style="cyan") for spec in STAGES.values() if spec.default]
    )


def print_run_help(stages: Mapping[str, str]) -> None:
    """Print how to run, and with which settings."""
    console().print(Text.assemble(("rlhf run", "bold"), " [key=value ...] [options]\n"))
    _section("stages, in order", stages)
    _section("settings most asked for", FIRST_KEYS)
    _section("groups", {f"{group}=": ", ".join(choices(group)) for group in GROUPS})
    _section("ways to set values", RUN_OPTIONS)
    console().print(
        Text(
            "rlhf config shows every setting.\n"
            "Repeat the same command to resume a stopped run: finished stages "
            "whose configuration, data and parents are unchanged are reused.",
            style="dim",
        )
    )


def print_config_help() -> None:
    """Print how to look at the configuration."""
    text = (
        " [section ...] [key=value ...]\n\n"
        "Prints the settings that a run with these values would have, with comments.\n"
    )
    examples = {
        "rlhf config": "everything",
        "rlhf config sft": "one section",
        "rlhf config ppo.kl model=gpt2": "one section, with other values",
    }
    _print_command("rlhf config", text, examples)


def print_show_help() -> None:
    """Print how to look at a run."""
    text = (
        " [RUN ...] [--time] [--json] [--runs-dir DIR]\n\n"
        "The stages of a run, where they come from, their numbers, what is wrong, how far a "
        "running one is. RUN is a name or any folder: of a run, of a stage, of several runs.\n"
    )
    examples = {
        "rlhf show": "all runs in runs/",
        "rlhf show default": "the run of that name",
        "rlhf show default --time": "time per phase, and training speed",
        "rlhf show one other": "what differs in configuration and data, figures side by side",
        "rlhf show runs/default/ppo": "one stage, with all its numbers",
        "rlhf show --runs-dir elsewhere": "all runs in another folder",
        "rlhf show default --json": "the same for programs",
    }
    _print_command("rlhf show", text, examples)


def print_report_help() -> None:
    """Print how to write the page of runs."""
    text = (
        " RUN [RUN ...] [--out FILE] [--runs-dir DIR]\n\n"
        "Writes one HTML file: verdicts, costs, the closing table, charts, every answer, lineage. It opens "
        "without network, and its path is printed; every run writes its own. RUN is a name or the folder "
        "of a run.\n"
    )
    examples = {
        "rlhf report default": "runs/default/report.html",
        "rlhf report one other": "runs/report.html: side by side, seeds as means with intervals",
        "rlhf report default --out page.html": "another file",
        "rlhf report one --runs-dir elsewhere": "a run in another folder",
    }
    _print_command("rlhf report", text, examples)


def print_lm_eval_help() -> None:
    """Print how to evaluate a model by the lm-evaluation-harness."""
    text = (
        " MODEL TASK [TASK ...] [--limit N] [--shots N] [--batch-size N] [--tasks-dir FOLDER]\n"
        "             [--chat | --no-chat] [--out FILE] [--runs-dir DIR]\n\n"
        "Measures a model by tasks of EleutherAI's lm-evaluation-harness, on the GPU if there is one. "
        "MODEL is a policy of a run, its best weights, the run's base model, or a model folder or hub id. "
        "The chat template is on for policies and off for other models. The figures are kept in the folder "
        "lm_eval of the run, beside its stages, and rlhf report shows them. Needs "
        "pip install 'rlhf-cli[lm-eval]'.\n"
    )
    examples = {
        "rlhf lm-eval runs/one/ppo mmlu hellaswag": "two tasks; `lm_eval ls tasks` lists all",
        "rlhf lm-eval runs/one/ppo/best ifeval": "the weights that the watch chose",
        "rlhf lm-eval runs/one/base mmlu": "the model that the run began with",
        "rlhf lm-eval runs/one/sft mmlu --limit 20": "20 questions of each task, as a trial",
        "rlhf lm-eval runs/one/sft arc_easy --shots 25": "solved examples before each question",
        "rlhf lm-eval runs/one/sft mine --tasks-dir tasks": "a task of your own: YAML files",
    }
    _print_command("rlhf lm-eval", text, examples)


def print_data_help() -> None:
    """Print how to check data."""
    text = (
        " [FILE ...] [key=value ...] [--all] [--json]\n\n"
        "Reads all data of the configuration, or these files, and names bad rows by file and line.\n"
        "Its result and exit code are those of a run with the same words; nothing is trained.\n"
    )
    source = "data.demonstrations=[{path: my.jsonl, columns: {prompt: q}}]"
    examples = {
        "rlhf data check my.jsonl": "a file; its role follows from its columns",
        f'rlhf data check data=generic "{source}" stage=sft': "a source with its options",
        "rlhf data check data=hh --all": "every bad row, not the first three of a kind",
        "rlhf data check my.jsonl --json": "the same for programs",
    }
    _print_command("rlhf data check", text, examples)


def _print_command(name: str, text: str, examples: Mapping[str, str]) -> None:
    console().print(Text.assemble((name, "bold"), text))
    _section("examples", examples)


def _section(title: str, rows: Mapping[str, str]) -> None:
    """Print two columns, or each description below its command where the screen is narrow."""
    screen = console()
    if max(map(len, rows)) > screen.width // 2:
        screen.print(Text(title, style="cyan"))
        for left, right in rows.items():
            line(f"  {left}", style="bold", whole=True)
            line(f"      {right}")
        screen.print()
        return
    grid = Table.grid(padding=(0, 3), pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    for left, right in rows.items():
        grid.add_row(Text(f"  {left}"), Text(right))
    screen.print(Text(title, style="cyan"), grid, "")


def choices(group: str) -> list[str]:
    """Return the shipped presets of a group."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
