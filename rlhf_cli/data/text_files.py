"""The lines of a text file: decompressed, decoded, of limited length, each fault with its place."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rlhf_cli.data.records import DataError, RowError

# Characters of one line, cell or element. A context of a million tokens has about 5 million;
# one line at the limit takes up to 0.9 GB to parse (a list of empty lists).
LIMIT = 32 << 20
DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"PAR1": "parquet",
    b"PK\x03\x04": "zip or xlsx",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"ARROW1": "arrow",
}


def is_gzipped(path: Path) -> bool:
    """Return whether the name ends in .gz; `open_bytes` checks that the content agrees."""
    return path.name.lower().endswith(".gz")


@contextmanager
def open_bytes(path: Path, name: str) -> Iterator[IO[bytes]]:
    """Open a file, decompressed where its name ends in .gz; faults become DataError."""
    try:
        with path.open("rb") as file:
            head = file.peek(8)
            if not head:
                raise DataError(f"{name} is empty (0 bytes); write it again, or leave it out")
            if not is_gzipped(path):
                yield file
                return
            if not head.startswith(b"\x1f\x8b"):
                raise DataError(f"{name} is no gzip file; take .gz off its name")
            with gzip.GzipFile(fileobj=file) as content:
                yield content
    except (*DAMAGE, OSError) as error:
        raise damaged(name, error) from error


def damaged(name: str, error: Exception, place: str = "") -> DataError:
    """Return the error for a file that cannot be read to its end."""
    if isinstance(error, EOFError):
        return DataError(f"{name}: the gzip file is cut short{place}; copy it again")
    if isinstance(error, DAMAGE):
        return DataError(f"{name}: the gzip file is damaged{place} ({error}); copy it again")
    why = getattr(error, "strerror", None) or error
    return DataError(f"{name} cannot be read{place}: {why}; see its permissions and its disk")


@contextmanager
def open_text(path: Path, name: str, newline: str | None = "") -> Iterator[IO[str]]:
    """Open a file as text. A byte that is not UTF-8 stays in it as a lone surrogate: `undecodable`."""
    with open_bytes(path, name) as content:
        _refuse_other_kinds(content.peek(8)[:8], name)
        with io.TextIOWrapper(
            content, encoding="utf-8-sig", errors="surrogateescape", newline=newline
        ) as text:
            yield text


def _refuse_other_kinds(head: bytes, name: str) -> None:
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{name} is a {kind} file under another name; give it its own suffix")
    utf16 = head[:2] in (b"\xff\xfe", b"\xfe\xff") or (
        len(head) > 3 and 0 in head and (not any(head[::2]) or not any(head[1::2]))
    )
    if utf16:
        raise DataError(f"{name} is UTF-16 text; convert it: iconv -f utf-16 -t utf-8")


def lines(file: IO[str], name: str) -> Iterator[tuple[int, str | RowError]]:
    """Yield (number, line) of a text opened by `open_text`; one above the limit is a RowError, unread."""
    number = 0
    while text := _line(file, name, number):
        number += 1
        if len(text) > LIMIT:
            while text and not text.endswith(("\n", "\r")):
                text = _line(file, name, number)
            yield number, RowError("longer than the limit", f"a line above {LIMIT >> 20} MB")
        else:
            yield number, text


def _line(file: IO[str], name: str, before: int) -> str:
    try:
        return file.readline(LIMIT + 1)
    except DAMAGE as error:
        raise damaged(name, error, f" after line {before}") from error


def undecodable(text: str) -> tuple[int, str] | None:
    """Return (position, message) of the first byte that is not UTF-8, if there is one."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) & 0xFF
        return error.start, f"byte 0x{byte:02x}; convert the file: iconv -f latin-1 -t utf-8"
    return None


def decoded(text: str) -> str | RowError:
    """Return the text, or the row's error where a byte of it is not UTF-8."""
    fault = undecodable(text)
    return text if fault is None else RowError("not UTF-8 text", fault[1])
