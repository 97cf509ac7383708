"""A. A student's first hour: help, screens, `rlhf show`, no internet, completion."""

import re
import time

from tests.trials.place import ONLINE, SMALL
from tests.trials.row import Row
from tests.trials.samples import demonstrations, lines
from tests.trials.words import finished, said, shelled, split

SMALL_RUN = "rlhf run " + " ".join(SMALL)
MINE = lines(demonstrations())


def mine(place) -> None:
    place.write("my.jsonl", MINE)


def help_screens(place):
    """Run all spellings of the first help page."""
    came = [place.rlhf(*words) for words in (["--help"], [], ["help"], ["-h"])]
    widest = max(len(line) for line in came[0].text.splitlines())
    return came[0].told(same=len({c.text for c in came}) == 1, fits=widest <= 100)


HELP = [
    Row(tried="`rlhf --help`, `rlhf`, `rlhf help`, `rlhf -h`", play=help_screens, quick=True,
        has=(r"rlhf run", r"\[same: True\]", r"\[fits: True\]")),
    said("run --help", r"model", r"experiment", r"--config-dir"),
    said("show --help", r"rlhf show"),
    said("config --help", r"rlhf config"),
    said("data --help", r"rlhf data check"),
    said("data check my.jsonl", r"40 rows read, 40 records kept", prepare=mine,
         tried="the example of `rlhf data --help`: a file of one's own, `rlhf data check my.jsonl`"),
    said("--version", r"^rlhf \d"),
    said("run --version", r"^rlhf \d", lacks=(r"^Hydra",)),
    said("rum", r"did you mean rlhf run\?", code=(2,)),
    shelled("rlhf run --info", r"Config|defaults|choices", lacks=("invalid choice",)),
    said("run --hydra-help", r"Hydra"),
    said("data chek", r"did you mean .*check", code=(2,)),
    said("--cfg job", r"did you mean rlhf run --cfg", code=(2,)),
]  # fmt: skip


def signs_of_life(place):
    """Return all output of a short run, with the time of each line."""
    process = place.start("run", *SMALL, "stage=sft", PYTHONUNBUFFERED="1")
    start, moments = time.monotonic(), []
    assert process.stdout is not None
    for text in process.stdout:
        moments.append((time.monotonic() - start, text))
    process.wait()
    lines = [text for _, text in moments]
    from tests.trials.row import Came

    early = next((t for t, text in moments if "stages" in text or "sft" in text), 99.0)
    before = lines[: next((n for n, t in enumerate(lines) if "step" in t), len(lines))]
    return Came(code=process.returncode, text="".join(lines)).told(
        header_comes_first=early < moments[-1][0], lines_before_the_first_step=len(before)
    )


def run_again(place):
    place.finished()
    return place.command("run", *SMALL, "name=small")


def elsewhere(place):
    """Run the command that a run in another folder prints at its end, unchanged."""
    import shutil

    place.finished()
    shutil.move(place.folder / "runs" / "small", place.folder / "elsewhere" / "my first run")
    came = place.command("run", *SMALL, "runs_dir=elsewhere", "name='my first run'")
    printed = re.findall(r"rlhf show [^`\n]+", came.text)
    return came + place.shell(printed[-1] if printed else "echo nothing was printed; exit 9")


def moved(place):
    place.finished()
    (place.folder / "a").mkdir()
    (place.folder / "runs").rename(place.folder / "a" / "runs")


def named_oddly(place):
    import shutil

    place.finished()
    shutil.move(place.folder / "runs" / "small", place.folder / "runs" / "my first run")
    came = place.command("run", *SMALL, "name='my first run'")
    printed = re.findall(r"rlhf show [^`\n]+", came.text)
    return came + place.shell(printed[-1] if printed else "echo nothing was printed; exit 9")


SHOW = [
    Row(tried="`rlhf run`: whole, small, without internet or GPU", code=(0,),
        has=(r"Evaluation on",), play=run_again),
    Row(tried="the first screen of a run: header, then the first step", play=signs_of_life,
        has=(r"sft: done", r"header comes first: True",
             r"lines before the first step: (?!0\])")),
    Row(tried="the same run again", play=run_again,
        has=(r"sft.*(unchanged|kept)", r"evaluate.*(unchanged|kept)", r"Evaluation on")),
    said("show", r"small +.*sft", prepare=finished),
    said("show small", r"sft", r"Evaluation on", prepare=finished),
    said("show small --time", r"ppo", r"%|tokens", prepare=finished),
    said("show nosuch", r"nosuch.*runs/ has small", prepare=finished, code=(2,)),
    said("show --time", r"--time needs a run|RUN", prepare=finished, code=(2,)),
    said("show small --tme", r"--tme.*did you mean --time", prepare=finished, code=(2,),
         lacks=("Evaluation on",)),
    said("show runs/small/ppo", r"stage ppo|ppo", prepare=finished,
         lacks=("nothing has finished",)),
    said("show a/runs", r"small", prepare=moved, lacks=("nothing has finished",)),
    said("show runs/", r"small", prepare=finished, lacks=("nothing has finished",)),
    said("show ..", r"no run", prepare=finished, code=(0, 2), lacks=("nothing has finished",)),
    said("show /", r"no run", prepare=finished, code=(0, 2), lacks=("nothing has finished",)),
    said("show --runs-dir a/runs", r"small", prepare=moved),
    said("show small --json", r'"sft"', prepare=finished),
    Row(tried="the command printed at the end of a run with runs_dir=elsewhere and a space in its "
        "name, typed as it stands", play=elsewhere, has=(r"elsewhere.*my first run",),
        lacks=("there is no run",)),
    Row(tried="the same with a space in the name alone", play=named_oddly,
        has=(r"rlhf show .my first run",), lacks=("there is no run",)),
]  # fmt: skip

CONFIG = [
    said("config", r"total_episodes"),
    said("config ppo.kl", r"controller"),
    said("config nosuch", r"nosuch.*(sft|sections)", code=(2,)),
    said("config sfft", r"did you mean sft\?", code=(2,)),
    said("run --cfg job -p ppo.kl", r"controller"),
    said("config sft.optim --config-dir mine experiment=try", r"lr: 0\.5",
         prepare=lambda place: place.write(
             "mine/experiment/try.yaml", "# @package _global_\nsft: {optim: {lr: 0.5}}\n")),
]  # fmt: skip


def dry(place):
    """Return a dry run with the names of the files that it wrote."""
    came = place.command("run", *SMALL, "dry_run=true")
    return came.told(written=sorted(path.name for path in place.folder.iterdir()) or "nothing")


def dry_again(place):
    place.finished()
    return place.command("run", *SMALL, "name=small", "dry_run=true", "ppo.kl.coef=0.3")


def offline(*words: str):
    """Return the trial of a command that needs the hub, without a network, with its duration."""

    def play(place):
        start = time.monotonic()
        user = time.process_time()
        came = place.command(*words, **ONLINE)
        seconds = time.monotonic() - start
        lines = len(came.text.strip().splitlines())
        assert time.process_time() >= user
        return came.told(soon="yes" if seconds < 60 else f"no, {seconds:.0f} s", lines=lines)

    return play


OFFLINE = [
    Row(tried="`rlhf run dry_run=true`", play=dry,
        has=(r"\[\[", r"optimizer steps", r"\[written: nothing\]")),
    Row(tried="`rlhf run dry_run=true ppo.kl.coef=0.3` on a finished run", play=dry_again,
        has=(r"sft.*(kept|unchanged)", r"ppo\.kl\.coef changed")),
    *(Row(tried=f"`rlhf {' '.join(words)}` without internet", play=offline(*words), code=(1, 2),
          has=(r"(?i)offline|no connection|cannot be reached|not reach", r"local|folder",
               r"\[soon: yes\]"),
          lacks=("Retrying",), one_line=False)
      for words in (("data", "check", "data=hh"), ("run", "model=gpt2"))),
    shelled("HF_HUB_OFFLINE=1 rlhf run model=gpt2", r"(?i)offline|local|folder", code=(1, 2)),
    Row(tried="README: `rlhf data check data=hh_local` with the file in its place",
        needs="real data", has=(r"1179 rows read", r"hh_harmless_base\.jsonl\.gz:\d+"),
        play=lambda place: _with_hh(place)),
]  # fmt: skip


def _with_hh(place):
    source = place.shared.data / "comparisons" / "hh_harmless_base.jsonl.gz"
    place.write("data/comparisons/hh_harmless_base.jsonl.gz", source.read_bytes())
    return place.rlhf("data", "check", "data=hh_local")


LOADING = """
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("runs/small/ppo/model")
policy = AutoModelForCausalLM.from_pretrained("runs/small/ppo/model")
reward = AutoModelForSequenceClassification.from_pretrained("runs/small/rm/model")
chat = [{"role": "user", "content": "Hello?"}]
batch = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt",
                                      return_dict=True)
print("new tokens", policy.generate(**batch).shape[1] > batch["input_ids"].shape[1])
print("score", tuple(reward(**batch).logits.shape))
"""


def plain_transformers(place):
    place.finished()
    place.write("load.py", LOADING)
    import sys

    return place.shell(f'"{sys.executable}" load.py')


def model_folder(place):
    files = sorted(path.name for path in (place.finished() / "ppo" / "model").iterdir())
    from tests.trials.row import Came

    return Came(code=0, text="\n".join(files))


EXPORT = [
    Row(tried="README: `rlhf run name=hh ...` step by step, whole",
        play=None, needs="minutes more; docs/results.md has its table"),
    Row(tried="README: the loading snippet, generate, scores in plain transformers",
        play=plain_transformers, has=(r"new tokens True", r"score \(1, 1\)")),
    Row(tried="what an exported model folder holds", play=model_folder, has=(r"README\.md",),
        kept=(r"model\.safetensors", r"generation_config\.json", r"chat_template\.jinja"),
        defended="manifest.json beside it says what made the model; a card is its author's to write"),
]  # fmt: skip

LONG = "a_rather_long_folder_name/comparisons_of_the_second_kind.jsonl"


def narrow(columns: int, *words: str):
    """Return the trial of a command on a screen with this many columns."""

    def play(place):
        place.write(LONG, lines(demonstrations(), '{"prompt": '))
        place.finished()
        came = place.screen(*words, columns=columns)
        widest = max(len(line.rstrip()) for line in came.text.splitlines())
        return came.told(fits=widest <= columns)

    return play


CHECK_LONG = (
    "data",
    "check",
    "data=generic",
    "stage=sft",
    f"data.demonstrations=[{{path: '{LONG}'}}]",
)
SCREENS = [
    *(Row(tried=f"`rlhf {words[0]} {words[1] if words[0] != 'data' else '...'}` at {columns} columns",
          play=narrow(columns, *words), has=(*has, r"\[fits: True\]"))
      for columns in (80, 140)
      for words, has in ((CHECK_LONG, (r"jsonl:21\b|:21\b",)), (("show", "small"), (r"Evaluation on",)),
                         (("run", "--help"), (r"pythia_410m",)))),
    shelled(f"{SMALL_RUN} name=small | cat", r"Evaluation on", prepare=finished,
            lacks=("\x1b",), tried="output into a pipe"),
    shelled("rlhf config | head -1; echo ${PIPESTATUS[0]}", r"^0$", tried="`rlhf config | head -1`"),
    shelled("PYTHONIOENCODING=ascii rlhf show small", r"Evaluation on", prepare=finished),
    shelled(f"LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {SMALL_RUN} name=small", r"Evaluation on",
            prepare=finished, tried="`LC_ALL=C rlhf run`"),
]  # fmt: skip


def completed(line: str, *has: str, prepare=None, **more) -> Row:
    """Return the trial of the completions that bash gets for this line."""

    def play(place):
        if prepare:
            prepare(place)
        return place.shell("rlhf -sc query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))

    return Row(tried=f"completion of `{line}`", play=play, has=has, one_line=False, **more)


COMPLETION = [
    completed("rlhf r", r"run"),
    completed("rlhf run model=", r"model=gpt2"),
    completed("rlhf run ppo.", r"ppo\.kl"),
    completed("rlhf show s", r"small", prepare=finished),
    completed("rlhf run stage=", r"stage=sft", r"stage=ppo"),
    completed("rlhf run ppo.kl.controller=", r"controller=adaptive"),
    completed("rlhf run --config-dir mine experiment=", r"experiment=try",
              prepare=lambda place: place.write("mine/experiment/try.yaml", "seed: 2\n")),
    completed("rlhf run parents.sft=ru", r"parents\.sft=runs/", prepare=finished),
    completed("rlhf run --", r"--config-dir"),
]  # fmt: skip


def many_bad(place):
    """Write ten bad rows of one kind."""
    place.write("my.jsonl", lines(demonstrations(), *['{"prompt": '] * 10))
    words = "data check data=generic stage=sft 'data.demonstrations=[{path: my.jsonl}]'"
    short = place.rlhf(*split(words))
    return short + place.rlhf(*split(words), "--all")


EVERY = [
    Row(tried="every bad row by file and line: `rlhf data check --all`", play=many_bad, code=(2,),
        has=tuple(rf"my\.jsonl:{line}\b" for line in range(21, 31)), one_line=False, quick=True),
    Row(tried="the same for programs: `rlhf data check --json`", code=(0,), quick=True,
        has=(r'"demonstrations"',),
        play=lambda place: (mine(place), place.rlhf("data", "check", "my.jsonl", "--json"))[1]),
]  # fmt: skip

ROWS_OF_STUDENT = [*HELP, *SHOW, *CONFIG, *OFFLINE, *EXPORT, *SCREENS, *COMPLETION, *EVERY]
