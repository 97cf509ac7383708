"""C. What an engineer's machine does to a run: interruptions, damage, full disks, odd names."""

import os
import shutil
import signal
import subprocess
import time

from tests.trials.place import SMALL, until, working_in
from tests.trials.row import Came, Row
from tests.trials.words import planned, refused

LONG_SFT = ("stage=sft", "sft.epochs=6", "save.every_steps=2", "name=small")


def _steps(place) -> int:
    """Return the number of steps that the interrupted stage has logged."""
    path = place.folder / "runs" / "small" / ".sft.work" / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def _ended(place, process: subprocess.Popen) -> Came:
    out, err = process.communicate(timeout=180)
    time.sleep(1)  # a worker that was killed with its parent is gone by then
    return Came(code=process.returncode, text=out + err, errors=err).told(
        left_running=bool(working_in(place.folder))
    )


def stopped(*signals: int, at: int = 6, again: tuple[str, ...] = ()):
    """Return a trial that sends signals after the sixth step, then runs the same command again."""

    def play(place):
        process = place.start("run", *SMALL, *LONG_SFT)
        until(lambda: _steps(place) >= at or process.poll() is not None)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.1)
        came = _ended(place, process)
        told = place.command("run", *SMALL, *LONG_SFT, *again)
        return came.told(first_code=came.code) + told

    return play


GOES_ON = r"resuming from step \d+"
SIGNALS = [
    Row(tried="Ctrl-C in training, then the same command", play=stopped(signal.SIGINT),
        has=(r"saved at step \d+", r"first code: 130", GOES_ON, r"sft: done")),
    Row(tried="Ctrl-C twice at once", play=stopped(signal.SIGINT, signal.SIGINT),
        has=(r"first code: 130", GOES_ON)),
    Row(tried="SIGTERM, as timeout and schedulers send it", play=stopped(signal.SIGTERM),
        has=(r"saved at step \d+", GOES_ON)),
    Row(tried="stopped and continued (Ctrl-Z, fg), then Ctrl-C",
        play=stopped(signal.SIGSTOP, signal.SIGCONT, signal.SIGINT), has=(r"saved at", GOES_ON)),
    Row(tried="kill -9, then the same command", play=stopped(signal.SIGKILL),
        has=(r"first code: -9", GOES_ON, r"left running: False")),
    Row(tried="`resume=last_valid` after Ctrl-C", play=stopped(signal.SIGINT, again=("resume=last_valid",)),
        has=(GOES_ON,)),
    Row(tried="another configuration after Ctrl-C",
        play=stopped(signal.SIGINT, again=("sft.epochs=1",)),
        has=(r"sft\.epochs changed 6 -> 1", r"sft: done")),
    Row(tried="Ctrl-C while it starts", play=lambda place: _early(place), code=(130,),
        has=(r"left running: False",), one_line=False),
    Row(tried="a second command on the same run, `rlhf show` during a run",
        play=lambda place: _beside(place), one_line=False,
        has=(r"second code: 2", r"process \d+|pid", r"running.*sft|sft.*step")),
    Row(tried="a checkpoint that was damaged", play=lambda place: _damaged_checkpoint(place),
        code=(2,), has=(r"resume=last_valid", r"resume=never"), one_line=False),
    Row(tried="`rlhf run &` in a script, kill -INT", play=None,
        needs="shells switch SIGINT off in background jobs; kill -TERM saves"),
]  # fmt: skip


def _early(place) -> Came:
    process = place.start("run", *SMALL, *LONG_SFT)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    return _ended(place, process)


def _beside(place) -> Came:
    process = place.start("run", *SMALL, *LONG_SFT)
    until(lambda: _steps(place) >= 3 or process.poll() is not None)
    second = place.command("run", *SMALL, *LONG_SFT)
    shown = place.command("show", "small")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=180)
    return second.told(second_code=second.code) + shown


def _damaged_checkpoint(place) -> Came:
    process = place.start("run", *SMALL, *LONG_SFT)
    until(lambda: _steps(place) >= 6 or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=180)
    work = place.folder / "runs" / "small" / ".sft.work" / "resume"
    newest = max(work.glob("step-*/*.json"))
    newest.write_bytes(newest.read_bytes()[:-1])
    return place.command("run", *SMALL, *LONG_SFT)


def hurt(change, *words: str, show: bool = False):
    """Return a trial that damages a finished run, then runs it again or `rlhf show`."""

    def play(place):
        change(place.finished())
        if show:
            return place.rlhf("show", "small")
        return place.command("run", *SMALL, "name=small", *words)

    return play


def flip(run) -> None:
    path = run / "sft" / "model" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut(stage: str):
    def change(run) -> None:
        path = run / stage / "model" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:1000])

    return change


def edit_manifest(run) -> None:
    path = run / "sft" / "manifest.json"
    path.write_text(path.read_text().replace('"finished"', '"finishd"', 1))


def replace(place, *words: str) -> Came:
    return place.command("run", *SMALL, "name=small", *words)


DAMAGE = [
    Row(tried="a byte flipped in a finished model, `rlhf show`", quick=True,
        play=hurt(flip, show=True), has=(r"problem: .*was changed after it was written",)),
    Row(tried="the SFT model cut short, `stage=ppo`", play=hurt(cut("sft"), "stage=ppo"), code=(2,),
        has=(r"ppo needs sft", r"truncated: 1000 bytes"), one_line=False),
    Row(tried="config.json of the reward model deleted, `stage=ppo`", code=(2,), one_line=False,
        play=hurt(lambda run: (run / "rm" / "model" / "config.json").unlink(), "stage=ppo"),
        has=(r"config\.json",)),
    Row(tried="the reward model's folder deleted, `stage=ppo`", code=(2,), one_line=False,
        play=hurt(lambda run: shutil.rmtree(run / "rm"), "stage=ppo"), has=(r"ppo needs rm",)),
    Row(tried="manifest.json edited, `stage=ppo`", play=hurt(edit_manifest, "stage=ppo"),
        code=(2,), has=(r"manifest\.json",), one_line=False),
    Row(tried="manifest.json no JSON, `rlhf show`", quick=True,
        play=hurt(lambda run: (run / "sft" / "manifest.json").write_text("{"), show=True),
        has=(r"manifest\.json",)),
    Row(tried="a foreign file beside a finished stage's own", quick=True,
        play=hurt(lambda run: (run / "sft" / "notes.txt").write_text("x"), show=True),
        has=(r"sft",), lacks=(r"problem",)),
    Row(tried="a foreign file in a finished stage's model/", quick=True,
        play=hurt(lambda run: (run / "sft" / "model" / "special_tokens_map.json").write_text("{}"),
                  show=True), has=(r"problem: .*special_tokens_map\.json",)),
    Row(tried="metrics.jsonl deleted, `rlhf show`", quick=True,
        play=hurt(lambda run: (run / "sft" / "metrics.jsonl").unlink(), show=True),
        has=(r"metrics\.jsonl",)),
    Row(tried="`stage=evaluate` with a PPO model that is damaged", code=(2,), one_line=False,
        play=hurt(cut("ppo"), "stage=evaluate", "evaluation.prompts=7"), has=(r"ppo",)),
    Row(tried="`stage=evaluate` after ppo.kl.coef changed", code=(0, 2), one_line=False,
        play=hurt(lambda run: None, "stage=evaluate", "ppo.kl.coef=0.3"), has=(r"ppo.*stale|ppo",),
        lacks=(r"without ppo \(stale",)),
    Row(tried="`parents.sft=runs/small/sft stage=sft`", code=(2,), one_line=False,
        play=hurt(lambda run: None, "stage=sft", "parents.sft=runs/small/sft"),
        has=(r"parents\.sft",)),
    Row(tried="another working folder: parents.sft=../runs/small/sft",
        play=lambda place: _elsewhere(place), has=(r"sft: given|rm: run",)),
]  # fmt: skip


def _elsewhere(place) -> Came:
    place.finished()
    inner = type(place)(folder=place.folder / "inner", shared=place.shared)
    inner.folder.mkdir()
    return planned(inner, "parents.sft=../runs/small/sft", "stage=rm")


def read_only(place) -> Came:
    (place.folder / "runs").mkdir(mode=0o500)
    came = replace(place, "stage=sft")
    (place.folder / "runs").chmod(0o700)
    return came


def small_disk(place) -> Came:
    """Run with the folder on a disk of six megabytes, then on a larger one."""
    disk = place.folder / "runs"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        return Came(code=1, text="[mounted: no, only root may]")
    try:
        came = replace(place, *LONG_SFT)
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        return came.told(first_code=came.code, mounted="yes") + replace(place, *LONG_SFT)
    finally:
        subprocess.run(["umount", str(disk)], check=False)


PLACES = [
    Row(tried="runs_dir that cannot be made", code=(1, 2), one_line=False,
        play=lambda place: replace(place, "stage=sft", "runs_dir=/proc/runs"),
        has=(r"/proc/runs",)),
    Row(tried="a file in the place of runs_dir", code=(1, 2), one_line=False,
        play=lambda place: (place.write("runs", "x"), replace(place, "stage=sft"))[1],
        has=(r"runs.*(is a file|no folder|not a folder|another)",)),
    Row(tried="runs_dir that may not be written", code=(1, 2),
        play=read_only if os.geteuid() else None, has=(r"runs",),
        needs="needs a user that is not root", one_line=False),
    Row(tried="a disk that is full at a save, then with space again", play=small_disk,
        code=(0, 1), has=(r"(space|mounted: no)",), one_line=False),
    Row(tried="a run from the root folder: `rlhf config`", quick=True, has=(r"name: default",),
        play=lambda place: type(place)(
            folder=place.folder.root and type(place.folder)("/"), shared=place.shared
        ).rlhf("config")),
    *(refused(f"name={name}", r"name") for name in ("tb/sft", "x" * 260)),
]  # fmt: skip

ROWS_OF_BREAKAGE = [*SIGNALS, *DAMAGE, *PLACES]
