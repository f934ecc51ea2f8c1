"""The time that the newest run of a home took, for the closing table and ``adseq summary --json``."""

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
    path = home.root / FILE
    if not path.is_file():
        return None
    return float(json.loads(path.read_text())["seconds"])
