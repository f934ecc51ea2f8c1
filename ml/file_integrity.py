"""Files of models and indexes: their checksums, and the error of a file that can no longer be read."""

from __future__ import annotations

import hashlib
from pathlib import Path


class Unreadable(RuntimeError):
    """A file of a model, an index or a catalogue is missing or damaged; the message names the file and a remedy."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message; the kind of the error where the message is empty."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
