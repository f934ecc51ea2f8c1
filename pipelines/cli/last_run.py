"""The time of the newest run of a home, for ``adseq summary --json`` and ``adseq status``."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from warehouse.home import Home, write_atomically

FILE = "last_run.json"
Value = TypeVar("Value")


def record_run(home: Home, seconds: float) -> None:
    """Keep the seconds that a run took, and the time of its end."""
    said = {"seconds": round(seconds, 3), "ended": datetime.now(UTC).isoformat(timespec="seconds")}
    write_atomically(home.root / FILE, (json.dumps(said) + "\n").encode())


def seconds_of_last_run(home: Home) -> float | None:
    """Return the seconds of the newest run that did something to its end; None before there is one."""
    return _said(home, lambda said: float(said["seconds"]))


def end_of_last_run(home: Home) -> datetime | None:
    """Return the end of that run."""
    return _said(home, lambda said: datetime.fromisoformat(said["ended"]))


def _said(home: Home, value: Callable[[dict[str, Any]], Value]) -> Value | None:
    try:
        return value(json.loads((home.root / FILE).read_text()))
    except (OSError, ValueError, KeyError, TypeError):  # never written, or damaged: the next run writes the file anew
        return None
