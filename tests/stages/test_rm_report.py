"""What is printed of a reward model's report."""

from types import SimpleNamespace

import torch

from rlhf_cli.evaluation.comparisons import ScoredRanking, report
from rlhf_cli.stages.rm_report import print_report
from tests.support.tabular import Silent

CFG = SimpleNamespace(data=SimpleNamespace(demonstrations=["x"]))


class Notes(Silent):
    def note(self, text):
        self.rows.append(text)


def lines_on(*groups: dict) -> list[str]:
    """Return the lines printed on prompts of these groups, a right pair each."""
    rankings = [
        ScoredRanking(
            scores=torch.tensor([1.0, 0.0]),
            lengths=torch.tensor([1, 2]),
            better=[(0, 1)],
            ties=[],
            groups=one,
        )
        for one in groups
    ]
    recorder = Notes()
    print_report(recorder, CFG, report(rankings), [0.5])
    return recorder.rows[3:]


def test_a_split_is_printed_only_where_it_has_several_groups():
    a, b = {"source": "a.jsonl", "annotator": "1"}, {"source": "b.jsonl", "annotator": "1"}
    assert lines_on(a, a) == []
    interval = "100.0% (34.2% to 100.0%)"  # Wilson's, 2 of 2
    assert lines_on(b, a, b, b | {"source": "a.jsonl"}) == [
        f"source a.jsonl: accuracy {interval} on 2 pairs",
        f"source b.jsonl: accuracy {interval} on 2 pairs",
    ]


def test_of_many_groups_the_largest_are_printed_on_a_line_each():
    names = ["Chat\nHard", "Chat\nHard", *"zyxwvuts"]
    lines = lines_on(*({"subset": name} for name in names))
    assert [line.partition(":")[0] for line in lines[:-1]] == [
        "subset Chat\\nHard", "subset s", "subset t", "subset u", "subset v", "subset w",
    ]  # fmt: skip
    assert lines[-1] == "3 more of subset in report.json"
