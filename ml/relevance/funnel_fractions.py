"""The fraction of relevant candidates at each stage of the funnel, by surface, content type and category."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import scipy.sparse as sparse
from numpy.typing import NDArray

from ml.relevance.calibration import UNKNOWN_TYPE
from ml.relevance.candidates import FEWEST_REQUESTS, HOLDOUT, Log
from ml.relevance.judgements import Judge

ALL = "all"
SEGMENTS = (ALL, "surface", "content_type", "category")
"""What candidates are told apart by: not at all, or by one column."""
SHOWN = "impressed"
"""The first stage that the service's sample does not know."""
CELL = ["segment", "group", "stage"]
SCHEMA = pl.Schema(
    {
        "segment": pl.String(),
        "group": pl.String(),
        "stage": pl.String(),
        "fraction": pl.Float64(),
        "low": pl.Float64(),
        "high": pl.Float64(),
        "change": pl.Float64(),
        "change_low": pl.Float64(),
        "change_high": pl.Float64(),
        "candidates": pl.Int64(),
        "requests": pl.Int64(),
        "labelled": pl.Float64(),
    }
)


def funnel_fractions(judged: pl.DataFrame, stages: Sequence[str], *, samples: int, seed: int) -> pl.DataFrame:
    """Return the fraction relevant of the candidates that reached each stage or a later one.

    A candidate counts as often as the inverse of its inclusion probability: Horvitz and Thompson, 1952, "A
    generalization of sampling without replacement from a finite universe". The candidates of a request resemble each
    other, so the bootstrap draws requests.

    A stage is measured on one log. Where the service has sampled a surface, the stages before ``SHOWN`` are those of
    the sample, and impressions count from ``SHOWN`` on. The holdout, which is never trimmed, does not count. Of two
    retrieved candidates the relevant one is ranked:

    >>> log = {"request_id": ["a", "a"], "surface": ["search"] * 2, "content_type": ["video"] * 2}
    >>> log |= {"log": ["impressions"] * 2, "arm": ["production"] * 2, "category": ["Home"] * 2}
    >>> log |= {"stage": ["retrieved", "ranked"], "inclusion_probability": [1.0, 1.0]}
    >>> log |= {"relevant": [0.0, 1.0], "judge": ["model", "labels"]}
    >>> found = funnel_fractions(pl.DataFrame(log), ["retrieved", "ranked"], samples=0, seed=0)
    >>> found.filter(segment="all").select("stage", "fraction", "change", "labelled").rows()
    [('retrieved', 0.5, None, 0.5), ('ranked', 1.0, 0.5, 1.0)]

    Args:
        judged: log, request_id, arm, surface, content_type, category, stage, inclusion_probability (null: 1), and
            relevant and judge of ``ml.relevance.judgements.judged``. A row without a judgement does not count. A
            candidate without a content type, or without a category, is of the group ``unknown``.
        stages: names in order. samples: of the bootstrap; 0: no bounds.

    Returns:
        ``SCHEMA``: fraction with its 95 % interval (null with few requests); change, the fraction less that of the
        stage before, with its interval of the same draws; candidates, requests: that were logged; labelled: share of
        the weight of candidates that raters judged. Rows by segment, group and stage; a stage without a candidate has
        no row.
    """
    sums = _sums(judged, stages)
    if sums.is_empty():
        return SCHEMA.to_frame()
    cells = sums.group_by(CELL).agg(
        fraction=pl.col("relevant").sum() / pl.col("weight").sum(),
        labelled=pl.col("labelled").sum() / pl.col("weight").sum(),
        candidates=pl.col("candidates").sum().cast(pl.Int64),
        requests=pl.len().cast(pl.Int64),
    )
    cells = cells.sort(CELL).with_row_index("cell")
    drawn = _drawn_fractions(sums.join(cells.select("cell", *CELL), on=CELL), len(cells), samples, seed=seed)
    before = cells["cell"].to_numpy().astype(np.int64) - 1
    low, high = _bounds(drawn)
    change_low, change_high = _bounds(drawn - drawn[np.maximum(before, 0)])
    change = cells["fraction"].to_numpy() - cells["fraction"].to_numpy()[np.maximum(before, 0)]
    many = pl.when(pl.col("requests") >= FEWEST_REQUESTS)
    known = pl.when(pl.struct("segment", "group").shift().eq_missing(pl.struct("segment", "group")))
    return (
        cells.with_columns(low=low, high=high)
        .with_columns(change=known.then(change), change_low=known.then(change_low), change_high=known.then(change_high))
        .with_columns(
            pl.col("stage").replace_strict(dict(enumerate(stages)), return_dtype=pl.String),
            *(many.then(bound).alias(bound) for bound in ("low", "high", "change_low", "change_high")),
        )
        .select(SCHEMA.names())
        .cast(SCHEMA)
    )


def _sums(judged: pl.DataFrame, stages: Sequence[str]) -> pl.DataFrame:
    """Return weighted sums, a row for each ``CELL`` (stage by its place) and request with a candidate in it."""
    place = pl.col("stage").replace_strict(list(stages), range(len(stages)), return_dtype=pl.Int64)
    weight = 1 / pl.col("inclusion_probability").cast(pl.Float64).fill_null(1.0)
    is_sampled = pl.col("log") == Log.funnel_sample.value
    shown = stages.index(SHOWN) if SHOWN in stages else len(stages)
    first = pl.when(~is_sampled & is_sampled.any().over("surface")).then(shown).otherwise(0)
    rows = (
        judged.lazy()
        .filter(pl.col("relevant").is_not_null(), pl.col("arm") != HOLDOUT)
        .select(
            "request_id",
            pl.lit("").alias(ALL),
            "surface",
            pl.col("content_type", "category").fill_null(UNKNOWN_TYPE),
            stage=pl.int_ranges(first, pl.max_horizontal(first, place + 1)),
            weight=weight,
            relevant=weight * pl.col("relevant"),
            labelled=weight * (pl.col("judge") == Judge.labels.value).cast(pl.Float64),
        )
        .explode("stage")
        .drop_nulls("stage")
    )
    by_segment = [
        rows.group_by(pl.lit(number).alias("segment"), pl.col(segment).alias("group"), "stage", "request_id").agg(
            pl.col("weight", "relevant", "labelled").sum(), candidates=pl.len()
        )
        for number, segment in enumerate(SEGMENTS)
    ]
    names = pl.col("segment").replace_strict(range(len(SEGMENTS)), SEGMENTS, return_dtype=pl.Enum(SEGMENTS))
    return pl.concat(by_segment).with_columns(names).collect()


def _drawn_fractions(sums: pl.DataFrame, cells: int, samples: int, *, seed: int) -> NDArray[np.float64]:
    """Return the fraction of each cell in each bootstrap sample of the requests [cells, samples]."""
    request = (sums["request_id"].rank("dense") - 1).to_numpy().astype(np.int64)
    requests = int(request.max()) + 1
    places = (sums["cell"].to_numpy().astype(np.int64), request)
    weights, relevants = (
        sparse.csr_array((sums[name].to_numpy(), places), shape=(cells, requests)) for name in ("weight", "relevant")
    )
    generator = np.random.default_rng(seed)
    drawn = np.empty((cells, samples))
    for sample in range(samples):
        times = np.bincount(generator.integers(0, requests, requests), minlength=requests)
        with np.errstate(invalid="ignore"):
            drawn[:, sample] = (relevants @ times) / (weights @ times)
    return drawn


def _bounds(drawn: NDArray[np.float64]) -> tuple[pl.Series, pl.Series]:
    """Return the bounds of 95 % of the samples of each cell; null without a sample that has a value."""
    found = np.full((2, len(drawn)), np.nan)
    known = np.isfinite(drawn).any(axis=1)
    found[:, known] = np.nanquantile(drawn[known], [0.025, 0.975], axis=1)
    low, high = (pl.Series(each).fill_nan(None) for each in found)
    return low, high
