"""The day's arrivals in figures beside the days before; what is beyond a bound warns, or stops the day here."""

from collections.abc import Sequence
from datetime import date

import dagster as dg
import polars as pl

from assets.common.metadata import DATA_PLATFORM, columns, materialized, picture, preview
from assets.common.partitions import daily
from assets.common.workspace import Workspace
from assets.ingest import events, items, users
from warehouse.contracts import EVENT_NAMES
from warehouse.quality import (
    COVERAGE,
    Finding,
    figures_by_day,
    findings,
    judged_shared_ids,
    shared_event_ids,
)

CHECKS = {
    "volume": "As many events as on the same weekday of the weeks before.",
    "event_mix": "The events have the names that they had in the week before.",
    "coverage": "Items, their traits and users are known as well as in the week before.",
    "lateness": "Events arrive on the day they happen.",
    "quarantine": "Few events break the contract.",
    "event_ids": "Hardly any two users share an event_id.",
    "newest_event": "The newest event is of the end of the day.",
}

FINDING_SCHEMA = {
    "name": pl.String,
    "figure": pl.String,
    "value": pl.Float64,
    "expected": pl.Float64,
    "warns": pl.Boolean,
    "stops": pl.Boolean,
    "bound": pl.String,
}


@dg.asset(
    group_name="ingest",
    partitions_def=daily,
    # Not impressions: no figure needs them, and a day whose impressions are broken can be served.
    deps=[events, items, users],
    kinds={"polars"},
    owners=[DATA_PLATFORM],
    description="What arrived, as a whole: how much, of which kinds, how well known, how late; beside the days before. "
    "A log can be valid row by row and useless as a whole. Bounds: settings `quality`.",
    metadata=columns(
        name="String: the check",
        figure="String",
        value="Float64",
        expected="Float64: by the days before",
        warns="Boolean",
        stops="Boolean",
        bound="String",
    ),
    check_specs=[
        dg.AssetCheckSpec(name, asset="data_quality", blocking=True, description=description)
        for name, description in CHECKS.items()
    ],
)
def data_quality(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    day = date.fromisoformat(context.partition_key)
    figures = figures_by_day(workspace.tables, workspace.landing, day, workspace.settings.data.memory_gib)
    bounds = workspace.settings.quality
    shared = shared_event_ids(workspace.tables, day, workspace.settings.data.memory_gib)
    found = [
        *findings(figures, workspace.landing, day, bounds),
        judged_shared_ids(shared, figures, day, bounds),
    ]
    table = pl.DataFrame(found, schema=FINDING_SCHEMA)
    workspace.tables.write("data_quality", table, {"day": day})
    return materialized(
        metadata={
            **{f"{finding.name}: {finding.figure}": finding.value for finding in found if finding.value is not None},
            "findings": preview(table, rows=len(table)),
            **_pictures(figures),
        },
        check_results=[_result(name, [each for each in found if each.name == name]) for name in CHECKS],
    )


def _in_words(finding: Finding) -> str:
    """Return a sentence on one figure beyond its bound."""
    value = "none" if finding.value is None else f"{finding.value:,.3g}"
    usual = "" if finding.expected is None else f", {finding.expected:,.3g} before"
    return f"{finding.name}: {finding.figure} {value}{usual} (bound: {finding.bound})"


def _result(name: str, found: Sequence[Finding]) -> dg.AssetCheckResult:
    """Return the check result of findings, which warns or stops the assets downstream.

    Dagster goes on where a blocking check fails with less than an error.
    """
    beyond = [finding for finding in found if finding.warns or finding.stops]
    stops = any(finding.stops for finding in found)
    return dg.AssetCheckResult(
        check_name=name,
        passed=not beyond,
        severity=dg.AssetCheckSeverity.ERROR if stops else dg.AssetCheckSeverity.WARN,
        description="; ".join(map(_in_words, beyond)) or ("as before" if found else "too few events to judge"),
        metadata={finding.figure: finding.value for finding in found if finding.value is not None},
    )


def _pictures(figures: pl.DataFrame) -> dict[str, dg.MetadataValue]:
    from ml.figures.charts import counts_bar, shares_by_day

    if figures.is_empty():
        return {}
    days = figures["day"].to_list()
    mix = {name: figures[name].to_list() for name in EVENT_NAMES if figures[name].sum()}
    coverage = {name.replace("_", " "): figures[name].to_list() for name in COVERAGE}
    losses = {name: figures[name].to_list() for name in ("late", "quarantined")}
    return {
        "volume": picture(counts_bar(days, mix), "events by day"),
        "known": picture(shares_by_day(days, coverage, "What is known of the events"), "coverage by day"),
        "losses": picture(shares_by_day(days, losses, "Late and quarantined events"), "late and quarantined by day"),
    }
