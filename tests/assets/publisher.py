"""Publishes a day of a home in a process that can be killed. Takes the day.

Prints ``ready`` when everything is imported and read, then publishes.
"""

from __future__ import annotations

import sys
from datetime import date

from assets.common.workspace import Workspace
from assets.steps.publish import publish_day
from assets.steps.versions import serving
from warehouse.online.store import StoreUnreachable


def main() -> None:
    """Publish the day that the process is given."""
    sys.exit(_publish(date.fromisoformat(sys.argv[1])))


def _publish(day: date) -> int:
    workspace = Workspace.from_environment()
    version = serving(workspace.tables, workspace.home, day, "item-1")
    print("ready", flush=True)
    try:
        published = publish_day(workspace, version, day, version.name)
    except StoreUnreachable as error:
        print(error, file=sys.stderr)
        return 3
    print(f"published {published.states} states as of {published.publication.day}", flush=True)
    return 0
