"""The item features of one day under one model version: computed, or read where the table has them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.versions import ModelVersion
from warehouse.days import day_end

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ml.features.items import ItemFeatures


def features_of_day(workspace: Workspace, version: ModelVersion, day: date) -> tuple[ItemFeatures, NDArray[np.float32]]:
    """Return the item features under the version's basis and the statistics [items, width].

    Both are as of the end of ``day``.
    """
    from ml.features.event_log import row_numbers, to_seconds
    from ml.features.items import build_item_features, catalogue_statistics

    artifact = workspace.item_model(version.deployed)
    items, windows_days = workspace.items_as_of(day), artifact.settings.features.statistics_windows_days
    features = build_item_features(items, artifact.basis, artifact.settings.features)
    engaged = workspace.counted_events(day, windows_days)
    statistics = catalogue_statistics(
        items,
        row_numbers(items["item_id"], engaged["item_id"]),
        to_seconds(engaged["event_time"]),
        windows_days=windows_days,
        events=engaged["events"].to_numpy(),
    )
    features = replace(features, listed_from=statistics.listed_from)
    return features, statistics.at(day_end(day, workspace.landing.manifest.time_zone).timestamp())


def stored_features(workspace: Workspace, version: ModelVersion, day: date) -> tuple[ItemFeatures, NDArray[np.float32]]:
    """Return the item features of a day, from the table where the table has them."""
    from ml.features.items import ItemFeatures

    frame = _stored_frame(workspace, version, day)
    return features_of_day(workspace, version, day) if frame is None else ItemFeatures.from_frame(frame)


def features_frame(workspace: Workspace, version: ModelVersion, day: date) -> pl.DataFrame:
    """Return the item features of a day as the table holds them, sorted by item_id."""
    frame = _stored_frame(workspace, version, day)
    if frame is not None:
        return frame
    features, statistics = features_of_day(workspace, version, day)
    return features.to_frame(statistics)


def _stored_frame(workspace: Workspace, version: ModelVersion, day: date) -> pl.DataFrame | None:
    tables = workspace.tables
    if day not in tables.days("item_features", "day", {"model_version": version.name}):
        return None
    stored = tables.read("item_features", {"model_version": version.name, "day": day})
    return stored.sort("item_id")
