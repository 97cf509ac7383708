"""The pages of documentation: their paths, functions and links exist, and their lines are short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WRITTEN_BY_COMMANDS = {"trials.md"}
PAGES = sorted(
    {*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")}
    - {ROOT / "docs" / name for name in WRITTEN_BY_COMMANDS}
)
FILE = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|toml|yaml|sh))`")
NAME = re.compile(r"`(?:\w+\.)?(\w+)`")


def texts(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def find(name: str, page: Path) -> Path | None:
    """Return the file of a path that starts at the root, the package or the folder of the page."""
    places = (ROOT / name, ROOT / "rlhf_cli" / name, page.parent / name)
    return next((place for place in places if place.exists()), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_exist(page):
    named = {name for name in FILE.findall(texts(page)) if not name.startswith("mine/")}
    assert not [name for name in sorted(named) if find(name, page) is None]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_have_targets(page):
    links = re.findall(r"\]\(([^)\s]+)\)", texts(page))
    local = [link.partition("#") for link in links if "://" not in link]
    for path, _, anchor in local:
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_lines_of_a_page_are_short(page):
    """Prose has at most 100 characters per line; tables, code and generated lines may have more."""
    text = re.sub(r"<!-- (\w+):? begin -->.*?<!-- \1:? end -->", "", texts(page), flags=re.DOTALL)
    text = text.partition("<!-- The rest of this page is generated")[0]
    lines = [line for line in text.splitlines() if not line.startswith(("|", "    "))]
    assert not [line for line in lines if len(line) > 100 and "](" not in line]


def test_the_functions_of_a_ppo_iteration_are_in_the_files_that_the_map_names():
    page = ROOT / "docs" / "architecture.md"
    rows = re.findall(
        r"^\| [^|]+\| (`[^|]+`[^|]*) \| (`[^|]+\.py`[^|]*) \|", page.read_text(), re.M
    )
    assert len(rows) > 20
    for functions, files in rows:
        named = re.findall(r"`([\w./]+\.py)`", files)
        folder = (ROOT / "rlhf_cli" / named[0]).parent
        sources = [find(name, page) or folder / name for name in named]
        text = "\n".join(source.read_text() for source in sources)
        for name in NAME.findall(functions):
            assert re.search(rf"(def|class) {name}\b|\b{name}[:=]", text), f"{name} in {files}"


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert not [name for name in sorted(pages) if f"]({name})" not in index]
