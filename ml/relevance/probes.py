"""The probes of the scrape: a fixed random sample of the logged requests, which is asked again every day."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.relevance.judgements import PLACE

BANDS = ("rare", "middle", "frequent")
"""Popularity of a place: a third of the requests each."""
PROBES = pl.Schema(
    {
        "surface": pl.String(),
        "subject_item_id": pl.String(),
        "query": pl.String(),
        "user_id": pl.String(),
        "stratum": pl.String(),
        "weight": pl.Float64(),
    }
)
FEWEST_IN_A_STRATUM = 2
"""Probes without which a stratum has no spread of its own."""


def population(asked: pl.DataFrame, categories: pl.DataFrame) -> pl.DataFrame:
    """Return every probe that the log knows, each once, with its stratum.

    A stratum is a surface x head category x popularity of the place, such as ``search|Home|rare``.

    Args:
        asked: surface, subject_item_id, query, user_id, requests: how many this user has made beside this place.
        categories: surface, subject_item_id, query, category (first level); a place that is missing has none.

    Returns:
        surface, subject_item_id, query, user_id, stratum.
    """
    places = asked.group_by(PLACE).agg(asked=pl.col("requests").cast(pl.Int64).sum()).sort("asked", *PLACE)
    share = (pl.col("asked").cum_sum() - pl.col("asked") / 2) / pl.col("asked").sum()
    band = pl.when(share < 1 / 3).then(pl.lit(BANDS[0])).when(share < 2 / 3).then(pl.lit(BANDS[1]))
    of_places = (
        places.with_columns(band=band.otherwise(pl.lit(BANDS[2])).over("surface"))
        .join(categories.unique(PLACE), on=PLACE, how="left", nulls_equal=True)
        .select(*PLACE, stratum=pl.concat_str("surface", pl.col("category").fill_null(""), "band", separator="|"))
    )
    users = asked.select(*PLACE, "user_id")
    return users.join(of_places, on=PLACE, how="left", nulls_equal=True).sort(*PLACE, "user_id")


def draw_probes(
    known: pl.DataFrame, number: int, *, seed: int, spreads: Mapping[str, float] | None = None
) -> pl.DataFrame:
    """Return a stratified sample of the probes.

    A probe's place in its stratum is its hash, and the first places are drawn: a log that grows by a hundredth changes
    about a hundredth of the sample. The strata share the probes by Neyman, 1934, "On the two different aspects of the
    representative method": in proportion to the size times the spread of a stratum.

    Args:
        known: of ``population``. number: of probes; all, where the log knows fewer.
        spreads: of ``spreads_of`` earlier scrapes; a stratum without a finite one gets the mean of the others. Without
            spreads a stratum's share is its size.

    Returns:
        ``PROBES``: the weights add up to 1 and are equal within a stratum.
    """
    if known.is_empty():
        return PROBES.to_frame()
    hashed = known.with_columns(place=pl.Series(_hashes(known, seed), dtype=pl.Float64)).sort("stratum", "place")
    strata = hashed.group_by("stratum", maintain_order=True).agg(size=pl.len())
    sizes = strata["size"].to_numpy().astype(np.float64)
    of_strata = [(spreads or {}).get(stratum) for stratum in strata["stratum"]]
    spread = np.array([np.nan if each is None else each for each in of_strata])
    measured = spread[np.isfinite(spread)]
    usual = float(np.mean(measured)) if measured.any() else 1.0
    spread = np.where(np.isfinite(spread), spread, usual)
    strata = strata.with_columns(drawn=pl.Series(allocate(sizes, np.maximum(spread, usual / 10), number)))
    drawn = (
        hashed.join(strata, on="stratum", maintain_order="left")
        .filter(pl.int_range(pl.len()).over("stratum") < pl.col("drawn"))
        .with_columns(weight=pl.col("size") / len(known) / pl.col("drawn"))
    )
    return drawn.select(PROBES.names()).cast(PROBES)


def spreads_of(measured: pl.LazyFrame) -> dict[str, float]:
    """Return the standard deviation of the gap in each stratum, by which the next scrape shares its probes.

    The gap is production less holdout. To divide it by the mean of the holdout, as a relative difference does, would
    change no share.

    Args:
        measured: stratum, production, holdout, a row a probe; null: without a value.
    """
    gap = (pl.col("production") - pl.col("holdout")).fill_nan(None)
    spreads = (
        measured.group_by("stratum").agg(spread=gap.std()).drop_nulls().sort("stratum").collect(engine="streaming")
    )
    return dict(spreads.rows())


def allocate(sizes: NDArray[np.float64], spreads: NDArray[np.float64], number: int) -> NDArray[np.int64]:
    """Return the probes of each stratum: no more than it has, at least two where it has two.

    >>> allocate(np.array([100.0, 100.0]), np.array([1.0, 3.0]), 40).tolist()
    [10, 30]
    >>> allocate(np.array([10.0, 100.0]), np.array([9.0, 1.0]), 60).tolist()  # the first has no more than ten
    [10, 50]
    """
    least = np.minimum(sizes, FEWEST_IN_A_STRATUM)
    share = np.zeros(len(sizes))
    full = np.zeros(len(sizes), bool)
    for _ in range(len(sizes)):
        open_size = np.where(full, 0.0, sizes * spreads)
        left = number - sizes[full].sum()
        if open_size.sum() <= 0 or left <= 0:
            break
        share = left * open_size / open_size.sum()
        over = ~full & (share >= sizes)
        if not over.any():
            break
        full |= over
    share = np.where(full, sizes, share)
    return np.clip(np.rint(share), least, sizes).astype(np.int64)


def _hashes(known: pl.DataFrame, seed: int) -> list[float]:
    """Return the place of each probe from 0 to 1, the same on every machine."""
    salt = seed.to_bytes(8, "little", signed=True)
    columns = known.select([*PLACE, "user_id"]).rows()
    return [
        int.from_bytes(blake2b(repr(each).encode(), digest_size=8, salt=salt).digest(), "little") / 2.0**64
        for each in columns
    ]
