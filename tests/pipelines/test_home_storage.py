"""A Dagster that ``adseq`` did not start shows the home that ADSEQ_HOME names."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef

from tests.flow import Ran

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_an_instance_without_a_dagster_home_has_the_runs_of_the_home(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADSEQ_HOME", str(ran.home.root))
    as_dg_dev = InstanceRef.from_dir(str(tmp_path), config_dir=str(PROJECT))
    with dg.DagsterInstance.from_ref(as_dg_dev) as instance:
        assert {run.job_name for run in instance.get_runs()} == {"bootstrap", "daily"}
        assert len(instance.get_materialized_partitions(dg.AssetKey("user_states"))) == 3


def test_another_home_has_other_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADSEQ_HOME", str(tmp_path / "new"))
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), config_dir=str(PROJECT))) as instance:
        assert instance.get_runs() == []
