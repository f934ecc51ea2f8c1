"""The rows that all of relevance reads: a logged candidate of a request, with the scores of a relevance model."""

from __future__ import annotations

from enum import StrEnum

import polars as pl

MAXIMUM_RELEVANCE = 5
"""The highest label."""
FEWEST_REQUESTS = 30
"""Requests without which a figure has no bounds: chance moves it too far."""

PRODUCTION, HOLDOUT = "production", "holdout"
"""The arms: what everybody gets, and what is never trimmed."""


class Log(StrEnum):
    """The logs of candidates."""

    impressions = "impressions"  # of the onsite market: all that was shown, and whatever else its owner logs
    funnel_sample = "funnel_sample"  # of the service: all candidates of a sample of its requests, up to the auction


CANDIDATES = pl.Schema(
    {
        "log": pl.String(),  # of ``Log``
        "request_id": pl.String(),  # keyed hash: tells requests apart, and leads to nobody without the home's secret
        "surface": pl.String(),
        "subject_item_id": pl.String(),
        "query": pl.String(),
        "item_id": pl.String(),
        "content_type": pl.String(),
        "category": pl.String(),  # the first level of the item's path
        "source": pl.String(),
        "stage": pl.String(),
        "arm": pl.String(),  # production or holdout
        "inclusion_probability": pl.Float64(),
        "trim_score": pl.Float64(),  # probability that the candidate is relevant, 0 to 1; null without a model
        "relevance": pl.Float64(),  # expected relevance, 0 (label 1) to 1 (label 5); null without a model
        "relevance_version": pl.String(),
        "features": pl.List(pl.Float32()),  # in the order of the version's features; null = not known
    }
)
"""Columns of the table ``scored_candidates``, one partition a day."""
