"""Whether two homes hold the same rows for a day, and whether stored states are those of a full re-encoding."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from assets.common.workspace import Workspace
from assets.steps.item_features import features_of_day
from assets.steps.versions import ModelVersion
from ml.models.artifact import ModelArtifact
from ml.models.daily_inference import states_of_sequences
from settings import Settings
from tests.warehouse.whole_sequences import all_user_sequences
from warehouse.days import day_end
from warehouse.landing import Landing
from warehouse.onsite_events import onsite_events
from warehouse.states import snapshot
from warehouse.tables import Tables, vectors

TOLERANCE = 1e-5  # fp32; batches of other shapes round differently
BY_ARRIVAL = ("events", "items", "users", "impressions")
BY_DAY = ("user_sequences", "item_features", "user_states", "item_embeddings", "daily_recall", "inference_log")


def assert_same_day(expected: Tables, actual: Tables, day: date, versions: list[str]) -> None:
    """Every daily table has the same rows for ``day``, under these model versions and no other."""
    for name in (*BY_ARRIVAL, *BY_DAY):
        column = "arrival_date" if name in BY_ARRIVAL else "day"
        frames = [tables.scan(name).filter(pl.col(column) == day).collect() for tables in (expected, actual)]
        if name == "inference_log":
            frames = [frame.drop("seconds") for frame in frames]
        if "model_version" in frames[0].columns:
            assert sorted(frames[0]["model_version"].unique()) == versions, name
        keys = [key for key in frames[0].columns if frames[0].schema[key].is_(pl.String)]
        first, second = (frame.sort(keys) for frame in frames)
        assert len(first), f"{name} has nothing to compare on {day}"
        assert_frame_equal(first, second, abs_tol=TOLERANCE, rel_tol=0, check_exact=False)


def arrived_events(tables: Tables, landing: Landing) -> pl.DataFrame:
    """The events of sequences, offsite and onsite: user_id, arrival_date, event_time."""
    columns = ["user_id", "arrival_date", "event_time"]
    offsite = tables.scan("events").select(columns).collect()
    return pl.concat([offsite, onsite_events(tables, landing).select(columns)])


def largest_difference_to_full(
    tables: Tables, landing: Landing, version: ModelVersion, day: date
) -> tuple[float, pl.DataFrame]:
    """Re-encode every user as of their own last active day; compare with the snapshot as of ``day``.

    A user's catalogue is that of the later of their last active day and the version's training day, when the full
    inference was made.

    Returns:
        The largest absolute difference of a state's element, and the snapshot with the expected day of each user.
    """
    workspace = Workspace(Settings(home=tables.root.parent))
    artifact = ModelArtifact.load(version.deployed)
    zone = landing.manifest.time_zone
    sequences = all_user_sequences(tables, landing, day, settings=artifact.settings.sequences)
    events = arrived_events(tables, landing).filter(pl.col("arrival_date") <= day)
    ends = pl.DataFrame({"arrival_date": tables.days("events", "arrival_date")}).with_columns(
        end=pl.Series([day_end(each, zone) for each in tables.days("events", "arrival_date")])
    )
    active = (
        events.join(ends, on="arrival_date")
        .filter(pl.col("event_time") < pl.col("end"))
        .group_by("user_id")
        .agg(pl.col("arrival_date").max())
        .select("user_id", expected_day=pl.max_horizontal("arrival_date", pl.lit(version.trained_day)))
    )
    stored = snapshot(tables, version.name, day).join(active, on="user_id", how="full", coalesce=True).sort("user_id")
    assert stored.null_count().sum_horizontal().item() == 0, "the snapshot and the event log have different users"
    difference = 0.0
    for as_of in stored["expected_day"].unique():
        rows = stored.filter(pl.col("expected_day") == as_of)
        features, _ = features_of_day(workspace, version, as_of)
        fresh = states_of_sequences(
            artifact,
            features,
            sequences.filter(pl.col("user_id").is_in(rows["user_id"].implode())),
            artifact.settings.inference,
        )
        assert fresh["user_id"].equals(rows["user_id"])
        difference = max(difference, float(np.abs(vectors(fresh["state"]) - vectors(rows["state"])).max()))
    return difference, stored
