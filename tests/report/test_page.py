"""`rlhf report`: the file that it writes, what it refuses, and that nothing of a run becomes markup."""

import hashlib
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser

import pytest

from rlhf_cli.artifacts import store
from rlhf_cli.cli import main
from rlhf_cli.report.page import LIBRARIES, libraries, render, write_page
from rlhf_cli.report.page_content import content_of
from tests.support.browser import Drawn, Listener, draw
from tests.support.run_files import answer, figure, run_of
from tests.support.run_folders import finish
from tests.support.studies import HOSTILE, study

TABLE = {"title": HOSTILE, "rows": {HOSTILE: {"score": [0.5, 0.4, 0.6]}}, "notes": [HOSTILE]}
INVISIBLE = "\ud800 \x00 \u2029"
EMPTY = {"title": "", "about": [], "problems": [], "sections": []}


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


def hostile_page(text: str = HOSTILE, answers: Sequence[dict] = ()) -> tuple[dict, str]:
    """Return content and page of a run in which every name and problem is this text."""
    run = run_of(
        HOSTILE.replace("/", ""),
        stages={"sft": {"data": {HOSTILE: {HOSTILE: "1"}}, "finished": text}},
        rows={"SFT": {"score": [0.5, 0.4, 0.6]}, text: {"score": [0.5, 0.4, 0.6], "kl": [1, 1, 1]}},
        figures=[
            figure(text, part=text, policy=who, judge=text, group=text) for who in ("a", text)
        ],
        verdicts=[{"policy": text, "verdict": text, "text": text, "evidence": [text]}],
        missing=[text],
        problems=[text],
        metrics={"sft": [{"step": 1, "sft/loss": 0.5}, {"step": 2, "sft/loss": 0.4}]},
        watch={"sft": [{"iteration": text, "score": 0.5, "kl": 1.0}]},
        reward_report={"accuracy_by_source": {text: [0.5, 0.4, 0.6]}},
        answers=answers or [answer(text, text, response=text, score=0.5, tokens=5)],
    )
    content = content_of([run], study())
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
    content, page = hostile_page(HOSTILE + INVISIBLE)
    parsed = Parsed(page)
    assert json.loads(parsed.texts["content"]) == content
    assert {tag for tag, _ in parsed.tags} == {
        "html", "head", "meta", "title", "style", "body", "main", "noscript", "script",
    }  # fmt: skip
    assert sum(tag == "script" for tag, _ in parsed.tags) == 2 + len(libraries())
    assert "\u2028" not in page and "\u202e" not in page
    assert parsed.texts["title"].startswith("<script><img src=x onerror=alert(1)>\\u2028{{7*7}}")
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
    one, other = (re.search(r"nonce-(\w+)", render(EMPTY | {"title": name}))[1] for name in "ab")
    assert one != other


def test_numbers_that_are_not_finite_are_null():
    page = render(EMPTY | {"sections": [float("nan"), float("inf"), 0.5]})
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
    titles = [section["title"] for section in content["sections"]]
    assert titles == ["Stages and their cost", "Closing table", "Lineage"]
    assert main(["show", "one"]) == 0, "the page is no problem of the run"
    assert "problem" not in capsys.readouterr().out


def test_the_page_of_several_runs_is_beside_them(here, capsys):
    assert main(["report", "one", "two", "one"]) == 0
    assert capsys.readouterr().out == "runs/report.html\n"
    content = json.loads(Parsed((here / "runs/report.html").read_text()).texts["content"])
    assert content["title"] == "2 runs"
    assert main(["report", "two", "--out", "page.html", "--runs-dir=runs"]) == 0
    assert capsys.readouterr().out == "page.html\n" and (here / "page.html").is_file()


def test_a_run_without_an_evaluation_and_a_damaged_one_have_a_page(here, capsys):
    finish(here / "runs/begun")
    finish(finish(here / "runs/torn"), "evaluate", tasks={"rows": []})
    (here / "runs/torn/evaluate/tasks.json").write_text("{")
    found = {}
    for name in ("begun", "torn"):
        assert main(["report", name]) == 0
        found[name] = json.loads(
            Parsed((here / f"runs/{name}/report.html").read_text()).texts["content"]
        )
    assert found["begun"]["problems"] == []
    assert "runs/torn/evaluate/tasks.json is truncated" in found["torn"]["problems"][0]
    assert [one["title"] for one in found["torn"]["sections"]] == [
        "Stages and their cost",
        "Lineage",
    ]


def test_the_page_after_a_run_hashes_no_file_again(here, monkeypatch):
    monkeypatch.setattr(store, "file_hash", None)
    path = write_page(here / "runs/one", ("sft", "evaluate"))
    assert path == here / "runs/one/report.html" and "Closing table" in path.read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "rlhf report needs a run: rlhf report RUN"),
        (["on"], "there is no run 'on': did you mean one?"),
        (["one", "--ot", "x"], "rlhf report has no option --ot: did you mean --out?"),
        (["one", "--out"], "rlhf report: argument --out: expected one argument"),
        (["runs"], "runs is a folder of runs: give one of them (one, torn, two)"),
        (["empty"], "empty holds no run"),
        (["torn"], "runs/torn has no finished stage: runs/torn/sft/config.json is truncated"),
        (["one", "elsewhere/far"], "these runs are in different folders: give the page's file by"),
        (["one", "--out", "no/page.html"], "no/page.html cannot be written (No such file"),
        (
            ["one", "--out", "empty"],
            "--out empty is a folder: name a file in it, empty/report.html",
        ),
    ],
)
def test_what_cannot_be_reported_is_one_line(here, capsys, words, expected):
    finish(here / "runs/torn")
    (here / "runs/torn/sft/config.json").write_text("{")
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


# Uses the browser of answers, and leaves what it has seen in an element of its own.
PROBE = """
const seen = () => [...document.querySelectorAll(".asked .text")].map((one) => one.textContent);
const [search] = document.querySelectorAll(".controls input");
const [, filter, order] = document.querySelectorAll(".controls select");
const results = {};
function choose(select, i) {
  select.selectedIndex = i;
  select.dispatchEvent(new Event("change"));
  return seen();
}
for (const select of [order, filter]) {
  for (const [i, option] of [...select.options].entries()) results[option.text] = choose(select, i);
  choose(select, 0);
}
document.querySelector(".pages button:last-child").click();
results.next = seen();
search.value = "NEEDLE";
search.dispatchEvent(new Event("input"));
setTimeout(() => {
  results.search = seen();
  search.value = "";
  choose(order, 0);
  for (const each of document.querySelectorAll("details")) each.open = true;
  const made = document.createElement("pre");
  made.id = "probe";
  made.textContent = JSON.stringify(results);
  document.body.append(made);
}, 500);
"""
SCORES = [0.3, -1.0, 2.0, 0.4, 0.9, 0.1, -0.2, 1.5, 0.45, 0.55, 0.0, 1.1]  # of PPO; SFT has 0.5


def hostile_answers(port: int) -> list[dict]:
    """Return two policies' answers to twelve prompts; what models wrote tries to run and to connect."""
    url = f"http://127.0.0.1:{port}/x"
    texts = [
        f"</script><script src={url}></script><script>document.title = 1</script>",
        f"<img src={url} onerror=alert(1)><iframe src={url}></iframe>",
        "one\u2028two\u2029three",
        "\u200f\u202eright to left\u202c",
        "{{7*7}}${7*7}",
        "\ud800 alone",
        "100 kB " * 14_500,
        "a needle",
        *["plain"] * 4,
    ]
    return [
        answer(
            model,
            f"{i:02} {text[:200]}",
            response=f"{model}: {text}",
            finished=i % 4 != 0,
            score=SCORES[i] if model == "PPO" else 0.5,
            judges={"check": i % 3 / 2},
        )
        for model in ("SFT", "PPO")
        for i, text in enumerate(texts)
    ]


@pytest.mark.slow
def test_a_browser_shows_hostile_texts_and_runs_none_of_them(tmp_path):
    listener = Listener()
    answers = hostile_answers(listener.port)
    content, page = hostile_page(answers=answers)
    nonce = re.search(r"nonce-(\w+)", page)[1]
    probed = page.replace("</body>", f'<script nonce="{nonce}">{PROBE}</script></body>')
    document, complaints = draw(probed, tmp_path)
    drawn = Drawn(document)
    assert "CONSOLE" not in complaints, complaints
    assert listener.connections == 0 and not {"img", "iframe"} & drawn.tags.keys()
    assert drawn.tags["script"] == 3 + len(libraries())
    blocks = [block for section in content["sections"] for block in section["blocks"]]
    charts = [block for block in blocks if block["kind"] in ("bars", "dots", "lines")]
    assert len(charts) > 8 and drawn.tags["figcaption"] == len(charts)
    assert drawn.tags["svg"] == len(charts)
    found = json.loads(drawn.texts["probe"][0])
    prompts = [one["prompt"].replace("\ud800", "\ufffd") for one in answers[:12]]
    responses = [one["response"].replace("\ud800", "\ufffd") for one in answers]
    shown = [text for i in range(10) for text in (prompts[i], responses[i], responses[i + 12])]
    assert drawn.texts["text"] == shown
    _check_the_browser_of_answers(found, prompts)


def _check_the_browser_of_answers(found: dict[str, list[str]], prompts: list[str]) -> None:
    """Check what was shown with each order and filter, of PPO's answers against SFT's."""

    def first(key):
        return [prompts[i] for i in sorted(range(12), key=key)[:10]]

    def those(passes):
        return [prompts[i] for i in range(12) if passes(i)][:10]

    assert found["worst score first"] == first(lambda i: SCORES[i])
    assert found["best score first"] == first(lambda i: -SCORES[i])
    assert found["largest change of score from SFT"] == first(lambda i: -abs(SCORES[i] - 0.5))
    assert found["largest loss of score to SFT"] == first(lambda i: SCORES[i])
    assert found["did not end"] == those(lambda i: i % 4 == 0)
    assert found["scored higher than SFT"] == those(lambda i: SCORES[i] > 0.5)
    assert found["next"] == prompts[10:] and found["search"] == [prompts[7]]
