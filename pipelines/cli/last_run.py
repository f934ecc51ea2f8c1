"""The time of the newest run of a home, for ``adseq summary --json``."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from warehouse.home import Home, write_atomically

FILE = "last_run.json"


def record_run(home: Home, seconds: float) -> None:
    """Keep the seconds that a run took, and the time of its end."""
    said = {"seconds": round(seconds, 3), "ended": datetime.now(UTC).isoformat(timespec="seconds")}
    write_atomically(home.root / FILE, (json.dumps(said) + "\n").encode())


def seconds_of_last_run(home: Home) -> float | None:
    """Return the seconds of the newest run that did something to its end; None before there is one."""
    try:
        return float(json.loads((home.root / FILE).read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):  # never written, or damaged: the next run writes the file anew
        return None
