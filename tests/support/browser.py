"""A page in headless Chromium: what it draws, what it complains about, and who connects to this machine."""

import shutil
import socket
import subprocess
import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--enable-logging=stderr --virtual-time-budget=3000 --window-size=390,2000 --dump-dom"
)


def draw(page: str, folder: Path) -> tuple[str, str]:
    """Return the document that a browser makes of a page, and what it printed; skip without a browser."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium here")
    path = folder / "page.html"
    path.write_text(page)
    shown = subprocess.run(
        [browser, *OPTIONS.split(), f"--user-data-dir={folder / 'profile'}", path.as_uri()],
        cwd=folder, capture_output=True, encoding="utf-8", timeout=60,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    return shown.stdout, shown.stderr


class Listener:
    """A server on this machine that counts connections."""

    def __init__(self):
        self.server, self.connections = socket.create_server(("127.0.0.1", 0)), 0
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            self.server.accept()[0].close()
            self.connections += 1


class Drawn(HTMLParser):
    """A document: the number of each tag, and the texts of the elements of a class or an id."""

    def __init__(self, document: str):
        super().__init__()
        self.tags: dict[str, int] = {}
        self.texts: dict[str, list[str]] = {}
        self.place = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.place = named.get("id") or (named.get("class") or "").split(" ")[0]
        self.texts.setdefault(self.place, []).append("")

    def handle_endtag(self, tag):
        self.place = ""

    def handle_data(self, data):
        if self.place:
            self.texts[self.place][-1] += data
