"""Text files of any encoding as UTF-8."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from warehouse.importers.landing_writer import SourceError

_BLOCK_BYTES = 2**20
_HEAD_BYTES = 4096
_BYTE_ORDER_MARKS = (  # the longer mark first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
UNICODE = ("utf-8", "utf-8-sig")
_UNREADABLE_BYTES = re.compile("[\udc80-\udcff]")  # what ``surrogateescape`` makes of bytes that are not UTF-8
_BEYOND_ASCII = re.compile("[^\x00-\x7f]")


@dataclass(frozen=True)
class TextFile:
    """A text file that has been read through once.

    Attributes:
        path: the file, or a UTF-8 copy of it.
        encoding: the file's own.
        lines: how many there are, an empty last one not counted.
    """

    path: Path
    encoding: str
    lines: int


def as_utf8(path: Path, directory: Path, encoding: str | None = None) -> TextFile:
    """Find out the encoding of a text file, plain or gzip, and copy the file to ``directory`` unless it is UTF-8.

    Args:
        encoding: of a file that is not Unicode; found out without it.

    Raises:
        SourceError: the file cannot be read, ends early, or is mostly UTF-8 with damaged bytes in it.
    """
    try:
        return _as_utf8(path, directory, encoding)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} cannot be read: {error}. Export or download the file again.") from error


def _as_utf8(path: Path, directory: Path, encoding: str | None) -> TextFile:
    found = _announced(path) or "utf-8"
    try:
        lines = _lines(_decoded(path, found))
    except UnicodeDecodeError as error:
        if found != "utf-8":
            raise SourceError(f"{path} begins like {found}, but is not: {error.reason}. Export it again.") from error
        found, lines = encoding or _without_unicode(path), 0
    if found in UNICODE:
        return TextFile(path, found, lines)
    copy = directory / f"{len(list(directory.iterdir()))}.utf8"
    return TextFile(copy, found, _lines(_transcoded(path, found, copy)))


def opened(path: Path) -> IO[bytes]:
    """Open a plain or gzip file for reading."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if zipped else path.open("rb")


def _announced(path: Path) -> str | None:
    """Return the Unicode encoding that the first bytes show; None where the first bytes show none."""
    with opened(path) as file:
        head = file.read(_HEAD_BYTES)
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding
    # UTF-16 without a mark: every second byte of Latin text is zero.
    for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(head) > 1 and head[start::2].count(0) > 0.4 * (len(head) // 2):
            return encoding
    return None


def _decoded(path: Path, encoding: str, errors: str = "strict") -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    with opened(path) as file:
        while block := file.read(_BLOCK_BYTES):
            yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def _without_unicode(path: Path) -> str:
    """Return the encoding of a file that is not UTF-8: cp1252, or Latin-1 where cp1252 has no meaning for a byte.

    Raises:
        SourceError: most characters beyond ASCII are UTF-8, so that cp1252 would spoil them.
    """
    damaged = whole = line = 0
    first_damaged = None
    for block in _decoded(path, "utf-8", "surrogateescape"):
        broken = _UNREADABLE_BYTES.search(block)
        if broken and first_damaged is None:
            first_damaged = line + block.count("\n", 0, broken.start()) + 1
        bad = len(_UNREADABLE_BYTES.findall(block))
        damaged, whole = damaged + bad, whole + len(_BEYOND_ASCII.findall(block)) - bad
        line += block.count("\n")
    if whole > damaged:
        raise SourceError(
            f"{path}, line {first_damaged}: a byte that is not UTF-8, while the rest of the file is UTF-8 "
            f"({damaged:,} such bytes). Correct the line, or export the file in one encoding."
        )
    try:
        for _ in _decoded(path, "cp1252"):
            pass
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _transcoded(path: Path, encoding: str, copy: Path) -> Iterator[str]:
    """Write the file as UTF-8 to ``copy``, block by block."""
    try:
        with copy.open("w", encoding="utf-8", newline="") as target:
            for block in _decoded(path, encoding):
                target.write(block)
                yield block
    except LookupError as error:
        raise SourceError(f"{encoding!r} is no encoding that Python knows: correct encoding under [log].") from error
    except UnicodeError as error:
        reason = getattr(error, "reason", error)
        raise SourceError(f"{path} is not {encoding}: {reason}. Correct encoding under [log].") from error


def _lines(blocks: Iterable[str]) -> int:
    """Return the number of lines. A last line without a line end counts, too."""
    lines, last = 0, "\n"
    for block in blocks:
        lines += block.count("\n")
        last = block[-1:] or last
    return lines + (last != "\n")
