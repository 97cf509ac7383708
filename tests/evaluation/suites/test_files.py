"""Files of suites: what cannot be used is refused with file, line and remedy."""

import gzip

import pytest

from rlhf_cli.config.errors import UserError
from rlhf_cli.evaluation.suites.files import text_rows


def refusal(suite: str, path) -> str:
    with pytest.raises(UserError) as refused:
        text_rows(suite, str(path))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_rows_have_the_needed_columns_as_stripped_texts_with_their_places(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text(',sent_more,sent_less,bias_type\n4," A\n b","C",age\n\n5,D,E,race\n')
    (first, one), (second, other) = text_rows("crows_pairs", str(path))
    assert one == {"sent_more": "A\n b", "sent_less": "C", "bias_type": "age"}
    assert other["sent_more"] == "D"
    assert (first.line, second.line) == (2, 5)


def test_a_quote_in_a_tsv_and_a_compressed_file_are_read(tmp_path):
    path = tmp_path / "w.tsv.gz"
    with gzip.open(path, "wt") as file:
        file.write('sentid\tsentence\na.b.0.male.txt\tHe said "no.\n')
    ((_, row),) = text_rows("winogender", str(path))
    assert row["sentence"] == 'He said "no.'


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.csv", "prompt,kind\na,b\n",
         ["x.csv:1: no column type and no label (found 'prompt', 'kind');",
          "evaluation.suites.xstest needs prompt, type, label: rename the columns"]),
        ("x.jsonl", '{"prompt": "a", "type": "b", "label": "safe"}\n{"prompt": "a", "label": "safe"}\n',
         ["x.jsonl:2: no column type (found 'prompt', 'label');"]),
        ("x.json", '[{"prompt": "a", "type": "b"}]', ["x.json:1: no column label"]),
        ("x.csv", "prompt,type,label\na,b,safe\na,,safe\n",
         ["x.csv:3 (row 2): column type is empty, expected a text; fill it in, or take the row out"]),
        ("x.jsonl", '{"prompt": {"text": "a"}, "type": "b", "label": "safe"}\n',
         ["x.jsonl:1: column prompt is a dict, expected a text"]),
        ("x.csv", "prompt,type,label\na,b\n", ["x.csv:2 (row 1): wrong number of fields: found 2",
                                               "repair the row, or take it out"]),
        ("x.csv", 'prompt,type,label\n"a,b,safe\n', ["x.csv:2: a quote that opens in this row"]),
        ("x.csv", "prompt,type,label\n", ["x.csv has no rows; give evaluation.suites.xstest another"]),
        ("x.md", "prompt", ["x.md: unknown kind of file"]),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path, name, content, expected):
    (tmp_path / name).write_text(content)
    found = refusal("xstest", tmp_path / name)
    for words in expected:
        assert words in found


def test_a_missing_file_is_refused_with_its_key(tmp_path):
    path = tmp_path / "none.csv"
    assert refusal("truthfulqa", path) == (
        f"evaluation.suites.truthfulqa={path}: there is no such file; give the path of one"
    )
