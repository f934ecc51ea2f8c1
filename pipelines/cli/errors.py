"""What can end an `adseq` command with a message instead of a traceback."""

from __future__ import annotations

import errno
import getpass
from collections.abc import Iterator


class RunRefused(RuntimeError):
    """The run cannot begin; the message says why and what to do."""


class RunFailed(RuntimeError):
    """An asset failed; the message names the asset, the error and the next step."""


class ServiceFailed(RuntimeError):
    """A service did not start or died; the message says which log to read."""


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or an error behind the error, means that a disk is full (SQLite also says I/O error)."""
    said = ("no space left on device", "disk is full", "disk i/o error", "disk quota exceeded", "failed to offload")
    return any(text in str(each).lower() for each in _led_to(error) for text in said)


IN_THE_WAY = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


def denied_access(error: BaseException) -> str | None:
    """Return the sentence of an error that the file system's rules caused; None for another error.

    The errors that led to the error count as well.
    """
    for each in _led_to(error):
        said = str(each).lower()
        name = getattr(each, "filename", None)
        if isinstance(each, OSError) and each.errno in IN_THE_WAY and name:
            return f"{name}: {each.strerror}. Give another path, or move the file that is in the way."
        if (
            getattr(each, "errno", None) == errno.EROFS
            or "read-only file system" in said
            or "readonly database" in said
        ):
            return f"{name or each} cannot be written: the file system or the file is read-only. Give another --home."
        if isinstance(each, PermissionError) or "permission denied" in said or "unable to open database file" in said:
            return (
                f"{name or each}: permission denied for the user {_user()}. Change the owner or the mode, run the "
                "command as the owner, or give another --home."
            )
    return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name
        return "of this process"


def _led_to(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that led to the error, the last first."""
    led: BaseException | None = error
    while led is not None:
        yield led
        led = led.__cause__ or led.__context__
