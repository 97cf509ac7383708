"""The header of a run: its precision, and the tasks of a mixture."""

import pytest

from rlhf_cli.report import header
from tests.support.tasks import make, settings


@pytest.mark.parametrize(
    "flags, dtype, device, expected",
    [
        ("flags : sse2 avx512_bf16 amx_bf16", "auto", "cpu", "float32 (AMX: runtime.dtype"),
        ("flags : sse2 avx512_bf16", "auto", "cpu", "float32 (AVX512-BF16: runtime.dtype"),
        ("flags : sse2", "auto", "cpu", "float32"),
        ("flags : amx_bf16", "float32", "cpu", "float32"),
        ("flags : amx_bf16", "bfloat16", "cpu", "bfloat16"),
        (
            "flags : sse2",
            "bfloat16",
            "cpu",
            "bfloat16 (not a unit of this processor: runtime.dtype",
        ),
        ("flags : sse2", "bfloat16", "cuda (H100)", "bfloat16"),
        ("Features : neon", "bfloat16", "cpu", "bfloat16"),
        ("flags : amx_bf16", "auto", "mps", "float32"),
        ("flags : amx_bf16", "auto", "cuda (H100)", "bfloat16"),
    ],
)
def test_describe_precision_names_the_dtype_and_what_the_processor_supports(
    tmp_path, monkeypatch, flags, dtype, device, expected
):
    (tmp_path / "cpuinfo").write_text(flags + "\n")
    monkeypatch.setattr(header, "CPUINFO", tmp_path / "cpuinfo")
    found = header.describe_precision(dtype, device)
    assert found.startswith(expected)
    assert ("faster" in found) == ("runtime.dtype" in expected)


def test_describe_precision_names_only_the_dtype_without_cpuinfo(tmp_path, monkeypatch):
    monkeypatch.setattr(header, "CPUINFO", tmp_path / "missing")
    assert header.describe_precision("auto", "cpu") == "float32"


def test_describe_tasks_names_the_tasks_and_why_others_are_left_out(tmp_path):
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
