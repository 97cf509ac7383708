"""`rlhf report`: the file that it writes, what it refuses, and that nothing of a run becomes markup."""

import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from rlhf_cli.cli import main
from rlhf_cli.report.page import LIBRARIES, libraries, render
from rlhf_cli.report.study_charts import charts_of
from tests.support.run_folders import finish
from tests.support.studies import HOSTILE, study

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TABLE = {"title": HOSTILE, "rows": {HOSTILE: {"score": [0.5, 0.4, 0.6]}}, "notes": [HOSTILE]}
INVISIBLE = "\ud800 \x00 \u2029"


class Parsed(HTMLParser):
    """The tags of a page with their attributes, and the text of the first element of each kind."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: dict[str, str] = {}
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        name = attributes.get("id", tag)
        self.texts[name] = self.texts.get(name, "") + data


def hostile_page(more: str = "") -> tuple[dict, str]:
    rows = [{"name": "command", "text": HOSTILE + more, "code": True}]
    table = {"kind": "table", "title": HOSTILE, "columns": [[HOSTILE]]}
    table["rows"] = [{"head": [HOSTILE, HOSTILE], "cells": [[HOSTILE]]}]
    blocks = [{"kind": "facts", "rows": rows}, table, {"kind": "notes", "lines": [HOSTILE]}]
    sections = [
        {"title": HOSTILE, "folded": False, "blocks": blocks},
        {"title": "charts", "folded": False, "blocks": charts_of(study())},
        {"title": HOSTILE, "folded": True, "blocks": [table]},
    ]
    content = {"title": HOSTILE + more, "sections": sections}
    return content, render(content)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with the runs one and two in runs/."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        finish(tmp_path / "runs" / name)
        finish(tmp_path / "runs" / name, "evaluate", table=TABLE)
    return tmp_path


def test_whatever_names_hold_stays_data():
    content, page = hostile_page(INVISIBLE)
    parsed = Parsed(page)
    assert json.loads(parsed.texts["content"]) == content
    assert {tag for tag, _ in parsed.tags} == {
        "html", "head", "meta", "title", "style", "body", "main", "noscript", "script",
    }  # fmt: skip
    assert sum(tag == "script" for tag, _ in parsed.tags) == 2 + len(libraries())
    assert "\u2028" not in page and "\u202e" not in page
    assert parsed.texts["title"].startswith("</script><img src=x onerror=alert(1)>\\u2028{{7*7}}")
    page.encode()


def test_the_policy_admits_what_has_the_nonce_and_nothing_else():
    _, page = hostile_page()
    parsed = Parsed(page)
    policy = next(a["content"] for tag, a in parsed.tags if tag == "meta" and "http-equiv" in a)
    nonce = re.search(r"script-src 'nonce-(\w{64})';", policy)[1]
    assert policy.startswith("default-src 'none';") and "img-src 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy
    for tag, attributes in parsed.tags:
        is_code = tag == "style" or (tag == "script" and "type" not in attributes)
        assert attributes.get("nonce") == (nonce if is_code else None)
        assert not {"src", "href"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on") or name == "style"]


def test_the_same_content_gives_the_same_page_and_another_another_nonce():
    assert hostile_page()[1] == hostile_page()[1]
    one, other = (
        re.search(r"nonce-(\w+)", render({"title": name, "sections": []}))[1] for name in "ab"
    )
    assert one != other


def test_numbers_that_are_not_finite_are_null():
    page = render({"title": "", "sections": [float("nan"), float("inf"), 0.5]})
    assert json.loads(Parsed(page).texts["content"])["sections"] == [None, None, 0.5]


def test_the_libraries_are_those_that_were_published():
    files = [one["file"] for one in libraries()]
    assert files == ["d3.min.js", "plot.umd.min.js"]
    for one in libraries():
        data = (LIBRARIES / one["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == one["sha256"], one["file"]
        assert one["version"] in data[:80].decode() and one["version"] in one["source"]
        assert b"</script" not in data and b"<!--" not in data
        assert "Permission to use, copy" in (LIBRARIES / one["license"]).read_text()
    known = {*files, *(one["license"] for one in libraries()), "libraries.json"}
    assert {path.name for path in LIBRARIES.iterdir()} == known
    assert sum(path.stat().st_size for path in LIBRARIES.iterdir()) < 1_000_000


def test_the_page_of_one_run_is_in_its_folder(here, capsys):
    assert main(["report", "one"]) == 0
    assert capsys.readouterr().out == "runs/one/report.html\n"
    page = (here / "runs/one/report.html").read_text()
    content = json.loads(Parsed(page).texts["content"])
    assert content["title"] == "one"
    assert content["sections"][1]["blocks"][0]["rows"][0]["head"] == ["score"]
    assert main(["show", "one"]) == 0, "the page is no problem of the run"
    assert "problem" not in capsys.readouterr().out


def test_the_page_of_several_runs_is_beside_them(here, capsys):
    assert main(["report", "one", "two", "one"]) == 0
    assert capsys.readouterr().out == "runs/report.html\n"
    content = json.loads(Parsed((here / "runs/report.html").read_text()).texts["content"])
    assert content["title"] == "2 runs"
    assert main(["report", "two", "--out", "page.html", "--runs-dir=runs"]) == 0
    assert capsys.readouterr().out == "page.html\n" and (here / "page.html").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "rlhf report needs a run: rlhf report RUN"),
        (["on"], "there is no run 'on': did you mean one?"),
        (["one", "--ot", "x"], "rlhf report has no option --ot: did you mean --out?"),
        (["one", "--out"], "rlhf report: argument --out: expected one argument"),
        (["runs"], "runs is a folder of runs: give one of them (begun, one, torn, two)"),
        (["empty"], "empty holds no run"),
        (["begun"], "runs/begun has no evaluation: rlhf run name=begun stage=evaluate makes one"),
        (["torn"], "runs/torn has no evaluation: runs/torn/evaluate/tasks.json is truncated"),
        (["one", "elsewhere/far"], "these runs are in different folders: give the page's file by"),
        (["one", "--out", "no/page.html"], "no/page.html cannot be written (No such file"),
        (
            ["one", "--out", "empty"],
            "--out empty is a folder: name a file in it, empty/report.html",
        ),
    ],
)
def test_what_cannot_be_reported_is_one_line(here, capsys, words, expected):
    finish(here / "runs/begun")
    finish(finish(here / "runs/torn"), "evaluate", tasks={"rows": []})
    (here / "runs/torn/evaluate/tasks.json").write_text("{")
    finish(finish(here / "elsewhere/far"), "evaluate", table=TABLE)
    (here / "empty").mkdir()
    assert main(["report", *words]) != 0
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and expected in shown.err
    assert not list(here.rglob(".*.tmp"))


def test_tasks_that_are_none_of_ours_are_refused(here, capsys):
    finish(finish(here / "runs/odd"), "evaluate", tasks={"rows": [{}]})
    assert main(["report", "odd"]) == 2
    assert "tasks.json is no table of this program" in capsys.readouterr().err


@pytest.mark.slow
def test_a_browser_draws_every_chart_and_has_no_complaint(tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium here")
    content, page = hostile_page()
    path = tmp_path / "page.html"
    path.write_text(page)
    options = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        "--enable-logging=stderr --virtual-time-budget=3000 --window-size=390,2000 --dump-dom"
    )
    shown = subprocess.run(
        [browser, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()],
        cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=60,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "CONSOLE" not in shown.stderr, shown.stderr
    drawn = shown.stdout.partition("<script")[0]
    charts = content["sections"][1]["blocks"]
    assert drawn.count("<svg") == drawn.count("<figcaption") == len(charts) == 6
    assert "<img" not in drawn and drawn.count("&lt;/script&gt;&lt;img") > 10
    assert "0.91" in drawn and "[0.88, 0.94]" in drawn
