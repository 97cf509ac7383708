"""D. Malformed and odd data: characters, compressed files, JSON."""

import gzip
import json
import time

from tests.trials.data import bad_row, check, kept
from tests.trials.row import Row
from tests.trials.samples import chats, columns, demonstrations, lines

GOOD = lines(demonstrations())
ROWS = demonstrations()
ONE = {"prompt": "Where does the fox sleep?", "response": "In its den."}
PACKED = gzip.compress(GOOD.encode(), mtime=0)
STRANGE = "a\u2028b\u2029c\u0085d"
MARKED = json.dumps({"prompt": f"What? {STRANGE}", "response": STRANGE}, ensure_ascii=False)
LATIN = lines(ROWS, '{"prompt": "Wo schlaf\xf9n sie?", "response": "Hier."}').encode("latin-1")
BOTH = (0, 2)  # a bad row among good ones, or the whole file refused: either names the place


def damaged(data: bytes, at: int, by: bytes) -> bytes:
    """The same bytes with some of them replaced."""
    return data[:at] + by + data[at + len(by) :]


def huge(place):
    """Check one row of ten million characters within a time limit of this process."""
    place.write("huge.jsonl", lines(ROWS, {"prompt": "word " * 2_000_000, "response": "yes"}))
    start = time.process_time()
    came = place.rlhf(
        "data", "check", "data=generic", "stage=sft", "data.demonstrations=[{path: huge.jsonl}]"
    )
    return came.told(in_time="yes" if time.process_time() - start < 10 else "no")


CHARACTERS = [
    check("UTF-8 BOM at the start", "bom.jsonl", b"\xef\xbb\xbf" + GOOD.encode(), kept(40)),
    check("UTF-16 file", "utf16.jsonl", GOOD.encode("utf-16"), r"utf16\.jsonl.*UTF-16", code=2),
    bad_row("latin-1 at line 21", "latin1.jsonl", LATIN, r"iconv", code=BOTH),
    bad_row(
        "raw NUL byte in a string, line 21", "nul.jsonl",
        lines(ROWS, '{"prompt": "a", "response": "b\0c"}'), r"not valid JSON",
    ),
    check(
        "escaped \\u0000 in a text, line 21", "nulesc.jsonl",
        lines(ROWS, r'{"prompt": "a?", "response": "b\u0000c"}'), kept(41),
    ),
    bad_row(
        "lone surrogate, line 21", "surr.jsonl",
        lines(ROWS, r'{"prompt": "a?", "response": "b\ud800c"}'), r"surrogate|alone is no text",
    ),
    check("CRLF line ends", "crlf.jsonl", GOOD.replace("\n", "\r\n"), kept(40)),
    check("CR-only line ends", "cr.jsonl", GOOD.replace("\n", "\r"), kept(40)),
    check("raw U+2028, U+2029, U+0085 in a string", "u2028.jsonl", lines(ROWS, MARKED), kept(41)),
    check("the same JSON lines named .json", "u2028.json", lines(ROWS, MARKED), kept(41)),
    check(
        "an array with U+2028", "u2028arr.json",
        "[" + ",\n".join([*GOOD.splitlines(), MARKED]) + "]", kept(41),
    ),
    Row(
        tried="demonstrations: a line of 10 MB, line 21 (`huge.jsonl`)", play=huge,
        has=(r"huge\.jsonl:21|prompt cut", r"in time: yes"), code=BOTH,
    ),
]  # fmt: skip

PACKED_FILES = [
    check("good gz", "ok.jsonl.gz", PACKED, kept(40)),
    check(
        "truncated gz", "trunc.jsonl.gz", PACKED[:-60], r"trunc\.jsonl\.gz.*cut", code=BOTH,
        lacks=("must be UTF-8",),
    ),
    check(
        "corrupt gz body", "corrupt.jsonl.gz", damaged(PACKED, len(PACKED) // 2, b"\xff" * 40),
        r"corrupt\.jsonl\.gz.*(gzip|damaged|corrupt)", code=BOTH, lacks=("must be UTF-8",),
    ),
    check(
        "gz with a wrong checksum", "crc.jsonl.gz", damaged(PACKED, len(PACKED) - 8, b"\1\2\3\4"),
        r"crc\.jsonl\.gz.*(gzip|damaged|checksum|corrupt)", code=BOTH, lacks=("must be UTF-8",),
    ),
    check(
        "plain text named .gz", "notgz.jsonl.gz", GOOD, r"notgz\.jsonl\.gz.*(gzip|\.gz)",
        code=BOTH, lacks=("must be UTF-8",),
    ),
    check(
        "gz named .jsonl", "isgz.jsonl", PACKED, r"isgz\.jsonl.*gz|40 rows? read", code=BOTH,
        lacks=("must be UTF-8",),
    ),
    *(
        check(f"{end} file", name, b"x", rf"{name}: .*\.jsonl", code=2)
        for end, name in ((".zst", "x.jsonl.zst"), (".bz2", "x.jsonl.bz2"), (".zip", "x.zip"))
    ),
]  # fmt: skip

EMPTY = [
    check(
        tried,
        name,
        content,
        r"no rows?\b|is empty|not valid JSON",
        code=2,
        lacks=("check passed",),
    )
    for tried, name, content in (
        ("0 bytes", "empty.jsonl", ""),
        ("only blank lines", "blank.jsonl", "\n \n\n"),
        ("0 bytes", "empty.json", ""),
        ("an empty array", "emptyarr.json", "[]"),
        ("0 bytes", "empty.csv", ""),
        ("a header alone", "hdr.csv", "prompt,response\n"),
    )
]

ARRAY = json.dumps(ROWS, indent=1)
JSON_FILES = [
    bad_row("JSON cut, line 21", "broken.jsonl", lines(ROWS, '{"prompt": '), r"not valid JSON"),
    bad_row("a Python dict, line 21", "single.jsonl", lines(ROWS, str(ONE)), r"not valid JSON"),
    bad_row(
        "42, null and a list, lines 21-23", "scalar.jsonl", lines(ROWS, "42", "null", "[1]"),
        r"not an object", code=2,
    ),
    bad_row(
        "a bare string, line 21, among prompt and response", "strline.jsonl",
        lines(ROWS, '"just text"'), code=BOTH,
    ),
    bad_row(
        "100,000 nested lists, line 21", "deep.jsonl",
        lines(ROWS, '{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}"), r"nest",
        code=BOTH,
    ),
    bad_row(
        "an integer of 6000 digits, line 21", "bigint.jsonl",
        lines(ROWS, '{"prompt": "a?", "response": "b", "id": ' + "7" * 6000 + "}"), code=BOTH,
    ),
    bad_row(
        "duplicate keys, line 21", "dup.jsonl",
        lines(ROWS, '{"prompt": "a?", "response": "b", "prompt": "c?", "response": "d"}'),
        r"twice|duplicate|same key|two", code=BOTH,
    ),
    check(
        "two arrays, one after the other", "twoarr.json", ARRAY + "\n" + json.dumps([ONE] * 10),
        r"50 rows? read|twoarr\.json:\d+", code=BOTH,
    ),
    check(
        "text after the array", "trail.json", ARRAY + "\nthe rest", r"trail\.json:\d+", code=BOTH
    ),
    check("an array without commas", "nocomma.json", f"[{GOOD}]", kept(40) + "|nocomma", code=BOTH),
    check(
        "an array with a trailing comma", "trailcomma.json", ARRAY[:-2] + ",\n]",
        kept(40) + r"|trailcomma\.json:\d+", code=BOTH,
    ),
    check("an array cut short", "cutarr.json", ARRAY[:-90], r"cutarr\.json:\d+", code=2),
    check(
        "an object with lists train and test", "split.json",
        json.dumps({"train": ROWS, "test": ROWS[:5]}), r"train, test", r"split", code=2,
    ),
    check(
        "a single conversation", "one.json", json.dumps(chats(1)[0]),
        r"\b1 rows? read, [01] records? kept|one\.json", code=BOTH, lacks=(r"\b[2-9] rows? read",),
    ),
    check(
        "columns, each a list (pandas orient=list)", "colwise.json", json.dumps(columns(ROWS)),
        r"40 rows? read, 40|colwise\.json.*column", code=BOTH, lacks=("response is list",),
    ),
    *(
        check(
            "pandas' own to_json: column, index, value", "pandas.json",
            json.dumps({n: dict(enumerate(v)) for n, v in columns(ROWS).items()}),
            r"40 rows? read, 40|pandas\.json.*column", role=role, code=BOTH,
            lacks=(r"\b80 (rows|bad)",),
        )
        for role in ("demonstrations", "prompts")
    ),
]  # fmt: skip

ROWS_OF_TEXT = [*CHARACTERS, *PACKED_FILES, *EMPTY, *JSON_FILES]
