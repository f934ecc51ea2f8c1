"""What can end an `adseq` command with a message instead of a traceback."""

from __future__ import annotations


class RunRefused(RuntimeError):
    """The run cannot begin; the message says why and what to do."""


class RunFailed(RuntimeError):
    """An asset failed; the message names it, the error and what to do."""


class ServiceFailed(RuntimeError):
    """A service did not start or died; the message says which log to read."""


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or one that led to it, is that a disk has no room (which SQLite also calls an I/O error)."""
    said = ("no space left on device", "disk is full", "disk i/o error", "disk quota exceeded", "failed to offload")
    led: BaseException | None = error
    while led is not None:
        if any(text in str(led).lower() for text in said):
            return True
        led = led.__cause__ or led.__context__
    return False
