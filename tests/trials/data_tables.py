"""D. Malformed and odd data: tables, parquet, places, keys of a source."""

import gzip
from pathlib import Path

from tests.trials.data import bad_row, check, kept
from tests.trials.row import Row
from tests.trials.samples import columns, csv, demonstrations, lines

GOOD = lines(demonstrations())
BOTH = (0, 2)
DOUBLE = ["a?,x,y", "b?,x,y"]
TWICE = "prompt,response,response\n" + "".join(
    f"{row['prompt']},{row['response']},no\n" for row in demonstrations()
)


def no_header() -> str:
    """Return the table without its first line."""
    return csv().partition("\n")[2]


TABLES = [
    bad_row("a row of one field, line 22", "ragged.csv", csv("only one", at=21),
            "wrong number of fields"),
    check("a quote that is never closed, line 22", "unclosed.csv", csv('a?,"never closed'),
          r"unclosed\.csv:22", code=BOTH),
    check("two columns named response", "duphdr.csv", TWICE, r"duphdr\.csv.*response", code=2),
    check("semicolons in a csv", "semi.csv", csv(header="prompt;response", mark=";"),
          r"40 rows? read, 40|delimiter|separat", code=BOTH),
    check("tabs in a .csv", "tab.csv", csv(header="prompt\tresponse", mark="\t"),
          r"40 rows? read, 40|delimiter|separat", code=BOTH),
    check("no header and no columns given", "nohdr.csv", no_header(), r"header", code=2),
    check("commas in a .tsv", "comma.tsv", csv(), r"40 rows? read, 40|delimiter|separat",
          code=BOTH),
    check("a NUL, line 22", "nul.csv", csv("a\0?,b"), r"nul\.csv:22|41 rows? read", code=BOTH),
    check("columns {prompt: 0, response: 7}", "badnum.csv", csv(), r"7", r"badnum\.csv", code=2,
          source="columns: {prompt: 0, response: 7}"),
    check("columns {prompt: nosuch}", "badnum.csv", csv(), r"nosuch", code=2,
          source="columns: {prompt: nosuch}"),
    check("columns {promt: prompt}", "badnum.csv", csv(), r"promt.*did you mean prompt", code=2,
          source="columns: {promt: prompt}"),
    check("columns by number and by name", "badnum.csv", csv(), r"number", code=2,
          source="columns: {prompt: 0, response: response}",
          lacks=(r"40 rows are bad", r"bad +4[01]")),
]  # fmt: skip


def parquet(**named):
    """Return a function that writes these columns, forty good ones by default."""

    def write(path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(named or columns(demonstrations())), path)

    return write


def altered(change):
    """Return a function that writes good parquet and then changes its bytes."""

    def write(path: Path) -> None:
        parquet()(path)
        path.write_bytes(change(path.read_bytes()))

    return write


def _flipped(data: bytes) -> bytes:
    half = len(data) // 3
    return data[:half] + bytes(byte ^ 0xFF for byte in data[half : half + 64]) + data[half + 64 :]


NUMBERED = parquet(prompt=list(range(60)), response=["b"] * 60)
BINARY = parquet(prompt=[b"\xff%d" % i for i in range(40)], response=["b"] * 40)

PARQUET = [
    check("good parquet", "ok.parquet", parquet(), kept(40)),
    check("truncated", "trunc.parquet", altered(lambda data: data[:-100]), r"trunc\.parquet",
          code=2),
    check("JSON lines named .parquet", "fake.parquet", GOOD, r"fake\.parquet", code=2),
    check("0 bytes", "empty.parquet", b"", r"empty\.parquet", code=2),
    check("flipped bytes", "flip.parquet", altered(_flipped), r"flip\.parquet", code=2),
    check("a column of integers", "int.parquet", NUMBERED, "not a string",
          r"int\.parquet row 1\b", code=2),
    check("a column of bytes", "bin.parquet", BINARY, "not a string", r"bin\.parquet row 1\b",
          code=2),
    check("gzipped parquet", "ok.parquet.gz", altered(gzip.compress), kept(40)),
]  # fmt: skip


def placed(tried: str, path: str, prepare, *has: str, code=2, **more) -> Row:
    """Return the trial of a path that is no plain file, which `prepare(folder)` makes."""
    row = check(tried, path, None, *has, code=code, **more)

    def play(place):
        prepare(place.folder)
        return row.play(place)

    return Row(tried=row.tried, play=play, has=has, code=row.code, lacks=row.lacks, quick=True)


def nothing(folder: Path) -> None:
    """Leave the path without a file."""


def shards(folder: Path) -> None:
    (folder / "dir").mkdir()
    for number in (0, 1):
        rows = demonstrations()[number * 20 : number * 20 + 20]
        (folder / "dir" / f"shard{number}.jsonl").write_text(lines(rows))


def mixed_pattern(folder: Path) -> None:
    (folder / "ok.jsonl.gz").write_bytes(gzip.compress(GOOD.encode()))
    parquet()(folder / "ok.parquet")
    altered(gzip.compress)(folder / "ok.parquet.gz")


def bad_pattern(folder: Path) -> None:
    mixed_pattern(folder)
    (folder / "ok.parquet").write_bytes(b"no parquet")


KNOWN = r"known: \.json, \.jsonl"
MISSING = r"does not exist"
PLACES = [
    placed("a folder of jsonl files", "dir", shards, r"40 rows? read, 40", code=0),
    placed("a bad row in a folder of jsonl files", "dir",
           lambda folder: (shards(folder), (folder / "dir" / "shard1.jsonl").write_text(
               lines(demonstrations()[20:], '{"prompt": ', at=11))),
           r"shard1\.jsonl:11\b", code=0),
    placed("an empty folder", "emptydir", lambda folder: (folder / "emptydir").mkdir(),
           r"emptydir.*(no data|holds no|no file|empty)", lacks=(r"files Check",)),
    placed("missing file", "nosuch.jsonl", nothing, MISSING),
    placed("missing file, upwards", "../../etc/nosuch.jsonl", nothing, MISSING),
    placed("a pattern that matches nothing", "nothing*.jsonl", nothing,
           r"nothing\*\.jsonl.*(does not exist|no file|matches)"),
    placed("a pattern over .jsonl.gz, .parquet, .parquet.gz", "ok.*", mixed_pattern,
           r"120 rows? read", code=0),
    placed("the same where the parquet is broken", "ok.*", bad_pattern, r"ok\.parquet\b[^.]"),
    placed("a file without extension", "noext",
           lambda folder: (folder / "noext").write_text(GOOD), KNOWN),
    placed("xml", "data.xml", lambda folder: (folder / "data.xml").write_text("<a/>"), KNOWN),
    placed("xlsx", "data.xlsx", lambda folder: (folder / "data.xlsx").write_bytes(b"PK"), KNOWN),
    placed("a name with space, umlaut, brackets", "w eird näme [1].jsonl",
           lambda folder: (folder / "w eird näme [1].jsonl").write_text(GOOD), kept(40), code=0),
    placed("a name with a star", "star*.jsonl",
           lambda folder: (folder / "star*.jsonl").write_text(GOOD), kept(40), code=0),
    placed("a link to itself", "loop.jsonl",
           lambda folder: (folder / "loop.jsonl").symlink_to("loop.jsonl"), r"loop\.jsonl"),
    placed("a dangling link", "dangling.jsonl",
           lambda folder: (folder / "dangling.jsonl").symlink_to("gone"), r"dangling\.jsonl"),
    placed("/dev/null", "/dev/null", nothing, r"/dev/null"),
]  # fmt: skip

ONCE = (r"(?s)(Name them in.*){2}",)


def keyed(tried: str, source: str, *has: str, code=2, **more) -> Row:
    return check(tried, "bom.jsonl", b"\xef\xbb\xbf" + GOOD.encode(), *has, source=source,
                 code=code, **more)  # fmt: skip


KEYS = [
    keyed("format: mesages", "format: mesages", r"did you mean messages"),
    keyed("format: kwise", "format: kwise", r"format=kwise", r"holds no demonstrations"),
    keyed("format: messages demanded, rows of prompt and response", "format: messages",
          r"messages", r"bom\.jsonl", lacks=ONCE),
    keyed("limit: 0", "limit: 0", r"limit=0 .*must be positive"),
    keyed("weight: -1", "weight: -1", r"weight=-1.* must be positive"),
    keyed("weight: nan", "weight: nan", r"weight=nan .*(must be|finite)"),
    keyed("colums: {}", "colums: {}", r"did you mean columns"),
    check("tiny_world:prompts under demonstrations", "tiny_world:prompts", None,
          r"belongs under data\.prompts", code=2),
    check("tiny_world:demos", "tiny_world:demos", None, r"tiny_world:demos",
          r"tiny_world:demonstrations", code=2),
    Row(tried="demonstrations: path: null", quick=True, code=(2,),
        has=(r"data\.demonstrations\[0\]",),
        play=lambda place: place.rlhf("data", "check", "data=generic", "stage=sft",
                                      "data.demonstrations=[{path: null}]")),
    keyed("prompt and response rows under comparisons", "", r"bom\.jsonl", r"chosen",
          role="comparisons", lacks=ONCE),
    keyed("prompt and response rows under prompts", "", r"40 rows? read, 40", r"note +40 a response beside",
          role="prompts", code=0),
]  # fmt: skip

ROWS_OF_TABLES = [*TABLES, *PARQUET, *PLACES, *KEYS]
