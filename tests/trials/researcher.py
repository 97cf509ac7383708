"""B. A researcher's data and models."""

import json
import os

from tests.trials import models
from tests.trials.data import ASKED
from tests.trials.place import SMALL
from tests.trials.row import Came, Row
from tests.trials.samples import comparisons, demonstrations, lines
from tests.trials.words import planned

REAL = {
    "comparisons": [
        "comparisons/*.jsonl", "comparisons/*.jsonl.gz", "comparisons/*.parquet",
        "comparisons/*_k4.json", "comparisons/*_pref.json", "comparisons/sharegpt_dpo_en.json",
    ],
    "demonstrations": [
        "demonstrations/*.json", "demonstrations/*.jsonl", "demonstrations/t0_templates/*.jsonl",
    ],
    "prompts": [
        "prompts/alpaca_eval_805.json", "prompts/*.jsonl", "eval/xstest_prompts.csv",
        "eval/ifeval_540.jsonl",
    ],
}  # fmt: skip


def real_files(place) -> Came:
    """Check every real file with its role; return how many were checked and clean."""
    came, taken = Came(code=0, text=""), 0
    paths = [
        (role, path)
        for role, patterns in REAL.items()
        for pattern in patterns
        for path in sorted(place.shared.data.glob(pattern))
    ]
    for role, path in paths:
        found = _check(place, path, role=role)
        taken += "records kept" in found.text and found.code in (0, 2)
        came += Came(code=0, text=found.text)
    return came.told(every_file_read=taken == len(paths))


def _check(place, path, *words: str, role: str = "comparisons", source: str = "") -> Came:
    given = f"data.{role}=[{{path: '{path}'{', ' if source else ''}{source}}}]"
    return place.rlhf("data", "check", "data=generic", ASKED[role], given, *words)


def real(tried: str, name: str, *has: str, **more) -> Row:
    code = more.pop("code", (0,))
    return Row(
        tried=tried, needs="real data", has=has, code=code,
        play=lambda place: _check(place, place.shared.data / name, **more),
    )  # fmt: skip


ODD = [
    {"id": n, "meta": {"q": row["prompt"]}, "Best Answer": row["chosen"], "worst": row["rejected"]}
    for n, row in enumerate(comparisons())
]
MAPPED = "columns: {prompt: meta.q, chosen: Best Answer, rejected: worst}"


def odd(tried: str, source: str, *has: str, code=(0,), **more) -> Row:
    """Return the trial of comparisons with other names of columns."""

    def play(place):
        return _check(place, place.write("odd.jsonl", lines(ODD)).name, source=source)

    return Row(tried=tried, play=play, has=has, code=code, quick=True, **more)


DATA = [
    Row(tried="all real comparison, demonstration and prompt files", needs="real data",
        play=real_files, has=(r"every file read: True",)),
    real("HH as .jsonl.gz", "comparisons/hh_harmless_base.jsonl.gz", r"1179 rows read",
         r"hh_harmless_base\.jsonl\.gz:\d+"),
    real("HH as .parquet", "comparisons/hh_harmless_base.parquet", r"1179 rows read",
         r"hh_harmless_base\.parquet row \d+"),
    real("KTO rows under demonstrations", "comparisons/messages_kto_en.json", r"left out",
         role="demonstrations"),
    real("a tsv with columns by number and unescape", "demonstrations/flan_cot/qasc.tsv",
         r"552 rows read", role="demonstrations",
         source="columns: {prompt: 0, response: 1}, unescape: true"),
    real("crows_pairs.csv as prompts", "eval/crows_pairs.csv", r"columns", r"sent_more",
         role="prompts", code=(2,)),
    odd("columns inside others, with spaces", MAPPED, r"40 rows read, 40"),
    odd("the same without columns", "", r"Best Answer", code=(2,),
        lacks=(r"(?s)(Name them in.*){2}",)),
    odd("columns {prompt: meta.qq}", MAPPED.replace("meta.q", "meta.qq"),
        r"meta\.qq.*(meta\.q\b|holds q|q\b)", code=(2,)),
    odd("columns without prompt", "columns: {chosen: Best Answer, rejected: worst}", r"no prompt",
        code=(2,)),
]  # fmt: skip


def with_model(tried: str, make, *has: str, code=(2,), words=(), path="mine", **more) -> Row:
    """Return the trial of a model folder of `make(place)`, which is refused before training."""

    def play(place):
        make(place)
        came = place.command("run", *SMALL, f"model=./{path}", "stage=sft", *words)
        made = sorted(path.name for path in (place.folder / "runs").glob("*/*") if path.is_dir())
        return came.told(made=made or "nothing")

    return Row(tried=tried, play=play, has=has, code=code, one_line=False, **more)


MODELS = [
    with_model("a model folder of one's own, relative path", models.tiny, r"sft: done", code=(0,)),
    Row(tried="the same by its absolute path and as a preset of --config-dir", quick=True,
        has=(r"path: .*mine",),
        play=lambda place: (
            models.tiny(place),
            place.write("own/model/mymodel.yaml", "defaults: [generic]\npath: ./mine\n"),
            place.rlhf("config", "model", "--config-dir", "own", "model=mymodel"),
        )[2]),
    with_model("model=./nosuchdir", lambda place: None, r"nosuchdir.*(no such|does not exist|no f)",
               path="nosuchdir", lacks=("connect",)),
    with_model("weights in pytorch_model.bin", models.pickled, r"safetensors", code=(1, 2)),
    with_model("a model folder without tokenizer",
               lambda place: models.without(place, "tokenizer.json", "tokenizer_config.json"),
               r"mine.*tokenizer", r"model\.tokenizer", code=(1, 2)),
    with_model("a folder of something else", lambda place: place.write("mine/notes.txt", "hello"),
               r"mine.*(config\.json|no model|no tokenizer)", code=(1, 2)),
    with_model("model=config.json, a file", models.tiny, r"config\.json", code=(1, 2),
               path="mine/config.json"),
    with_model("a tokenizer folder as model", models.tokenizer_alone, r"mine.*(config\.json|model)",
               code=(1, 2)),
    with_model("a model that wants code of its own", models.custom_code,
               r"model\.trust_remote_code=true", code=(1, 2), lacks=("code of the folder ran",)),
    with_model("weights cut short", models.truncated, r"model\.safetensors|mine", code=(1, 2)),
    with_model("positions too few for prompt and response",
               lambda place: models.tiny(place, max_position_embeddings=20),
               r"max_prompt_tokens", r"\b20\b", code=(1, 2)),
    with_model("a classifier as model: no head for words", models.classifier, r"lm_head|head|causal",
               code=(1, 2), path="classifier"),
    with_model("a tokenizer larger than the embedding",
               lambda place: (models.tiny(place), models.other_tokenizer(place, size=2000)),
               r"tokenizer|embedding", code=(1, 2), words=("model.tokenizer=./words",)),
]  # fmt: skip


def saved(place, *, split: bool) -> str:
    """Write a folder with `datasets`."""
    from datasets import Dataset, DatasetDict

    table = Dataset.from_list(demonstrations())
    whole = DatasetDict({"train_sft": table}) if split else table
    whole.save_to_disk(str(place.folder / "saved"))
    return "saved"


def without_arrow(place) -> Came:
    path = place.folder / saved(place, split=False)
    for file in path.glob("*.arrow"):
        file.unlink()
    return _check(place, "saved", role="demonstrations")


def sources(*given: str):
    def play(place):
        place.write("a.jsonl", lines(demonstrations(20)))
        place.write("b.jsonl", lines(demonstrations(40)[20:]))
        listed = ", ".join(f"{{{source}}}" for source in given)
        return place.rlhf(
            "data", "check", "data=generic", "stage=sft", f"data.demonstrations=[{listed}]"
        )

    return play


def strict(place) -> Came:
    place.write("bad.jsonl", lines(demonstrations(), '{"prompt": '))
    return _check(place, "bad.jsonl", "data.strict=true", role="demonstrations")


SETS = [
    Row(tried="a folder saved by `datasets`", quick=True, has=(r"40 rows read, 40",),
        play=lambda p: _check(p, saved(p, split=False), role="demonstrations")),
    Row(tried="the same with splits, split named", quick=True, has=(r"40 rows read, 40",),
        play=lambda p: _check(p, saved(p, split=True), role="demonstrations",
                              source="split: train_sft")),
    Row(tried="the same with a wrong split", quick=True, code=(2,), has=(r"train_sft",),
        play=lambda p: _check(p, saved(p, split=True), role="demonstrations", source="split: x")),
    Row(tried="a saved folder whose .arrow is gone", quick=True, code=(2,), play=without_arrow,
        has=(r"saved.*(gone|missing|does not exist|lacks|no .arrow|not found|arrow)",)),
    Row(tried="two sources with weights", quick=True, has=(r"left out",),
        play=sources("path: a.jsonl, weight: 3", "path: b.jsonl, weight: 1")),
    Row(tried="a weight for one of two sources", quick=True, code=(2,), has=(r"weight",),
        play=sources("path: a.jsonl, weight: 3", "path: b.jsonl")),
    Row(tried="an `eval: true` source that overlaps with another", quick=True,
        has=(r"left out|held out",),
        play=sources("path: a.jsonl", "path: b.jsonl", "path: a.jsonl, eval: true")),
    Row(tried="the same file twice", quick=True, has=(r"(20|40) .*(cop|duplicate|twice|same)",),
        code=(0, 2), play=sources("path: a.jsonl", "path: a.jsonl", "path: b.jsonl")),
    Row(tried="`data.strict=true` with a bad row", quick=True, code=(2,), play=strict,
        has=(r"bad\.jsonl:21\b",), lacks=("check passed",)),
    Row(tried="`rlhf data check data=generic`, no source at all", quick=True, code=(2,),
        play=lambda place: place.rlhf("data", "check", "data=generic"),
        has=(r"no rows|no source|has no|empty",), lacks=("check passed",)),
]  # fmt: skip

EVIL = "{{ cycler.__init__.__globals__.os.system('touch made') }}"


def template(name: str, content: str | None):
    def play(place):
        if content is not None:
            place.write(name, content)
        place.write("ok.jsonl", lines(demonstrations()))
        came = _check(place, "ok.jsonl", f"data.template={name}", role="demonstrations")
        return came.told(made=(place.folder / "made").exists())

    return play


OWN = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}"
    "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def changed(words: tuple[str, ...], before, after):
    """Return a trial of a small SFT, then `after(place)` and a dry run of the same arguments."""

    def play(place):
        before(place)
        place.command("run", *SMALL, "name=small", "stage=sft", *words)
        after(place)
        return planned(place, "stage=sft", *words)

    return play


def edit(name: str, text: str):
    return lambda place: place.write(name, text)


def more_letters(place) -> None:
    path = place.folder / "words" / "tokenizer_config.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "padding_side": "left"}))


def own_template(place) -> None:
    place.write("ok.jinja", OWN)


def own_tokens(place) -> None:
    models.tiny(place)
    os.rename(models.tiny(place, "again"), place.folder / "words")


TEMPLATES = [
    Row(tried="data.template=missing.jinja", quick=True, code=(2,), has=(r"missing\.jinja",),
        play=template("missing.jinja", None)),
    Row(tried="data.template=bad.jinja, no Jinja", quick=True, code=(2,), has=(r"bad\.jinja",),
        play=template("bad.jinja", "{% for %}")),
    Row(tried="a template that calls os.system", quick=True, code=(2,),
        has=(r"evil\.jinja", r"made: False"), play=template("evil.jinja", EVIL)),
    Row(tried="ok.jinja edited, the same command again",
        play=changed(("data.template=ok.jinja",), own_template,
                     edit("ok.jinja", OWN.replace("<assistant>", "[assistant]"))),
        has=(r"sft: run .*template",)),
    Row(tried="the folder of model.tokenizer edited, the same command again",
        play=changed(("model=./mine", "model.tokenizer=./words"), own_tokens, more_letters),
        has=(r"sft: run .*(tokenizer|model)",)),
    Row(tried="a file notes.json added to the model folder",
        play=changed(("model=./mine",), models.tiny, edit("mine/notes.json", "{}")),
        has=(r"sft: fresh",), kept=(r"sft: run .*model",),
        defended="a file of an unknown name may be one that transformers reads; a README.md is not"),
    Row(tried="a README.md added to the model folder",
        play=changed(("model=./mine",), models.tiny, edit("mine/README.md", "a card")),
        has=(r"sft: fresh",)),
]  # fmt: skip

ROWS_OF_RESEARCHER = [*DATA, *MODELS, *SETS, *TEMPLATES]
