"""The judge of a candidate: the truth of a synthetic world, labels of raters, or the relevance model."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import polars as pl

from ml.relevance.candidates import MAXIMUM_RELEVANCE

PAIR = ("surface", "subject_item_id", "query", "item_id")
"""The columns that tell pairs of a subject item or a query with a candidate apart."""
PLACE = PAIR[:-1]
"""The columns that tell places apart: what a request is made beside."""
Judging = Callable[[pl.DataFrame], pl.DataFrame]
"""Adds relevant, gain and judge, as ``judged`` does, to pairs: ``PAIR``."""


class Judge(StrEnum):
    """The source of a judgement, the most trusted first."""

    truth = "truth"  # of the synthetic world, which no model reads
    labels = "labels"
    model = "model"


def newest_labels(labels: pl.DataFrame) -> pl.DataFrame:
    """Return the newest label of each rater for each pair; of several of one instant the highest."""
    key = [*PAIR, "rater_id"]
    return labels.sort("labelled_at", "label").unique(key, keep="last", maintain_order=True)


def label_judgements(labels: pl.DataFrame, *, relevant_label: int) -> pl.DataFrame:
    """Return one row for each labelled pair, as ``judged`` takes it.

    Returns:
        ``PAIR``, label_relevant (share of the raters who gave ``relevant_label`` or more), label_relevance (mean label,
        0 for label 1 to 1 for label 5).
    """
    scaled = (pl.col("label") - 1) / (MAXIMUM_RELEVANCE - 1)
    return (
        newest_labels(labels)
        .group_by(PAIR)
        .agg(label_relevant=(pl.col("label") >= relevant_label).mean(), label_relevance=scaled.mean())
    )


def judged(candidates: pl.DataFrame, labels: pl.DataFrame | None = None, *, relevant_label: int) -> pl.DataFrame:
    """Return candidates with a judgement each, by the most trusted judge that has one.

    Relevant is the probability that a rater gives ``relevant_label`` or more, so that its mean over many candidates is
    the expected fraction relevant: by the truth, the share of the raters who did, or the model's trim score.

    >>> candidates = {"surface": ["search"] * 2, "subject_item_id": [None] * 2, "query": ["lamp"] * 2}
    >>> candidates |= {"item_id": ["a", "b"], "trim_score": [0.3, None], "relevance": [0.4, None]}
    >>> schema = {"subject_item_id": pl.String}
    >>> judged(pl.DataFrame(candidates, schema_overrides=schema), relevant_label=4)["relevant", "judge"].rows()
    [(0.3, 'model'), (None, None)]

    Args:
        candidates: ``PAIR``, trim_score, relevance, and optionally true_relevant and true_relevance (0 to 1, null: not
            known).
        labels: of raters.

    Returns:
        The candidates in their order with relevant (0 to 1), gain (relevance from 0 to 1) and judge; all null where no
        judge knows the candidate, and where the surface has neither a subject item nor a query.
    """
    found = candidates
    unknown = {
        "true_relevance": pl.lit(None, pl.Float64),
        "true_relevant": pl.lit(None, pl.Float64),
        "label_relevant": pl.lit(None, pl.Float64),
        "label_relevance": pl.lit(None, pl.Float64),
    }
    if labels is not None:
        of_pairs = label_judgements(labels, relevant_label=relevant_label)
        found = found.join(of_pairs, on=PAIR, how="left", nulls_equal=True, maintain_order="left")
    found = found.with_columns(**{name: value for name, value in unknown.items() if name not in found.columns})
    judge = (
        pl.when(pl.col("true_relevant").is_not_null())
        .then(pl.lit(Judge.truth.value))
        .when(pl.col("label_relevant").is_not_null())
        .then(pl.lit(Judge.labels.value))
        .when(pl.col("trim_score").is_not_null())
        .then(pl.lit(Judge.model.value))
    )
    placed = pl.col("subject_item_id").is_not_null() | pl.col("query").is_not_null()
    return found.with_columns(
        relevant=pl.when(placed).then(pl.coalesce("true_relevant", "label_relevant", "trim_score")),
        gain=pl.when(placed).then(pl.coalesce("true_relevance", "label_relevance", "relevance")),
        judge=pl.when(placed).then(judge),
    ).drop(unknown.keys() - set(candidates.columns))
