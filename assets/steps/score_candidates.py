"""The logged candidates of a day, scored by the relevance model that the day uses."""

from __future__ import annotations

from datetime import date

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.pair_catalogue import pair_catalogue
from assets.steps.relevance_versions import relevance_model
from warehouse.as_of import arrived_by
from warehouse.contracts import ARMS, CATEGORY_SEPARATOR, LandingTable
from warehouse.identity import UserKeys
from warehouse.surfaces import carries_its_place
from warehouse.tables import Tables

SCORED_CANDIDATES = "scored_candidates"
_LOGGED = {
    LandingTable.impressions: {"request_id": pl.col("request_id"), "arm": pl.lit(ARMS[0])},
    LandingTable.funnel_sample: {"request_id": pl.col("sample_id"), "arm": pl.col("arm")},
}
"""The two logs of candidates, with their names for a request and their arm."""


def score_candidates(workspace: Workspace, day: date) -> pl.DataFrame:
    """Return the candidates that arrived on ``day``, in columns ``CANDIDATES``.

    A candidate of a request that the service would refuse is left out, and so is one with no subject item or query. A
    request has a keyed hash of its day and its id: the id itself leads to the user, through the impressions. A
    candidate that the service sampled keeps the features that the service saw. Without a relevance model, the
    candidates have no scores and no features.
    """
    from ml.relevance.candidates import CANDIDATES

    logged = pl.concat([_arrived(workspace, table, day) for table in _LOGGED])
    dated = logged.select(pl.format("{} {}", pl.lit(str(day)), "request_id")).to_series()
    logged = logged.with_columns(request_id=UserKeys.of_home(workspace.home).keys(dated))
    known = workspace.items_as_of(day).select(
        "item_id", "content_type", category=pl.col("category").str.split(CATEGORY_SEPARATOR).list.first()
    )
    candidates = logged.join(known, on="item_id", maintain_order="left")
    return _scored(workspace, day, candidates).select(CANDIDATES.names()).cast(CANDIDATES)


def scored_on(tables: Tables, first: date, last: date) -> pl.LazyFrame:
    """Return the scored candidates of the days from ``first`` to ``last``, lazily, with the day.

    A row from before the table named the log counts as one of impressions.
    """
    from ml.relevance.candidates import CANDIDATES

    stored = tables.newest(SCORED_CANDIDATES)
    scored = stored.scan().filter(pl.col("day") >= first, pl.col("day") <= last)
    if "log" not in stored.schema:
        scored = scored.with_columns(log=pl.lit(None, pl.String))
    log = pl.col("log").fill_null(LandingTable.impressions.value)
    return scored.with_columns(log).select("day", *CANDIDATES.names())


def _arrived(workspace: Workspace, table: LandingTable, day: date) -> pl.DataFrame:
    rows = arrived_by(workspace.tables, table, day).filter(pl.col("arrival_date") == day)
    seen = pl.col("features") if table is LandingTable.funnel_sample else pl.lit(None, pl.List(pl.Float32))
    by = pl.col("relevance_version") if table is LandingTable.funnel_sample else pl.lit(None, pl.String)
    return (
        rows.filter(carries_its_place())
        .select(
            log=pl.lit(table.value),
            **_LOGGED[table],
            surface="surface",
            subject_item_id="subject_item_id",
            query="query",
            item_id="item_id",
            source="source",
            stage="stage",
            inclusion_probability=pl.col("inclusion_probability").fill_null(1.0),
            seen=seen,
            seen_by=by,
        )
        .collect()
    )


def _scored(workspace: Workspace, day: date, candidates: pl.DataFrame) -> pl.DataFrame:
    """Return the candidates with features and scores; a candidate whose subject the catalogue lacks has neither."""
    import numpy as np

    model = relevance_model(workspace, day)
    absent = [pl.lit(None, pl.Float64).alias(name) for name in ("trim_score", "relevance")]
    if model is None or not len(candidates):
        return candidates.with_columns(
            *absent, relevance_version=pl.lit(None, pl.String), features=pl.lit(None, pl.List(pl.Float32))
        )
    described, found = pair_catalogue(workspace, day, model.text).features_of(candidates)
    features = np.full((len(candidates), len(model.feature_names)), np.nan, np.float32)
    features[described] = found
    logged = (candidates["seen"].is_not_null() & (candidates["seen_by"] == model.version)).fill_null(False)
    if logged.any():
        seen = candidates["seen"].filter(logged).list.to_array(len(model.feature_names)).to_numpy()
        features[logged.to_numpy()] = seen
    scores = model.scores(features, candidates)
    has_features = pl.Series(described) | logged
    return candidates.with_columns(
        pl.Series("features", features).arr.to_list().list.eval(pl.element().fill_nan(None)),
        trim_score=pl.Series(scores.trim),
        relevance=pl.Series(scores.relevance),
        relevance_version=pl.lit(model.version),
    ).with_columns(
        pl.when(has_features).then(name).alias(name)
        for name in ("features", "trim_score", "relevance", "relevance_version")
    )
