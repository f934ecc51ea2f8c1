"""What can end an `adseq` command with a message instead of a traceback."""

from __future__ import annotations


class RunRefused(RuntimeError):
    """The run cannot begin; the message says why and what to do."""


class RunFailed(RuntimeError):
    """An asset failed; the message names it, the error and what to do."""


class ServiceFailed(RuntimeError):
    """A service did not start or died; the message says which log to read."""
