"""The labelling queue: the pairs that raters get next, drawn from the logged candidates of a day."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.relevance.candidates import CANDIDATES
from ml.relevance.judgements import PAIR

CHOSEN_BY = pl.Schema(
    {name: CANDIDATES[name] for name in (*PAIR, "stage", "content_type", "inclusion_probability", "relevance")}
)
"""The columns of ``CANDIDATES`` that decide what raters get."""

STRATA = ("surface", "stage", "content_type", "score_decile")
DECILES = 10


class Reason(StrEnum):
    """Why raters get a pair."""

    reported = "reported"  # somebody has found that the candidate does not fit
    drawn = "drawn"  # at random


QUEUE = pl.Schema(
    {
        "position": pl.Int64(),  # from 0: the order in which raters get the pairs
        "reason": pl.String(),
        "surface": pl.String(),
        "subject_item_id": pl.String(),
        "query": pl.String(),
        "item_id": pl.String(),
        "stage": pl.String(),  # null for a reported pair
        "content_type": pl.String(),
        "score_decile": pl.Int64(),  # of the relevance among the candidates of the day, from 0; null without a model
        "inclusion_probability": pl.Float64(),  # null for a reported pair
        "rater_ids": pl.List(pl.String()),  # who have judged the pair already
    }
)


def next_pairs(
    candidates: pl.DataFrame,
    labels: pl.DataFrame,
    feedback: pl.DataFrame,
    *,
    catalogue: pl.Series,
    pairs: int,
    raters_per_pair: int,
    generator: np.random.Generator,
) -> pl.DataFrame:
    """Choose the pairs that raters get after a day: reported ones and a stratified sample in random order, by turns.

    A pair has its place only if the catalogue has the candidate and the subject item, where there is one.

    The sample is drawn from the distinct pairs of the day that lack raters. A pair with several candidates of the day
    is drawn at the stage of one of them, chosen at random. The strata (``STRATA``) share the places equally, as far as
    they have the pairs; where there are more strata than places, strata are drawn at random, too.
    ``inclusion_probability`` is the logging probability times the probability of the draw, so that sums over the drawn
    pairs, each divided by it, are unbiased. Source: Horvitz and Thompson, 1952, "A generalization of sampling without
    replacement from a finite universe".

    A reported pair that is not drawn has no such probability. At most ``pairs`` of these come, the most often reported
    first; the others have their turn on later days. Every other place is that of a drawn pair, so that reports, which
    anybody can invent, never keep raters from the sample.

    Args:
        candidates: of ``CHOSEN_BY``, of one day.
        labels: surface, subject_item_id, query, item_id and rater_id of all labels so far.
        feedback: surface, subject_item_id, query, item_id and given_at of the reports that still count.
        catalogue: item ids.
        pairs: number of pairs to draw.
        raters_per_pair: a pair with so many raters is done.

    Returns:
        Rows of ``QUEUE``; a pair once.
    """
    raters = labels.group_by(PAIR).agg(rater_ids=pl.col("rater_id").unique().sort())
    pool = _with_raters(_pairs_of(_known(candidates, catalogue), generator), raters, raters_per_pair)
    drawn = _drawn(pool, pairs, generator)
    reported = _with_raters(_reported(_known(feedback, catalogue)), raters, raters_per_pair).head(pairs)
    known = pool.select(*PAIR, "content_type")
    only_reported = reported.join(drawn, on=PAIR, how="anti", nulls_equal=True, maintain_order="left").join(
        known, on=PAIR, how="left", nulls_equal=True, maintain_order="left"
    )
    drawn = drawn.with_columns(
        reason=pl.lit(Reason.drawn.value),
        place=pl.Series(2 * generator.permutation(drawn.height) + 1, dtype=pl.Int64),
    )
    only_reported = only_reported.with_columns(
        reason=pl.lit(Reason.reported.value), place=2 * pl.int_range(pl.len(), dtype=pl.Int64)
    )
    queue = pl.concat([only_reported, drawn], how="diagonal_relaxed").sort("place")
    queue = queue.with_columns(position=pl.int_range(pl.len(), dtype=pl.Int64))
    return pl.concat([pl.DataFrame(schema=QUEUE), queue.select(c for c in QUEUE if c in queue.columns)], how="diagonal")


def _known(pairs: pl.DataFrame, catalogue: pl.Series) -> pl.DataFrame:
    """Return the pairs whose candidate, and whose subject item, where there is one, are in the catalogue."""
    items = catalogue.implode()
    subject = pl.col("subject_item_id")
    return pairs.filter(pl.col("item_id").is_in(items), subject.is_null() | subject.is_in(items))


def _pairs_of(candidates: pl.DataFrame, generator: np.random.Generator) -> pl.DataFrame:
    """Return the distinct pairs in a fixed order, each with one of its candidates, chosen at random."""
    placed = candidates.filter(pl.col("subject_item_id").is_not_null() | pl.col("query").is_not_null())
    scored = placed.select(
        *PAIR,
        "stage",
        "content_type",
        "inclusion_probability",
        score_decile=(DECILES * (pl.col("relevance").rank("min") - 1) // pl.col("relevance").count()).cast(pl.Int64),
    ).sort(pl.all())
    return (
        scored.with_columns(luck=generator.random(scored.height))
        .sort("luck")
        .unique(PAIR, keep="first")
        .sort(*PAIR)
        .drop("luck")
    )


def _with_raters(pairs: pl.DataFrame, raters: pl.DataFrame, enough: int) -> pl.DataFrame:
    """Return the pairs that have fewer than ``enough`` raters, with the raters whom they have."""
    return (
        pairs.join(raters, on=PAIR, how="left", nulls_equal=True, maintain_order="left")
        .with_columns(pl.col("rater_ids").fill_null([]))
        .filter(pl.col("rater_ids").list.len() < enough)
    )


def _drawn(pool: pl.DataFrame, pairs: int, generator: np.random.Generator) -> pl.DataFrame:
    """Return a stratified sample of the pairs, with the probability of each."""
    sizes = pool.group_by(STRATA).len("size").sort(STRATA)
    sure, chance = shared_out(sizes["size"].to_numpy(), pairs)
    more = np.zeros(len(sure), np.int64)
    places = round(chance.sum())
    more[generator.choice(len(sure), places, replace=False, p=chance / places) if places else []] = 1
    sizes = sizes.with_columns(taken=sure + more, expected=sure + chance)
    return (
        pool.with_columns(luck=generator.random(pool.height))
        .join(sizes, on=STRATA, how="left", nulls_equal=True, maintain_order="left")
        .filter(pl.col("luck").rank("ordinal").over(STRATA) <= pl.col("taken"))
        .with_columns(inclusion_probability=pl.col("inclusion_probability") * pl.col("expected") / pl.col("size"))
        .drop("luck", "size", "taken", "expected")
    )


def shared_out(sizes: NDArray[np.int64], places: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Share places equally among strata, of which none takes more than it has.

    Return the number of places that each stratum has for sure, and its probability of one more [strata]. The strata
    that could take more have an equal chance of what is left.

    Seven places among four strata, one of which has a single pair:

    >>> sure, chance = shared_out(np.array([5, 1, 9, 3]), 7)
    >>> sure.tolist(), chance.tolist()
    ([2, 1, 2, 2], [0.0, 0.0, 0.0, 0.0])
    >>> sure, chance = shared_out(np.array([5, 1, 9, 3]), 2)
    >>> sure.tolist(), chance.tolist()
    ([0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5])
    """
    levels = np.arange(min(places, int(sizes.max(initial=0))) + 1)
    together = np.minimum(sizes[:, None], levels).sum(axis=0)
    level = int(np.searchsorted(together, places, side="right")) - 1 if len(sizes) else 0
    sure = np.minimum(sizes, level).astype(np.int64)
    could = sizes > sure
    left = min(places, int(sizes.sum())) - int(sure.sum())
    chance = np.where(could, left / max(int(could.sum()), 1), 0.0)
    return sure, chance


def _reported(feedback: pl.DataFrame) -> pl.DataFrame:
    """Return the distinct pairs that reports name, the most often reported first, then the oldest."""
    return (
        feedback.filter(pl.col("subject_item_id").is_not_null() | pl.col("query").is_not_null())
        .group_by(PAIR)
        .agg(reports=pl.len(), first=pl.col("given_at").min())
        .sort(-pl.col("reports").cast(pl.Int64), "first", *PAIR)
        .select(PAIR)
    )
