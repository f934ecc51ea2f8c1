"""Landing zone -> validated Delta tables, quarantine beside them."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from assets.common.metadata import DATA_PLATFORM, delta_schema, materialized, picture
from assets.common.partitions import daily
from assets.common.workspace import Workspace
from warehouse.arrival_days import history_day, landing_of, why_not_past
from warehouse.contracts import LandingTable
from warehouse.day_records import landed_days
from warehouse.home_record import HomeRecordError
from warehouse.ingest.arrival import IngestReport, QuarantineExceeded, ingest
from warehouse.ingest.read import LandingError
from warehouse.landing import ManifestError
from warehouse.spill import MemoryTooSmall

GROUP = "ingest"
FIRST = {"dagster/priority": "1"}
"""Runs before what is ready at the same time: the sequences read impressions, and do not depend on them (see there)."""
WITHIN_QUARANTINE = "quarantine_share_within_bound"
DESCRIPTIONS = {
    LandingTable.events: "Offsite conversion events that arrived on the day: validated, deduplicated by user_id and "
    "event_id (the earliest arrival wins), late ones marked. Broken rows go to `quarantine_events` with the reason.",
    LandingTable.items: "Items whose newest version arrived on the day. A day sees the newest version up to it.",
    LandingTable.users: "Demographics that arrived on the day; every column may be null.",
    LandingTable.ads: "Ads whose newest version arrived on the day: item, bid, daily budget, countries, dates, status. "
    "A day sees the newest version up to it. Optional: without it every item that can be shown is eligible.",
    LandingTable.impressions: "Onsite requests of the day: what was looked at, what was shown, how far it came in the "
    "funnel. Optional: without it the context report falls back to a basket proxy.",
    LandingTable.relevance_labels: "Labels of raters that arrived on the day: how well an item fits a subject item or "
    "a query, 1 to 5. Optional: without labels there is no relevance model, and nothing is trimmed.",
    LandingTable.funnel_sample: "Candidates of the requests that the service sampled on the day, without users: the "
    "stage that each reached, the reason for which it was dropped, scores and features as the service saw them.",
    LandingTable.feedback: "Reports of dissatisfaction with an ad that arrived on the day, without users. The reported "
    "pairs are the next that raters see.",
}


@dg.asset(
    group_name=GROUP,
    kinds={"polars", "deltalake"},
    owners=[DATA_PLATFORM],
    description="Everything that had arrived before the first daily partition, ingested in one step: all tables.",
    check_specs=[
        dg.AssetCheckSpec(WITHIN_QUARANTINE, asset="history", blocking=True, description="Rows that break a contract."),
        dg.AssetCheckSpec(
            "has_events", asset="history", blocking=True, description="There is something to learn from."
        ),
    ],
)
def history(workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    _require_a_past_history(workspace)
    reports = {table: _ingest(workspace, table, None) for table in LandingTable}
    first_arrival = history_day(workspace.tables, workspace.landing)
    events = workspace.tables.scan("events").filter(pl.col("arrival_date") == first_arrival)
    metadata: dict[str, Any] = {f"{table}_rows": report.rows_written for table, report in reports.items()}
    for table, report in reports.items():
        metadata |= {f"{table}_{name}": value for name, value in _losses(report).items()}
    metadata |= workspace.engine.figures()
    metadata["events_by_week"] = _events_by_week(events)
    return materialized(
        metadata=metadata,
        check_results=[
            _quarantine_result(max(report.quarantine_share for report in reports.values()), workspace),
            dg.AssetCheckResult(check_name="has_events", passed=reports[LandingTable.events].rows_written > 0),
        ],
    )


def _daily_asset(table: LandingTable) -> dg.AssetsDefinition:
    @dg.asset(
        name=table.value,
        group_name=GROUP,
        partitions_def=daily,
        deps=[history],
        kinds={"polars", "deltalake"},
        owners=[DATA_PLATFORM],
        description=DESCRIPTIONS[table],
        metadata=delta_schema(table),
        op_tags=FIRST if table is LandingTable.impressions else None,
        check_specs=[
            dg.AssetCheckSpec(
                WITHIN_QUARANTINE, asset=table.value, blocking=True, description="Rows that break the contract."
            )
        ],
    )
    def landed(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
        day = date.fromisoformat(context.partition_key)
        _require_not_after_the_newest(workspace, day)
        report = _ingest(workspace, table, day)
        if report.rows_quarantined:
            context.log.warning(f"{report.rows_quarantined} rows of {table} quarantined: {report.quarantined}")
        return materialized(
            metadata={
                "dagster/row_count": report.rows_written,
                "files": report.files,
                **_losses(report),
                **(workspace.engine.figures() if report.parts > 1 else {}),
            },
            check_results=[_quarantine_result(report.quarantine_share, workspace)],
        )

    return landed


events = _daily_asset(LandingTable.events)
items = _daily_asset(LandingTable.items)
users = _daily_asset(LandingTable.users)
ads = _daily_asset(LandingTable.ads)
impressions = _daily_asset(LandingTable.impressions)
relevance_labels = _daily_asset(LandingTable.relevance_labels)
funnel_sample = _daily_asset(LandingTable.funnel_sample)
feedback = _daily_asset(LandingTable.feedback)


def _ingest(workspace: Workspace, table: LandingTable, day: date | None) -> IngestReport:
    """Ingest a table; an error that the owner of the input must mend is not tried again."""
    try:
        return ingest(
            workspace.landing,
            workspace.tables,
            table,
            day=day,
            settings=workspace.settings.data,
            engine=workspace.engine,
        )
    except (HomeRecordError, LandingError, QuarantineExceeded, ManifestError, MemoryTooSmall) as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def _require_a_past_history(workspace: Workspace) -> None:
    """Raise if the history would be recorded as of today or a day to come, because of a date typed wrong.

    Raises:
        dagster.Failure: with the folder.
    """
    if reason := why_not_past(landing_of(workspace.tables, workspace.landing)):
        raise dg.Failure(reason, allow_retries=False)


def _require_not_after_the_newest(workspace: Workspace, day: date) -> None:
    """Raise if ``day`` comes after every landed day: a publication would be of a day that has not been.

    Dagster refuses such a partition, but for a launch that was prepared outside the code location.

    Raises:
        dagster.Failure: with what to do.
    """
    newest = max(landed_days(workspace.home), default=None)
    if newest is None or day > newest:
        raise dg.Failure(
            f"{day} has not landed: the newest day in {workspace.landing.root} is {newest or 'none'}. Put the day's "
            f"files into <table>/date={day}/ first.",
            allow_retries=False,
        )


def _quarantine_result(share: float, workspace: Workspace) -> dg.AssetCheckResult:
    bound = workspace.settings.data.maximum_quarantine_share
    return dg.AssetCheckResult(
        check_name=WITHIN_QUARANTINE, passed=share <= bound, metadata={"share": share, "bound": bound}
    )


def _losses(report: IngestReport) -> Mapping[str, Any]:
    """Return the counts of lost rows and of lost numbers, by reason; counts of zero are left out."""
    facts: dict[str, Any] = {
        "duplicates": report.duplicates,
        "late": report.late,
        "forgotten": report.forgotten,
        "quarantined": report.rows_quarantined,
    }
    facts |= {f"quarantined: {reason}": rows for reason, rows in report.quarantined.items()}
    facts |= {f"without {column}, which is no number": rows for column, rows in report.lost_numbers.items()}
    return {name: value for name, value in facts.items() if value}


def _events_by_week(events: pl.LazyFrame) -> dg.MetadataValue:
    from ml.figures.charts import counts_bar

    counted = (
        events.group_by(pl.col("event_time").dt.date().dt.truncate("1w").alias("week"), "event_name")
        .len()
        .collect()
        .pivot("event_name", index="week", values="len")
        .fill_null(0)
        .sort("week")
        .tail(104)
    )
    names = [name for name in counted.columns if name != "week"]
    figure = counts_bar(
        counted["week"].to_list(), {name: counted[name].to_list() for name in names}, "Events by week", "Events"
    )
    return picture(figure, "events by week")
