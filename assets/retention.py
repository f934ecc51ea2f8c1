"""The end of a day: what is too old is removed, and how much room the rest takes is shown."""

from datetime import date

import dagster as dg

from assets.common.metadata import DATA_PLATFORM, materialized
from assets.common.partitions import daily
from assets.common.workspace import Workspace
from assets.publication import online_states
from warehouse.day_records import record_completed
from warehouse.online import open_store
from warehouse.online.publication import served
from warehouse.retention import sizes, sweep

MEGABYTE = 1e6


@dg.asset(
    group_name="serving",
    partitions_def=daily,
    deps=[online_states],
    kinds={"deltalake", "faiss"},
    owners=[DATA_PLATFORM],
    description="Whole catalogues (item features, embeddings, indexes, what the service reads) are kept for "
    "`data.keep_days` days, and replaced versions of tables for `data.keep_versions_days`. A day that needs an older "
    "one makes it anew. The features of scored candidates go after as many days. What the day was made of is "
    "recorded, so that a late file makes it run again. How much room each part of the home takes is in the metadata, "
    "and day by day in the plots.",
)
def retention(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    store = open_store(workspace.settings.online.store, workspace.home)
    try:
        publication = served(store)
    finally:
        store.close()
    day, in_use = date.fromisoformat(context.partition_key), []
    if publication is not None:
        day, in_use = max(day, publication.day), [publication.index, publication.catalogue]
    settings = workspace.settings
    removed = sweep(
        workspace.home,
        workspace.tables,
        day,
        keep=settings.data,
        watched_days=settings.relevance.watched_days,
        served=in_use,
    )
    record_completed(workspace.tables, date.fromisoformat(context.partition_key))
    room = sizes(workspace.home)
    return materialized(
        metadata={
            "megabytes": sum(room.values()) / MEGABYTE,
            **{f"megabytes_{part}": size / MEGABYTE for part, size in room.items()},
            "partitions_removed": removed.partitions,
            "indexes_removed": removed.indexes,
            "catalogues_removed": removed.catalogues,
            "days_of_candidates_without_features": removed.thinned,
            "unfinished_files_removed": removed.unfinished,
            "files_of_replaced_versions_removed": removed.files,
        }
    )
