"""The asset graph as text. ``python -m tests.assets.graph`` rewrites asset_graph.txt beside this file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

SNAPSHOT = Path(__file__).with_name("asset_graph.txt")
UPDATE = "python -m tests.assets.graph"
LANDED = date(2014, 7, 20)  # long past, so that the partitions have an end and the text does not depend on today


def describe() -> str:
    """Every asset, check, job, schedule and sensor. Chooses a home: only in a process that has loaded none yet."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "landing" / "events" / f"date={LANDED}").mkdir(parents=True)
        os.environ["ADSEQ_HOME"] = directory
        return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    from pipelines.definitions import defs

    repository = defs.get_repository_def()
    graph = repository.asset_graph
    yield f"# What Dagster loads. After a change that is meant: {UPDATE}"
    yield "\n# Assets, in the order the data flows"
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        yield f"\n{key.to_user_string()}"
        yield f"  group        {node.group_name}"
        yield f"  depends on   {_joined(sorted(parent.to_user_string() for parent in node.parent_keys))}"
        yield f"  kinds        {_joined(sorted(node.kinds))}"
        yield f"  owners       {_joined(node.owners)}"
        yield f"  partitions   {_partitions(node.partitions_def)}"
        yield f"  freshness    {_freshness(node.freshness_policy)}"
        for check in sorted(node.check_keys):
            blocking = graph.get_check_spec(check).blocking
            yield f"  check        {check.name}{' (blocking)' if blocking else ''}"
        for parent in sorted(node.parent_keys):
            if mapping := node.partition_mappings.get(parent):
                yield f"  mapping      of {parent.to_user_string()}: {mapping.description}"
    yield "\n# Jobs"
    for job in sorted(repository.get_all_jobs(), key=lambda job: job.name):
        if job.name.startswith("__"):
            continue
        keys = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
        in_order = [key.to_user_string() for key in graph.toposorted_asset_keys if key.to_user_string() in keys]
        yield f"\n{job.name}"
        yield f"  partitions   {_partitions(job.partitions_def)}"
        yield f"  tags         {_joined(sorted(f'{name}={value}' for name, value in job.tags.items()))}"
        yield from (f"  {name}" for name in in_order)
    yield "\n# Schedules"
    for schedule in repository.schedule_defs:
        state = schedule.default_status.value
        zone = schedule.execution_timezone
        yield f"  {schedule.name}: job {schedule.job_name}, {schedule.cron_schedule} {zone}, {state} at first"
    yield "\n# Sensors"
    for sensor in repository.sensor_defs:
        jobs = _joined([target.job_name for target in sensor.targets])
        seconds = sensor.minimum_interval_seconds
        yield f"  {sensor.name}: job {jobs}, every {seconds} s, {sensor.default_status.value} at first"


def _joined(names: Sequence[str]) -> str:
    return ", ".join(names) or "-"


def _freshness(policy: object) -> str:
    if policy is None:
        return "-"
    from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy

    assert isinstance(policy, TimeWindowFreshnessPolicy)
    return f"fails after {policy.fail_window.to_timedelta()}"


def _partitions(partitions: object) -> str:
    import dagster as dg

    if partitions is None:
        return "-"
    assert isinstance(partitions, dg.DailyPartitionsDefinition)
    end = partitions.end
    return f"daily from {partitions.start.date()} to before {end.date() if end else 'ever'} {partitions.timezone}"


if __name__ == "__main__":
    text = describe()
    SNAPSHOT.write_text(text)
    print(f"{SNAPSHOT.name}: {len(text.splitlines())} lines")
