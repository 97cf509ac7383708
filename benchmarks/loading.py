"""Rows per second of comparisons, compared with `datasets.map`, one process each, in turn.

    python benchmarks/loading.py 10000 [--repeat 3] [--length 0.2] [--only ours]

Made-up text of realistic length (about 1 kB per row; --length: a share of it), the tiny model's
tokenizer and template. Both sides render and tokenise a prompt with two responses and write Arrow
files; ours also checks the rows, compares every response with the text of the template, and assigns
splits. Ours is what a stage does: the parent reads the records, its worker tokenises them; `again` is
a second start of both, up to the first batch; `check` is `rlhf data check`. Memory is the peak of a
process above what it has after its imports.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LETTERS = [a + b for a in "bcdfghklmnprst" for b in "aeiou"]


def write(path: Path, num: int, length: float) -> None:
    """Write `num` comparisons of words that are drawn from 20,000."""
    rng = random.Random(0)
    words = ["".join(rng.choices(LETTERS, k=rng.randint(1, 3))) for _ in range(20_000)]

    def text(mean: int) -> str:
        return " ".join(
            rng.choices(words, k=max(3, int(rng.lognormvariate(0, 0.7) * mean * length)))
        )

    with path.open("w") as file:
        for row in range(num):
            row = {"prompt": f"{row}: {text(30)}", "chosen": text(45), "rejected": text(45)}
            file.write(json.dumps(row) + "\n")


def parent(path: Path, folder: Path) -> None:
    from rlhf_cli.stages.reading import cache_of, records_of, spec_of

    cfg = config(path, folder)
    spec = spec_of(cfg, "comparisons")

    def work() -> None:
        with cache_of(cfg, spec) as cache:
            records_of(spec, cache, silent=True).report.enforce()

    report(work)


def worker(path: Path, folder: Path) -> None:
    from rlhf_cli.runtime.world import World
    from rlhf_cli.stages.preparing import prepared
    from rlhf_cli.stages.reading import spec_of

    cfg = config(path, folder)
    renderer, world = renderer_of(cfg), World()
    report(lambda: prepared(spec_of(cfg, "comparisons"), renderer, cfg, world).train[:64])


def check(path: Path, folder: Path) -> None:
    from rlhf_cli.pipeline.data_check import check_all

    cfg = config(path, folder)
    renderer = renderer_of(cfg)
    report(lambda: check_all(cfg, renderer))


def datasets_map(path: Path, folder: Path) -> None:
    import datasets

    tokenizer = renderer_of(config(path, folder)).tokenizer

    def encode(rows: dict) -> dict:
        found = {}
        for side in ("chosen", "rejected"):
            texts = [
                tokenizer.apply_chat_template(
                    [
                        {"role": "user", "content": question},
                        {"role": "assistant", "content": response},
                    ],
                    tokenize=False,
                )
                for question, response in zip(rows["prompt"], rows[side], strict=True)
            ]
            found[f"{side}_ids"] = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return found

    def load_and_map() -> None:
        rows = datasets.load_dataset(
            "json", data_files=str(path), split="train", cache_dir=str(folder)
        )
        rows.map(encode, batched=True, keep_in_memory=False)

    report(load_and_map)


def config(path: Path, folder: Path):
    from hydra import compose, initialize_config_dir

    from rlhf_cli.config.compose import resolve
    from rlhf_cli.config.keys import conf_dir

    words = ["data=generic", "data.max_prompt_tokens=512", "data.max_response_tokens=512"]
    words += [f"runs_dir={folder}", f"data.comparisons=[{{path: {path}}}]"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return resolve(compose("config", words))


def renderer_of(cfg):
    from rlhf_cli.data.templates import build
    from rlhf_cli.models.load import load_tokenizer

    return build(load_tokenizer(cfg.model), template="auto", system=None, date="2026-01-01")


def report(work) -> None:
    import pyarrow.parquet  # noqa: F401 - both sides need it; the clock starts after the imports

    before, began, cpu = peak(), time.monotonic(), time.process_time()
    work()
    spent = {"wall": time.monotonic() - began, "cpu": time.process_time() - cpu}
    print(json.dumps(spent | {"bytes": peak() - before}))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


CHILDREN = {"parent": parent, "worker": worker, "check": check, "datasets": datasets_map}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("num", type=int, help="comparisons")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--length", type=float, default=1.0)
    parser.add_argument("--only", choices=("ours", "datasets", "check"))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, path, folder = options.child
        CHILDREN[name](Path(path), Path(folder))
        return
    rounds = [options.only] if options.only else ["ours", "datasets"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "comparisons.jsonl"
        write(path, options.num, options.length)
        print(f"{options.num:,} comparisons of {path.stat().st_size / options.num:,.0f} bytes")
        for name in rounds * options.repeat:
            with tempfile.TemporaryDirectory() as kept:
                measure(name, options.num, path, Path(kept))


def measure(name: str, num: int, path: Path, folder: Path) -> None:
    if name != "ours":
        print_rates(name, num, [run_child(name, path, folder)])
        return
    first, second = ([run_child(step, path, folder) for step in ("parent", "worker")] for _ in "12")
    print_rates("ours", num, first)
    for step, figures in zip(("parent", "worker"), first, strict=True):
        print_rates(f"  {step}", num, [figures])
    seconds_again = " and ".join(f"{figures['wall']:.2f} s" for figures in second)
    kept = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"   again  {seconds_again}  kept: {kept / num:,.0f} bytes/row", flush=True)


def run_child(name: str, path: Path, folder: Path) -> dict:
    words = [sys.executable, __file__, "0", "--child", name, str(path), str(folder)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def print_rates(name: str, num: int, found: list[dict]) -> None:
    rates = [
        f"{num / sum(figures[kind] for figures in found):,.0f} rows/s {kind}"
        for kind in ("wall", "cpu")
    ]
    peak_bytes = max(figures["bytes"] for figures in found)
    print(f"{name:>8}  {'  '.join(rates)}  {peak_bytes >> 20:,} MiB", flush=True)


if __name__ == "__main__":
    main()
