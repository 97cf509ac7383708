"""Responses judged one by one: pairs where both labels are there, examples where they are good."""

import pytest

from rlhf_cli.config.schema import Source
from rlhf_cli.data.formats.table import convert
from rlhf_cli.data.read_records import paired
from rlhf_cli.data.records import BadRow, Filtered, Labelled, Message, Origin
from tests.support.data_sources import survey

ASK = (Message("user", "Why?"),)


def turns(prompt, response, label):
    said = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return {"messages": said, "label": label}


def columns(prompt, response, label):
    return {"prompt": prompt, "completion": response, "label": label}


def records(row, role="comparisons"):
    return convert(row, Origin("a.jsonl", 1, 1), Source(path="a.jsonl"), role)[0]


@pytest.mark.parametrize("form", [turns, columns])
def test_a_judged_response_is_read_as_it_is(form):
    origin = Origin("a.jsonl", 1, 1)
    assert records(form("Why?", "Because.", True)) == [Labelled(ASK, "Because.", True, origin)]
    assert records(form("Why?", "Dunno.", False)) == [Labelled(ASK, "Dunno.", False, origin)]
    assert records(form("Why?", "Dunno.", False), "prompts")[0].messages == ASK


@pytest.mark.parametrize("form", [turns, columns])
def test_only_a_good_response_is_an_example(form):
    (found,) = records(form("Why?", "Because.", "True"), "demonstrations")
    assert found.messages == (*ASK, Message("assistant", "Because."))
    with pytest.raises(Filtered, match="labelled as a bad response"):
        records(form("Why?", "Dunno.", "False"), "demonstrations")


def test_both_labels_of_a_prompt_make_one_comparison():
    def row(prompt, response, good, line):
        return Labelled((Message("user", prompt),), response, good, Origin("a", line, line))

    bad = BadRow(Origin("a", 9, 9), "not valid JSON")
    rows = [row("Why?", "a", False, 1), row("Who?", "b", True, 2), bad]
    rows += [row("Why?", "c", True, 3), row("Why?", "d", False, 4)]
    first, pair, alone = paired(rows)
    assert first is bad
    assert pair.prompt == ASK
    assert pair.responses == ("a", "c", "d")
    assert (set(pair.better), pair.ties) == ({(1, 0), (1, 2)}, ())
    assert pair.origin.line == 1
    assert alone.origin.line == 2
    assert isinstance(alone.error(), Filtered)


def test_a_file_of_judged_responses_is_a_file_of_comparisons(write, config):
    rows = [columns(f"q{i}", text, text == "a") for i in range(40) for text in "ab"]
    path = write("kto.jsonl", [*rows, columns("alone", "a", True)])
    report = survey(config(comparisons=[path]), "comparisons").report
    assert (report.num_kept, report.num_bad, report.left_out.total()) == (40, 0, 1)
