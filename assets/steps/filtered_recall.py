"""How much of the true best the day's index finds among what may be shown: the service's search under real filters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from assets.common.workspace import Workspace
from assets.steps.encode import BuiltIndex, read_item_embeddings
from assets.steps.versions import ModelVersion
from warehouse.as_of import ads_as_of, users_as_of
from warehouse.days import day_end
from warehouse.eligibility import Eligibility

ASKED_USERS = 100

Filter = Callable[[str | None, NDArray[np.float32]], NDArray[np.bool_]]
"""From a user's country and embedding [width] to the index rows that may be shown."""


@dataclass(frozen=True)
class FilteredRecall:
    """One kind of filter."""

    name: str
    recall: float  # mean over the users; 1 without users
    lowest: float  # of one user


def recall_under_filters(
    workspace: Workspace, version: ModelVersion, day: date, built: BuiltIndex
) -> list[FilteredRecall]:
    """Return the recall of the day's written index under each kind of filter, for a part of the sampled users."""
    from ml.retrieval.index import allowed_recall
    from ml.retrieval.index_files import load_index

    item_ids, embeddings = read_item_embeddings(workspace.tables, version, day)
    index = load_index(Path(built.directory)).index
    users, queries = built.users.head(ASKED_USERS), built.queries[:ASKED_USERS]
    known = users.to_frame("user_id").join(
        users_as_of(workspace.tables, day), on="user_id", how="left", maintain_order="left"
    )
    found = []
    for name, allowed in _filters(workspace, day, item_ids, embeddings).items():
        recalls = [
            allowed_recall(index, query, embeddings, allowed=allowed(country, query))
            for query, country in zip(queries, known["country"], strict=True)
        ]
        found.append(FilteredRecall(name, float(np.mean(recalls or [1.0])), min(recalls, default=1.0)))
    return found


def _filters(
    workspace: Workspace, day: date, item_ids: pl.Series, embeddings: NDArray[np.float32]
) -> Mapping[str, Filter]:
    attributes = workspace.items_as_of(day).select("item_id", "advertiser_id", "availability", "countries")
    items = item_ids.alias("item_id").to_frame().join(attributes, on="item_id", how="left", maintain_order="left")
    rule = Eligibility.of(items, ads_as_of(workspace.tables, day))
    instant = day_end(day, workspace.landing.manifest.time_zone)
    advertiser = items["advertiser_id"].rank("dense").fill_null(0).to_numpy()

    def in_stock_and_country(country: str | None, query: NDArray[np.float32]) -> NDArray[np.bool_]:
        return rule.mask(country, instant)

    def best_advertiser_blocked(country: str | None, query: NDArray[np.float32]) -> NDArray[np.bool_]:
        best = int(np.argmax(embeddings @ query))
        return rule.mask(country, instant) & (advertiser != advertiser[best])

    return {"in_stock_and_country": in_stock_and_country, "best_advertiser_blocked": best_advertiser_blocked}
