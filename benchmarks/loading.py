"""Rows per second of comparisons, ours beside `datasets.map`, one process each, A and B in turn.

    python benchmarks/loading.py 10000 [--repeat 3]

Made-up text of realistic length (about 1 kB per row), the tiny model's tokenizer and template. Both
sides render and tokenise a prompt with two responses and write Arrow files; ours checks the rows,
compares every response with the template's own text, and assigns sides as well. Peak memory is that
of the child process less what it takes after its imports.
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


def write(path: Path, num: int) -> None:
    """Write `num` comparisons of words that are drawn from 20,000."""
    rng = random.Random(0)
    words = ["".join(rng.choices(LETTERS, k=rng.randint(1, 3))) for _ in range(20_000)]

    def text(mean: int) -> str:
        return " ".join(rng.choices(words, k=max(3, int(rng.lognormvariate(0, 0.7) * mean))))

    with path.open("w") as file:
        for row in range(num):
            row = {"prompt": f"{row}: {text(30)}", "chosen": text(45), "rejected": text(45)}
            file.write(json.dumps(row) + "\n")


def ours(path: Path, folder: Path) -> None:
    from rlhf_cli.data.prepare import prepare
    from rlhf_cli.data.spec import spec_of

    cfg, renderer = setting(path)
    report(lambda: list(prepare(spec_of(cfg, "comparisons"), renderer, cfg.data, folder)))


def theirs(path: Path, folder: Path) -> None:
    import datasets

    _, renderer = setting(path)
    tokenizer = renderer.tokenizer

    def encode(rows: dict) -> dict:
        found = {}
        for side in ("chosen", "rejected"):
            texts = [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": asked}, {"role": "assistant", "content": said}],
                    tokenize=False,
                )
                for asked, said in zip(rows["prompt"], rows[side], strict=True)
            ]
            found[f"{side}_ids"] = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return found

    def mapped() -> None:
        rows = datasets.load_dataset(
            "json", data_files=str(path), split="train", cache_dir=str(folder)
        )
        rows.map(encode, batched=True, keep_in_memory=False)

    report(mapped)


def setting(path: Path):
    from hydra import compose, initialize_config_dir

    from rlhf_cli.config.compose import conf_dir, resolve
    from rlhf_cli.data.templates import build
    from rlhf_cli.models.load import load_tokenizer

    words = ["data=generic", "data.max_prompt_tokens=512", "data.max_response_tokens=512"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = resolve(compose("config", [*words, f"data.comparisons=[{{path: {path}}}]"]))
    renderer = build(load_tokenizer(cfg.model), template="auto", system=None, date="2026-01-01")
    return cfg, renderer


def report(work) -> None:
    import pyarrow.parquet  # noqa: F401 - both sides need it; the clock starts after the imports

    before, began, cpu = peak(), time.monotonic(), time.process_time()
    work()
    spent = {"wall": time.monotonic() - began, "cpu": time.process_time() - cpu}
    print(json.dumps(spent | {"bytes": peak() - before}))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("num", type=int, help="comparisons")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--child", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        with tempfile.TemporaryDirectory() as folder:
            {"ours": ours, "theirs": theirs}[asked.child](asked.file, Path(folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "comparisons.jsonl"
        write(path, asked.num)
        for name in ("ours", "theirs") * asked.repeat:
            words = [sys.executable, __file__, str(asked.num), "--child", name, "--file", str(path)]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            said = json.loads(done.stdout.splitlines()[-1])
            rates = [f"{asked.num / said[kind]:,.0f} rows/s {kind}" for kind in ("wall", "cpu")]
            print(f"{name:>6}  {'  '.join(rates)}  {said['bytes'] / asked.num:,.0f} bytes/row")


if __name__ == "__main__":
    main()
