"""C. An engineer's own parts: experiments, parents, keys of other trainers, sweeps, plans."""

import re
import shutil

from tests.trials import models
from tests.trials.place import SMALL
from tests.trials.row import Came, Row
from tests.trials.samples import comparisons, demonstrations, lines
from tests.trials.words import finished, planned, refused, refused_by_run, said, shelled

GLOBAL = "# @package _global_\n"
SMALL_RUN = "rlhf run " + " ".join(SMALL)


def own(text: str):
    """Return a function that writes mine/experiment/try.yaml."""
    return lambda place: place.write("mine/experiment/try.yaml", text)


def experiment(tried: str, text: str, *has: str, words: str = "experiment=try", **more) -> Row:
    return said(f"config sft --config-dir mine {words}", *has, tried=tried, prepare=own(text),
                **more)  # fmt: skip


RATE = "sft: {optim: {lr: 0.5}}\n"
EXPERIMENTS = [
    experiment("an experiment of one's own with --config-dir", GLOBAL + RATE, r"lr: 0\.5"),
    experiment("the same without `# @package _global_`", RATE, r"lr: 0\.5|_global_", code=(0, 2)),
    experiment("an experiment with an error of YAML", GLOBAL + "sft: [\n", r"try\.yaml.*line",
               code=(2,)),
    experiment("an experiment with an unknown key", GLOBAL + "sft: {optm: {lr: 1}}\n",
               r"did you mean sft\.optim", code=(2,)),
    experiment("experiment=tri", GLOBAL + RATE, r"did you mean experiment=try", code=(2,),
               words="experiment=tri"),
    said("config sft experiment=mine/experiment/try.yaml", r"lr: 0\.5", prepare=own(GLOBAL + RATE)),
    said("config sft experiment=try", r"--config-dir", prepare=own(GLOBAL + RATE), code=(2,),
         tried="`rlhf config experiment=try` without --config-dir"),
    said("run my.yaml sft.epochs=3 --cfg job -p sft", r"lr: 0\.5", r"epochs: 3",
         prepare=lambda place: place.write("my.yaml", RATE),
         tried="`rlhf run my.yaml sft.epochs=3 --cfg job`: one file as experiment"),
    said("config data --config-dir mine data=own", r"own\.jsonl",
         prepare=lambda place: place.write(
             "mine/data/own.yaml", "defaults: [generic]\ndemonstrations: [{path: own.jsonl}]\n"),
         tried="a data preset of one's own"),
]  # fmt: skip


def parent(tried: str, prepare, *has: str, code=(2,), words=("stage=ppo",), **more) -> Row:
    """Return the trial of PPO of a finished SFT with an external reward model."""

    def play(place):
        place.finished()
        given = prepare(place)
        came = place.command(
            "run", *SMALL, "name=other", "parents.sft=runs/small/sft", f"parents.rm={given}", *words
        )
        return came.told(ppo_made=(place.folder / "runs" / "other" / "ppo").exists())

    return Row(tried=tried, play=play, has=has, code=code, one_line=False, **more)


SFT_START = ("stage=ppo", "ppo.value_init=sft")
UNMADE = r"ppo made: False"
PARENTS = [
    parent("parents.rm: a classifier of plain transformers", models.classifier,
           r"classifier", r"ppo made: True", code=(0,)),
    parent("parents.rm with two labels", lambda place: models.classifier(place, labels=2),
           r"parents\.rm.*2", UNMADE, code=(1, 2)),
    parent("parents.rm without tokenizer", lambda place: models.classifier(place, tokens=False),
           r"classifier.*tokenizer|tokenizer.*classifier", UNMADE, code=(1, 2)),
    parent("parents.rm: a causal model", models.tiny, r"mine.*(score|head|reward)", UNMADE,
           code=(1, 2)),
    parent("parents.rm: the SFT model's folder", lambda place: "runs/small/sft/model",
           r"sft.*(score|head|reward)", UNMADE, code=(1, 2)),
    parent("parents.rm: the ppo stage of a run", lambda place: "runs/small/ppo",
           r"stage ppo, not rm|ppo.*rm", UNMADE),
    parent("parents.rm with another tokenizer, ppo.value_init=rm",
           lambda place: models.foreign_classifier(place, positions=512), r"ppo\.value_init=sft",
           UNMADE, code=(1, 2)),
    parent("the same with ppo.value_init=sft",
           lambda place: models.foreign_classifier(place, positions=512), r"tokenis|decoded",
           r"ppo made: True", code=(0,), words=SFT_START),
    parent("the same with a context of 80 tokens",
           lambda place: models.foreign_classifier(place, positions=80), r"tokenis|decoded|cut",
           r"ppo made: True", code=(0,), words=SFT_START),
    refused_by_run("stage=ppo", r"ppo needs sft.*stage=\[sft,rm,ppo\]"),
    refused_by_run("'stage=[ppo,sft]'", r"ppo needs rm"),
    Row(tried="a last optimizer step that blows up: `sft.optim.lr=1e30`", code=(1, 2),
        play=lambda place: place.command("run", *SMALL, "stage=sft", "sft.optim.lr=1e30",
                                         "sft.optim.grad_clip=null"),
        has=(r"finite|nan|inf", r"sft\.optim\.lr|learning rate"), lacks=(r"eval_loss +0\b",),
        one_line=False),
    Row(tried="the same in rm: `rm.optim.lr=1e30`", code=(1, 2), one_line=False,
        play=lambda place: (place.finished(), place.command(
            "run", *SMALL, "name=small", "stage=rm", "rm.optim.lr=1e30"))[1],
        has=(r"finite|nan|inf", r"rm\.optim\.lr|learning rate")),
    Row(tried="the reward model's samples show every response", code=(0,), one_line=False,
        play=lambda place: _samples(place), has=(r"as many shown as ranked: True",)),
]  # fmt: skip


def _samples(place) -> Came:
    """Run the reward model's stage with samples=2; return the displayed responses per prompt."""
    import json

    place.finished()
    came = place.command("run", *SMALL, "name=small", "stage=rm", "samples=2", "rm.epochs=2")
    path = place.folder / "runs" / "small" / "rm" / "samples.jsonl"
    rows = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    counts = [len(re.findall(r'"\d+: [+-]', json.dumps(row))) for row in rows]
    return came.told(as_many_shown_as_ranked=bool(counts) and min(counts) >= 4, responses=counts)


def plain_text(key: str, *has: str, **more) -> Row:
    """Return the trial of a key of another trainer."""
    return refused(f"{key}=8", *has, **more)


KEYS = [
    *(said(word, r"is no command", code=(2,), lacks=(r"did you mean rlhf (run|show|config|data)\?",))
      for word in ("chat", "generate", "plot", "push")),
    *(said(word, rf"rlhf run stage={stage}", code=(2,))
      for word, stage in (("sft", "sft"), ("ppo", "ppo"), ("evaluate", "evaluate"))),
    said("train", r"rlhf run", code=(2,)),
    said("run sft", r"stage=sft", code=(2,)),
    said("run --config my.yaml", r"my\.yaml|--config-dir", code=(2,)),
    refused("peft=lora", r"peft"),
    refused("model.lora=8", r"lora", lacks=(r"model\.lr",)),
    refused("load_in_4bit=true", r"load_in_4bit", lacks=("did you mean",)),
    plain_text("sft.num_train_epochs", r"sft\.epochs"),
    plain_text("num_train_epochs", r"sft\.epochs"),
    plain_text("max_length", r"data\.max_(prompt|response)_tokens", lacks=("alerts",)),
    plain_text("ppo.beta", r"ppo\.kl\.coef"),
    plain_text("beta", r"ppo\.kl\.coef"),
    plain_text("max_steps", r"max_steps"),
    plain_text("ppo.steps", r"ppo\.(total_episodes|max_steps)", lacks=(r"optim\.eps",)),
    plain_text("per_device_train_batch_size", r"batch\.(size|microbatch)"),
    plain_text("output_dir", r"runs_dir|name"),
    plain_text("report_to", r"tracking\.trackers"),
    plain_text("bf16", r"runtime\.dtype"),
    plain_text("ppo.lr", r"ppo\.optim\.lr"),
    plain_text("ppo.kl_coef", r"ppo\.kl\.coef"),
    plain_text("sft.warmup", r"sft\.schedule\.warmup"),
    plain_text("epochs", r"sft\.epochs"),
    plain_text("warmup", r"schedule\.warmup"),
    said("config sft sft.max_steps=5", r"max_steps: 5"),
]  # fmt: skip

SWEEPS = [
    shelled(f"{SMALL_RUN} stage=sft -m name=sw seed=1,2", r"seed=1", r"seed=2",
            tried="a sweep, `rlhf run -m seed=1,2`: both runs, side by side at the end"),
    shelled(f"{SMALL_RUN} stage=sft -m name=sw sft.epochs=0,1", r"sft\.epochs=0 must be positive",
            r"sft: done", code=(1, 2), tried="a sweep with one bad value"),
    shelled(f"cp -r runs/small runs/other; {SMALL_RUN} name=other ppo.kl.coef=0.3 &&"
            " rlhf show small other | tail -30", r"small.*other", r"ppo\.kl\.coef",
            prepare=finished, tried="`rlhf show A B`"),
    Row(tried="curves as pictures", play=None,
        needs="rlhf draws none; tracking.trackers=[tensorboard] does"),
    shelled(f"{SMALL_RUN} stage=sft tracking.trackers=[tensorboard] && ls -R runs", r"tfevents"),
    shelled(f"{SMALL_RUN} stage=sft tracking.trackers=[wandb]", r"pip install.*wandb|wandb",
            code=(0, 1, 2), tried="`tracking.trackers=[wandb]`, not installed"),
    shelled(f"{SMALL_RUN} stage=sft name=again sft.select_by=rm_score sft.epochs=2 "
            "sft.batching=packed sft.reward_model=runs/small/rm", r"epoch [12]", prepare=finished,
            tried="`sft.select_by=rm_score`, packed: which epoch was kept"),
    refused_by_run("sft.select_by=rm_score sft.reward_model=runs/nosuch", r"sft\.reward_model",
                   lacks=("huggingface",)),
    shelled(f"{SMALL_RUN} name=small stage=ppo ppo.ptx.coef=0.1 ppo.ema_decay=0.9 "
            "ppo.kl.controller=adaptive ppo.whiten_rewards=true", r"ppo: done", prepare=finished,
            tried="PPO-ptx, EMA, adaptive KL and whitening together"),
    shelled(f"{SMALL_RUN} name=small 'stage=[rloo,dpo,raft,sft_chosen,evaluate]' raft.prompts=8"
            " raft.rounds=1", r"RLOO", r"responses sampled", prepare=finished,
            tried="other methods of a finished run, and the table of all"),
    shelled(f"{SMALL_RUN} name=small stage=best_of_n best_of_n.prompts=24 best_of_n.samples=16 &&"
            f" {SMALL_RUN} name=again stage=sft 'data.demonstrations=[{{path: runs/small/best_of_n}}]'"
            " data.eval_fraction=0.5 && cp -r runs/small/best_of_n bad &&"
            " echo >> bad/data/demonstrations.jsonl &&"
            f" {SMALL_RUN} name=third stage=sft 'data.demonstrations=[{{path: bad}}]'",
            r"best of 16", r"sft: done", r"demonstrations\.jsonl is longer than written", code=(2,),
            prepare=finished, tried="best-of-n; SFT on its folder; on one whose data were changed"),
    shelled(f"{SMALL_RUN} name=two stage=[sft,rm,ppo] rm.members=2 reward.combine=worst",
            r"held-out accuracy of each member", r"ppo: done",
            tried="PPO on the lowest score of two reward models"),
    shelled(f"{SMALL_RUN} stage=sft runtime.num_processes=2", r"sft: done",
            tried="`runtime=cpu runtime.num_processes=2`"),
]  # fmt: skip


def own_data(place, bad: int = 0) -> tuple[str, ...]:
    """Words of a run on data of one's own: 40 demonstrations and comparisons, `bad` broken."""
    place.write("d.jsonl", lines(demonstrations()))
    place.write("c.jsonl", lines(comparisons(), *['{"prompt": '] * bad))
    limits = ("data.max_prompt_tokens=32", "data.max_response_tokens=24")
    return (
        "data=generic", "data.demonstrations=[{path: d.jsonl}]",
        "data.comparisons=[{path: c.jsonl}]", *limits,
    )  # fmt: skip


def no_comparisons(place) -> Came:
    words = own_data(place)
    came = place.command("run", *SMALL, *(w for w in words if "comparisons" not in w))
    return came.told(sft_made=(place.folder / "runs" / "default" / "sft").exists())


def raised(word: str):
    """Return a trial in which the reward model is refused for bad rows, then the advice followed."""

    def play(place):
        words = own_data(place, bad=8)
        place.command("run", *SMALL, *words, "name=small", "stage=sft")
        came = place.command("run", *SMALL, *words, "name=small", "stage=[sft,rm]")
        return came + planned(place, *words, "stage=[sft,rm]", word)

    return play


def plan(words: str, *has: str, change=None, **more) -> Row:
    """Return the trial of what a finished run would do again after a change."""

    def play(place):
        place.finished()
        if change:
            change(place)
        return planned(place, *([words] if words else []))

    return Row(tried=f"plan: `{words}`" if words else "plan: no change", play=play, has=has, **more)


KEPT = (r"sft: fresh", r"rm: fresh", r"ppo: fresh", r"evaluate: fresh")
ALL = (r"sft: run", r"rm: run", r"ppo: run", r"evaluate: run")
FROM_PPO = (r"sft: fresh", r"rm: fresh", r"ppo: run", r"evaluate: run")
PLANS = [
    Row(tried="stage=all without comparisons", play=no_comparisons, code=(2,), one_line=False,
        has=(r"data\.comparisons", r"sft made: False")),
    Row(tried="bad rows of the comparisons, then the advice: raise data.max_bad_fraction",
        play=raised("data.max_bad_fraction=0.5"), has=(r"data\.max_bad_fraction", r"sft: fresh")),
    Row(tried="the same, then data.strict=true", play=raised("data.strict=true"),
        has=(r"sft: fresh",)),
    plan("", *KEPT),
    plan("evaluation.prompts=7", r"ppo: fresh", r"evaluate: run"),
    plan("ppo.kl.coef=0.3", *FROM_PPO),
    plan("rm.optim.lr=1e-5", r"sft: fresh", r"rm: run", r"ppo: run"),
    plan("sft.optim.lr=1e-5", *ALL),
    plan("model.lr.policy=1e-5", *FROM_PPO),
    *(plan(word, *ALL) for word in ("data.template=chatml", "seed=2", "data.max_response_tokens=20")),
    *(plan(word, *KEPT) for word in (
        "tracking.every=3", "save.keep=3", "samples=2", "runtime.num_threads=2",
        "runtime.num_processes=2")),
    *(plan(word, r"sft: fresh") for word in ("tiny_world.noise=0.9", "tiny_world.prompts=40")),
    *(plan(word, *KEPT) for word in ("ppo.alerts.length=3", "rm.tie_param=1.7", "ppo.kl.target=9")),
    plan("runtime=auto", *KEPT),
    *(plan(word, r"sft: fresh", r"rm: fresh", kept=(r"sft: run",),
           defended="another grouping of the rows is equal only up to rounding")
      for word in ("sft.batch.microbatch=4",)),
    plan("model.gradient_checkpointing=true", *KEPT),
    Row(tried="the same model by a link, the same file as ./d.jsonl", has=(r"sft: fresh",),
        play=lambda place: _respelt(place)),
    Row(tried="the run folder moved, runs_dir=other", has=KEPT, play=lambda place: _moved(place)),
    Row(tried="a data file with other rows", has=(r"sft: fresh", r"rm: run .*data\.comparisons"),
        play=lambda place: _data_changed(place, lambda p: p.write_text(lines(comparisons(36))))),
    Row(tried="a data file that was renamed", has=(r"sft: fresh", r"rm: (fresh|run .*-> renamed)"),
        lacks=(r'\{"columns"',),
        play=lambda place: _data_changed(place, lambda p: p.rename(p.parent / "renamed.jsonl"),
                                         "data.comparisons=[{path: renamed.jsonl}]")),
    Row(tried="a data file that was deleted", has=(r"c\.jsonl",), code=(2,), one_line=False,
        play=lambda place: _data_deleted(place)),
]  # fmt: skip


def _respelt(place) -> Came:
    words = own_data(place)
    models.tiny(place)
    place.command("run", *SMALL, *words, "model=./mine", "name=small", "stage=sft")
    (place.folder / "link").symlink_to("mine")
    respelt = [word.replace("path: d.jsonl", "path: ./d.jsonl") for word in words]
    return planned(place, *respelt, "model=./link", "stage=sft")


def _moved(place) -> Came:
    place.finished()
    shutil.move(place.folder / "runs", place.folder / "other")
    return planned(place, "runs_dir=other")


def _data_changed(place, change, *words: str) -> Came:
    given = own_data(place)
    place.command("run", *SMALL, *given, "name=small", "stage=[sft,rm]")
    change(place.folder / "c.jsonl")
    return planned(place, *given, *words, "stage=[sft,rm]")


def _data_deleted(place) -> Came:
    words = own_data(place)
    place.command("run", *SMALL, *words, "name=small", "stage=[sft,rm]")
    (place.folder / "c.jsonl").unlink()
    return place.command("run", *SMALL, *words, "name=small", "stage=[sft,rm]")


ROWS_OF_ENGINEER = [*EXPERIMENTS, *PARENTS, *KEYS, *SWEEPS, *PLANS]
