"""Per-user behaviour sequences of the users who were active."""

from datetime import date

import dagster as dg
import polars as pl

from assets.common.metadata import DATA_PLATFORM, columns, materialized, picture
from assets.common.partitions import daily
from assets.common.workspace import Workspace
from assets.ingest import events
from assets.quality import data_quality
from assets.steps.versions import sequence_shape
from warehouse.contracts import LandingTable
from warehouse.onsite_events import impressions_wait
from warehouse.stored_sequences import write_sequences


@dg.asset(
    group_name="sequences",
    partitions_def=daily,
    deps=[events, data_quality],
    kinds={"duckdb", "polars", "deltalake"},
    owners=[DATA_PLATFORM],
    description="For each user with an event that arrived on the day: their newest events within the look-back window, "
    "oldest first, in the order (event_time, event_id). Computed from the event log, so any day stands alone. "
    "Clicked and converted impressions are events, too, where the manifest says `onsite_events`.",
    metadata=columns(
        user_id="String",
        event_id="List(String)",
        event_time="List(Datetime): UTC, ascending",
        event_name="List(String)",
        item_id="List(String): null where the event has no item",
        advertiser_id="List(String)",
        value="List(Float64): in the event's currency",
        maximum_length="Int32: the length that the sequence was cut to, that of the model which serves the day",
        lookback_days="Int32: the look-back of that model",
        onsite_events="Boolean: whether clicked and converted impressions are in the sequence",
    ),
)
def user_sequences(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    from ml.figures.charts import history_length_histogram

    day = date.fromisoformat(context.partition_key)
    _require_impressions(workspace, day)
    shape = sequence_shape(workspace, day)
    data, engine = workspace.settings.data, workspace.engine
    write_sequences(workspace.tables, workspace.landing, day, shape=shape, data=data, engine=engine)
    written = workspace.tables.scan("user_sequences").filter(pl.col("day") == day)
    lengths = written.select(pl.col("event_time").list.len()).collect()["event_time"]
    metadata = {"dagster/row_count": len(lengths), "active_users": len(lengths), **engine.figures()}
    if not len(lengths):
        return materialized(metadata=metadata)
    return materialized(
        metadata={
            **metadata,
            "median_length": float(lengths.median()),  # type: ignore[arg-type]
            "mean_length": float(lengths.mean()),  # type: ignore[arg-type]
            "share_cut": float((lengths == shape.length).mean()),  # type: ignore[arg-type]
            "lengths": picture(history_length_histogram(lengths.to_numpy(), str(day)), "sequence lengths"),
        }
    )


def _require_impressions(workspace: Workspace, day: date) -> None:
    """Raise if onsite events are events of sequences, and the day's impressions are not ingested as they have landed.

    The asset does not depend on the asset ``impressions``: a day whose impressions are broken can be served where the
    sequences hold no onsite events.

    Raises:
        dagster.Failure: with what to do.
    """
    if impressions_wait(workspace.tables, workspace.landing, day):
        folder = workspace.landing.folder(LandingTable.impressions, day)
        raise dg.Failure(
            f"The impressions of {day} are not ingested as they lie in {folder}, and the manifest says onsite_events: "
            "sequences would lack their clicks. Materialize `impressions` of the day first; if that failed, correct "
            "the files before.",
            allow_retries=False,
        )
