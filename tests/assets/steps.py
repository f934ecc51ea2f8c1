"""Runs jobs of one home in one process, for ``world.execute``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from pipelines.instance import instance, use_home
from settings import Settings
from warehouse.home import Home


def main() -> None:
    """Run the steps that the process is given."""
    _run(Path(sys.argv[1]), json.loads(sys.argv[2]))


def _run(output: Path, steps: list[dict[str, Any]]) -> None:
    use_home(Home(Settings().home))
    from pipelines.cli.run import QUIET
    from pipelines.definitions import defs

    found = []
    with instance() as opened:
        for step in steps:
            result = defs.resolve_job_def(step["job"]).execute_in_process(
                instance=opened,
                partition_key=step["partition"],
                asset_selection=[dg.AssetKey(name) for name in step["assets"]] if step["assets"] else None,
                run_config={**QUIET, "resources": {"workspace": {"config": step["settings"]}}},
            )
            found.append(
                {
                    event.step_key: {
                        name: value.value
                        for name, value in event.materialization.metadata.items()
                        if isinstance(value.value, bool | int | float | str)
                    }
                    for event in result.get_asset_materialization_events()
                }
            )
    output.write_text(json.dumps(found))
