"""The header says which precision was chosen, and what else the processor offers."""

import pytest

from rlhf_cli.report import header
from tests.support.tasks import make, settings


@pytest.mark.parametrize(
    "flags, dtype, device, said",
    [
        ("flags : sse2 avx512_bf16 amx_bf16", "auto", "cpu", "float32 (AMX: runtime.dtype"),
        ("flags : sse2 avx512_bf16", "auto", "cpu", "float32 (AVX512-BF16: runtime.dtype"),
        ("flags : sse2", "auto", "cpu", "float32"),
        ("flags : amx_bf16", "float32", "cpu", "float32"),
        ("flags : amx_bf16", "bfloat16", "cpu", "bfloat16"),
        ("flags : amx_bf16", "auto", "mps", "float32"),
        ("flags : amx_bf16", "auto", "cuda (H100)", "bfloat16"),
    ],
)
def test_precision_is_named(tmp_path, monkeypatch, flags, dtype, device, said):
    (tmp_path / "cpuinfo").write_text(flags + "\n")
    monkeypatch.setattr(header, "CPUINFO", tmp_path / "cpuinfo")
    found = header.describe_precision(dtype, device)
    assert found.startswith(said)
    assert ("faster" in found) == ("runtime.dtype" in said)


def test_without_cpuinfo_nothing_is_promised(tmp_path, monkeypatch):
    monkeypatch.setattr(header, "CPUINFO", tmp_path / "missing")
    assert header.describe_precision("auto", "cpu") == "float32"


def test_the_tasks_of_a_mixture_are_named_with_what_left_it_and_why(tmp_path):
    files = [
        make(tmp_path, name=name, clusters=[cluster])
        for name, cluster in (("rte", "nli"), ("mrpc", "paraphrase"), ("sst", "sentiment"))
    ]
    assert header.describe_tasks(settings(*files, hold_out=["nli"])) == [
        "1 trained on: sst",
        "without rte: held out",
        "without mrpc: of cluster paraphrase, exclusive with nli, which is held out",
    ]
    assert header.describe_tasks(settings(*files, train=["sst"])) == [
        "1 trained on: sst",
        "without 2 others, which are not in tasks.train",
    ]
