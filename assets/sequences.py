"""Per-user behaviour sequences of the users who were active."""

from datetime import date

import dagster as dg
import polars as pl

from assets.common.metadata import DATA_PLATFORM, columns, picture
from assets.common.partitions import daily
from assets.common.workspace import Workspace
from assets.ingest import events
from assets.quality import data_quality
from warehouse.sequences import SEQUENCE_SCHEMA, sequence_batches


@dg.asset(
    group_name="sequences",
    partitions_def=daily,
    deps=[events, data_quality],
    kinds={"duckdb", "polars", "deltalake"},
    owners=[DATA_PLATFORM],
    description="For each user with an event that arrived on the day: their newest events within the look-back window, "
    "oldest first, in the order (event_time, event_id). Computed from the event log, so any day stands alone.",
    metadata=columns(
        user_id="String",
        event_id="List(String)",
        event_time="List(Datetime): UTC, ascending",
        event_name="List(String)",
        item_id="List(String): null where the event has no item",
        advertiser_id="List(String)",
        value="List(Float64): in the event's currency",
    ),
)
def user_sequences(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    from ml.figures.charts import history_length_histogram

    day = date.fromisoformat(context.partition_key)
    shape, memory = workspace.settings.sequences, workspace.settings.data.memory_gib
    batches = sequence_batches(workspace.tables, workspace.landing, [day], shape, memory)
    workspace.tables.write_batches("user_sequences", pl.Schema(SEQUENCE_SCHEMA), batches, {"day": day})
    written = workspace.tables.scan("user_sequences").filter(pl.col("day") == day)
    lengths = written.select(pl.col("event_time").list.len()).collect()["event_time"]
    metadata = {"dagster/row_count": len(lengths), "active_users": len(lengths)}
    if not len(lengths):
        return dg.MaterializeResult(metadata=metadata)
    return dg.MaterializeResult(
        metadata={
            **metadata,
            "median_length": float(lengths.median()),  # type: ignore[arg-type]
            "mean_length": float(lengths.mean()),  # type: ignore[arg-type]
            "share_cut": float((lengths == workspace.settings.sequences.length).mean()),  # type: ignore[arg-type]
            "lengths": picture(history_length_histogram(lengths.to_numpy(), str(day)), "sequence lengths"),
        }
    )
