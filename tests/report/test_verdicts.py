"""Verdicts below the closing table."""

from rlhf_cli.artifacts.results import RESULTS, Results, write_results
from rlhf_cli.report.verdicts import print_verdicts

ONE = {
    "policy": "PPO", "stage": "ppo", "verdict": "unclear", "text": "the score rose",
    "evidence": ["score +1.0"], "symptoms": [], "doubt": ["SFT: short"], "decide": "a judge",
}  # fmt: skip


def test_each_verdict_has_its_sentence_and_evidence(tmp_path, capsys):
    missing = ["the judge does not answer"]
    write_results(tmp_path, Results(verdicts=[ONE, ONE | {"best": "best: 8"}], missing=missing))
    print_verdicts(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    block = ["PPO: unclear", "  the score rose", "  score +1.0", "  to doubt: SFT: short"]
    block.append("  to decide: a judge")
    assert lines == [*block, *block, "  best: 8", "  the judge does not answer"]


def test_results_of_another_version_are_named(tmp_path, capsys):
    print_verdicts(tmp_path)
    assert capsys.readouterr().out == ""
    (tmp_path / RESULTS).write_text('{"version": 0}')
    print_verdicts(tmp_path)
    assert "is of version 0" in capsys.readouterr().out
