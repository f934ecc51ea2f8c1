"""Daily inference: states of active users, item embeddings, the index."""

import time
from datetime import date, timedelta

import dagster as dg
import polars as pl

from assets.common.metadata import MODELLING, columns, materialized, picture
from assets.common.partitions import daily
from assets.common.workspace import Workspace
from assets.features import item_features
from assets.ingest import ads
from assets.sequences import user_sequences
from assets.steps.encode import (
    BuiltIndex,
    encode_day,
    index_day,
    largest_difference_to_full,
    missing_days,
    renew_full_inference,
    write_item_embeddings,
)
from assets.steps.filtered_recall import recall_under_filters
from assets.steps.score_drift import ScoreDrift, record_scores
from assets.steps.skip_without_items import needs_items
from assets.steps.versions import item_versions, serving
from assets.training import champion
from warehouse.states import USER_STATES, compact, inferred_days

GROUP = "inference"
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36))
TOLERANCE = 1e-4  # batches of other lengths round differently; in fp32 the difference stays below 1e-5


@dg.asset(
    group_name=GROUP,
    partitions_def=daily,
    deps=[user_sequences, item_features, champion],
    kinds={"pytorch", "deltalake"},
    owners=[MODELLING],
    freshness_policy=FRESH,
    description="The deployed encoder over the users of the day's sequences only, appended to the states of the same "
    "model version. Days that this version has not seen yet, or saw with other arrivals, are caught up; the first "
    "state of a version is its full inference, made when it became champion.",
    metadata=columns(
        user_id="String",
        events="Int64: length of the encoded sequence",
        last_event_time="Datetime: UTC",
        state="List(Float32): the encoder's output, before context and head",
    ),
    check_specs=[
        dg.AssetCheckSpec(
            "incremental_equals_full",
            asset="user_states",
            description="A sample of an earlier day's users, re-encoded from the event log, has the stored states.",
        )
    ],
)
@needs_items
def user_states(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    day = date.fromisoformat(context.partition_key)
    version = serving(workspace.tables, workspace.home, day, workspace.tracking.champion())
    item_versions(workspace.tables, workspace.home).record_deployment(day, version)
    started = time.perf_counter()
    renewed = renew_full_inference(workspace, version)
    caught_up = missing_days(workspace, version, day)
    for earlier in caught_up:
        encode_day(workspace, version, earlier)
    inferred = encode_day(workspace, version, day)
    seconds = time.perf_counter() - started
    behind = compact(
        workspace.tables, USER_STATES, version.name, day=day, after_days=workspace.settings.inference.compaction_days
    )
    total = len(inferred_days(workspace.tables, version.name, day))
    log = {"model_version": version.name, "inferred": inferred, "active": inferred, "total": total, "seconds": seconds}
    workspace.tables.write("inference_log", pl.DataFrame([log]), {"day": day})
    difference = largest_difference_to_full(workspace, version, day)
    return materialized(
        metadata={
            "inferred_users": inferred,
            "total_users": total,
            "share_inferred": inferred / max(total, 1),
            "seconds": seconds,
            "model_version": version.name,
            "caught_up_days": len(caught_up),
            "full_inference_renewed": renewed,
            "partitions_behind_a_snapshot": behind,
            **workspace.engine.figures(),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="incremental_equals_full",
                passed=difference <= TOLERANCE,
                metadata={"largest_difference": difference, "tolerance": TOLERANCE},
            )
        ],
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=daily,
    deps=[item_features, user_states],
    kinds={"pytorch", "deltalake"},
    owners=[MODELLING],
    description="The item tower over the whole catalogue as of the day: statistics change daily, so embeddings do too. "
    "Items that the lists of a sample of users hold most score less (index.popularity_weight).",
    metadata=columns(
        item_id="String",
        embedding="List(Float32): of length 1, less where traits are unknown; then the popularity offset",
    ),
)
@needs_items
def item_embeddings(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    day = date.fromisoformat(context.partition_key)
    version = serving(workspace.tables, workspace.home, day, workspace.tracking.champion())
    embedded = write_item_embeddings(workspace, version, day)
    return materialized(
        metadata={
            "dagster/row_count": embedded.items,
            "width": embedded.width,
            "model_version": version.name,
            "popularity_weight": embedded.popularity_weight,
            **workspace.engine.figures(),
        }
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=daily,
    deps=[item_embeddings, user_states, ads],
    kinds={"faiss"},
    owners=[MODELLING],
    freshness_policy=FRESH,
    description="The FAISS index over the day's item embeddings: exact below about 100 k items, HNSW above, IVF-PQ by "
    "configuration. Written beside its place and renamed, so that a reader never sees half of it.",
    check_specs=[
        dg.AssetCheckSpec(
            "recall_against_brute_force",
            asset="item_index",
            blocking=True,
            description="Recall@100 of the index for a sample of users, against exact search.",
        ),
        dg.AssetCheckSpec(
            "recall_under_filters",
            asset="item_index",
            blocking=True,
            description="Recall of the service's search for a sample of users among the items that each user may "
            "be shown (in stock, in the country; also without the advertiser of the best item), against exact search.",
        ),
        dg.AssetCheckSpec(
            "scores_as_before",
            asset="item_index",
            description="The best items of a sample of users score as they did in the week before, under this model.",
        ),
        dg.AssetCheckSpec(
            "few_slots_never_engaged",
            asset="item_index",
            description="Of the first 100 slots of a sample of users, few hold items that nobody has engaged with.",
        ),
    ],
)
@needs_items
def item_index(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    day = date.fromisoformat(context.partition_key)
    version = serving(workspace.tables, workspace.home, day, workspace.tracking.champion())
    built = index_day(workspace, version, day)
    filtered = recall_under_filters(workspace, version, day, built)
    drift = record_scores(workspace.tables, version, day, built.best_scores)
    bound, shift_bound = workspace.settings.index.minimum_recall, workspace.settings.quality.score_shift_warn
    return materialized(
        metadata={
            "items": built.items,
            "kind": built.kind,
            **{f"recall_{each.name}": each.recall for each in filtered},
            "bytes": built.bytes,
            "seconds": built.seconds,
            "path": dg.MetadataValue.path(built.directory),
            "never_engaged@100": built.never_engaged or 0.0,
            "never_engaged_items": built.never_engaged_items,
            **_scores(drift),
            "model_version": version.name,
            **workspace.engine.figures(),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="recall_against_brute_force",
                passed=built.recall >= bound,
                metadata={f"recall@{min(100, built.items)}": built.recall, "bound": bound},
            ),
            dg.AssetCheckResult(
                check_name="recall_under_filters",
                passed=all(each.recall >= workspace.settings.index.minimum_filtered_recall for each in filtered),
                metadata={each.name: each.recall for each in filtered}
                | {f"{each.name}_lowest": each.lowest for each in filtered}
                | {"bound": workspace.settings.index.minimum_filtered_recall},
            ),
            dg.AssetCheckResult(
                check_name="scores_as_before",
                passed=drift.shift is None or abs(drift.shift) <= shift_bound,
                severity=dg.AssetCheckSeverity.WARN,
                description="too few days before to compare with" if drift.shift is None else "",
                metadata={"bound": shift_bound} | ({} if drift.shift is None else {"shift": drift.shift}),
            ),
            never_engaged_check(built, workspace.settings.quality.never_engaged_warn),
        ],
    )


def never_engaged_check(built: BuiltIndex, bound: float) -> dg.AssetCheckResult:
    """Return whether at most ``bound`` of the slots of a day's index hold items that nobody has engaged with."""
    share = built.never_engaged or 0.0
    return dg.AssetCheckResult(
        check_name="few_slots_never_engaged",
        passed=share <= bound,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{share:.1%} of the first 100 slots of a sample of users are items that nobody has engaged with, "
        f"which are {built.never_engaged_items:.1%} of the index",
        metadata={"share": share, "share_of_items": built.never_engaged_items, "bound": bound},
    )


def _scores(drift: ScoreDrift) -> dict[str, float | dg.MetadataValue]:
    if drift.by_day.is_empty():
        return {}
    from ml.figures.charts import scores_by_day

    names = ("lowest", "median", "highest")
    series = {name: drift.by_day[name].to_list() for name in names}
    curve = scores_by_day(drift.by_day["day"].to_list(), series, "Score of a user's best item")
    return {"median_best_score": series["median"][-1], "scores": picture(curve, "scores by day")}
