"""Publishing: what the candidate service reads at request time."""

from datetime import date, timedelta

import dagster as dg
import polars as pl

from assets.advertisers import advertiser_candidates
from assets.common.metadata import DATA_PLATFORM, columns, materialized, picture, preview
from assets.common.partitions import daily
from assets.common.workspace import Workspace
from assets.inference import item_index, user_states
from assets.ingest import ads
from assets.steps.publish import publish_day
from assets.steps.skip_without_items import needs_items
from assets.steps.versions import item_versions, serving
from warehouse.states import USER_STATES, inferred_days

FRESH_DAYS = 2
AGES = (1, 7, 30)
SHOWN_VERSIONS = 5  # the newest: a rollback goes to one of these


@dg.asset(
    group_name="serving",
    partitions_def=daily,
    deps=[user_states, item_index, advertiser_candidates, ads],
    kinds={"lmdb"},
    owners=[DATA_PLATFORM],
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36)),
    description="The online store brought up to the day: states, advertiser lists, sequences and demographics of the "
    "users with news, the catalogue with its ads, and at the end the pointer to the version, day and index that are "
    "served. A new version is filled completely before the pointer moves to it.",
    metadata=columns(
        states="one record a user and model version: what is known, and the encoder's output",
        advertisers="one list a user and advertiser model: the best advertisers and their scores",
        sequences="the newest events of a user",
        users="demographics",
    ),
    check_specs=[
        dg.AssetCheckSpec(
            "states_are_fresh",
            asset="online_states",
            description=f"The newest state served is at most {FRESH_DAYS} days older than the day.",
        )
    ],
)
@needs_items
def online_states(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    from ml.figures.charts import state_age_histogram

    day = date.fromisoformat(context.partition_key)
    champion = workspace.tracking.champion()
    version = serving(workspace.tables, workspace.home, day, champion)
    published = publish_day(workspace, version, day, champion)
    now = published.publication
    ages = _ages(workspace, now.model_version, now.day)
    newest = int(ages.min()) if len(ages) else None  # type: ignore[arg-type]
    return materialized(
        metadata={
            "served_version": now.model_version,
            "served_day": str(now.day),
            "advertiser_version": now.advertiser_version or "none",
            "full": published.full,
            "states_written": published.states,
            "advertiser_lists_written": published.advertiser_lists,
            "users": len(ages),
            "share_written": published.states / max(len(ages), 1),
            "seconds": published.seconds,
            "states_a_second": published.states / max(published.seconds, 1e-9),
            "newest_state_days": newest if newest is not None else -1,
            "ages_by_version": preview(_ages_by_version(workspace, now.model_version, now.day)),
            "ages": picture(state_age_histogram(ages.to_numpy(), now.model_version), "age of the states served"),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="states_are_fresh",
                passed=newest is not None and newest <= FRESH_DAYS,
                metadata={"newest_state_days": newest if newest is not None else -1, "bound": FRESH_DAYS},
            )
        ],
    )


def _ages(workspace: Workspace, version: str, day: date) -> pl.Series:
    """Return the days since the state of each user was inferred."""
    inferred = inferred_days(workspace.tables, version, day)
    return inferred.select(age=(pl.lit(day) - pl.col("day")).dt.total_days())["age"]


def _ages_by_version(workspace: Workspace, serving_version: str, day: date) -> pl.DataFrame:
    """Return the ages of each version's states, which a rollback to the version would find."""
    rows = []
    with_states = {values["model_version"] for values in workspace.tables.partitions(USER_STATES)}
    known = [
        version.name for version in item_versions(workspace.tables, workspace.home).all() if version.name in with_states
    ]
    for version in known[-SHOWN_VERSIONS:]:
        ages = _ages(workspace, version, day)
        if len(ages):
            rows.append(
                {
                    "version": version,
                    "serves": version == serving_version,
                    "users": len(ages),
                    "newest, days": ages.min(),
                    "median, days": ages.median(),
                    **{f"within {limit} d": f"{int((ages <= limit).sum()) / len(ages):.1%}" for limit in AGES},
                }
            )
    return pl.DataFrame(rows)
