"""Runs of killed commands are closed without anybody giving a command."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from pipelines.abandoned_runs import abandoned_runs
from pipelines.instance import COMMAND_TAGS
from warehouse.home import Home

BEGUN = dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_START.value, job_name="any")


@pytest.fixture
def abandoned(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Dagster with a run of the command that seems to go on, and one that Dagster has launched itself."""
    monkeypatch.setenv("ADSEQ_HOME", str(home.root))
    with dg.DagsterInstance.ephemeral() as instance:
        for name, tags in (("command", COMMAND_TAGS), ("launched", {})):
            run = instance.create_run_for_job(dg.GraphDefinition(name=name, node_defs=[]).to_job(), tags=tags)
            instance.report_dagster_event(BEGUN, run.run_id)
        yield instance


def swept(instance: dg.DagsterInstance) -> tuple[str, dict[str, str]]:
    """What the sensor says, and the runs' statuses afterwards."""
    result = abandoned_runs(dg.build_sensor_context(instance=instance))
    assert isinstance(result, dg.SkipReason)
    return result.skip_message or "", {run.job_name: run.status.value for run in instance.get_runs()}


def test_a_run_of_the_command_is_closed_once_nobody_holds_the_lock(abandoned: dg.DagsterInstance, home: Home) -> None:
    with home.writing("adseq run"):
        said, statuses = swept(abandoned)
        assert "adseq run" in said
        assert statuses == {"command": "STARTED", "launched": "STARTED"}
    said, statuses = swept(abandoned)
    assert "1 run(s)" in said
    assert statuses == {"command": "FAILURE", "launched": "STARTED"}  # Dagster watches the process of the other


def test_without_an_unfinished_run_the_lock_stays_free(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADSEQ_HOME", str(home.root))
    with dg.DagsterInstance.ephemeral() as instance, home.writing("a day"):
        assert swept(instance) == ("No run of `adseq run` is unfinished.", {})
