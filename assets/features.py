"""Item features: the frozen content basis of a training period, and each day's features under it."""

from datetime import date

import dagster as dg
import polars as pl

from assets.common.metadata import MODELLING, columns, materialized
from assets.common.partitions import daily
from assets.common.workspace import Workspace
from assets.ingest import events, history, items, users
from assets.quality import data_quality
from assets.steps.item_features import features_of_day
from assets.steps.period import training_day, training_period
from assets.steps.skip_without_items import needs_items
from assets.steps.versions import item_versions, serving

GROUP = "features"


@dg.asset(
    group_name=GROUP,
    deps=[history, events, items, users],
    kinds={"scikitlearn", "deltalake"},
    owners=[MODELLING],
    description="Content of the items of the training period: the spectral embedding of the co-engagement graph, and "
    "the given embedding where there is one; and the attribute means from which new items get theirs. Frozen with "
    "the model version that learns under it.",
    metadata=columns(
        kind="String: item, advertiser, category, price or width", key="String", vector="List(Float32): unit length"
    ),
)
def content_basis(workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    from ml.features.dataset import build_dataset

    day = training_day(workspace.tables)
    effective = workspace.settings
    period = training_period(workspace, day)
    dataset = build_dataset(
        period.events,
        period.items,
        period.users,
        settings=effective.features,
        event_names=period.event_names,
        seed=effective.training.seed,
    )
    workspace.tables.write("content_basis", dataset.basis.to_frame(), {"as_of": day})
    catalogue, known = len(period.items), len(dataset.basis.items)
    return materialized(
        metadata={
            "as_of": str(day),
            "source": dataset.basis.source,
            "items": catalogue,
            "items_with_content": known,
            "share_with_content": known / max(catalogue, 1),
            "width": dataset.basis.width,
        }
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=daily,
    deps=[items, events, data_quality, "champion"],
    kinds={"polars", "deltalake"},
    owners=[MODELLING],
    description="Every item as of the day: content under the deployed version's basis (new items folded in from their "
    "attributes), category path, interests, price, hashed advertiser, and statistics as of the end of the day. No ids.",
    metadata=columns(
        item_id="String: key only, no feature",
        content="List(Float32): unit length",
        category="List(Int64): hash buckets of the path, root first",
        interests="List(Int64): hash buckets, most confident first",
        confidence="List(Float32)",
        advertiser="List(Int64): hash buckets",
        price="List(Float32): standardised log price, known or not",
        statistics="List(Float32): log counts by trailing window, age, seen",
        listed_from="Float64: seconds since 1970 UTC, -inf = always; the feed lists the item or an event shows it",
    ),
)
@needs_items
def item_features(context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    day = date.fromisoformat(context.partition_key)
    version = serving(workspace.tables, workspace.home, day, workspace.tracking.champion())
    item_versions(workspace.tables, workspace.home).record_deployment(day, version)
    features, statistics = features_of_day(workspace, version, day)
    frame = features.to_frame(statistics)
    workspace.tables.write("item_features", frame, {"model_version": version.name, "day": day})
    basis = workspace.item_model(version.deployed).basis
    known = frame["item_id"].is_in(basis.items["item_id"].implode())
    no_content = frame["content"].list.eval(pl.element().abs()).list.sum() == 0
    return materialized(
        metadata={
            "dagster/row_count": len(frame),
            "model_version": version.name,
            "new_items_folded_in": int((~known).sum()),
            "items_without_any_content": int(no_content.sum()),
            "share_with_category": float((features.category[:, 0] > 0).mean()) if len(frame) else 0.0,
            "share_with_price": float(features.price[:, 1].mean()) if len(frame) else 0.0,
        }
    )
