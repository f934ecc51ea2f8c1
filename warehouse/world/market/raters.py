"""The raters' labels of the world: candidates of whole requests, judged by two raters a day after the request."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from warehouse.contracts import MAXIMUM_LABEL, MINIMUM_LABEL, STAGES, RelevanceLabel
from warehouse.queued_pairs import GUIDELINES
from warehouse.world.dynamics import World
from warehouse.world.market.requests import HOME_FEED, SEARCH, SURFACES

RATERS = [f"rater-{number}" for number in range(10)]
CANDIDATES_OF_A_REQUEST = 12
"""Candidates of one request that raters judge; with fewer, an nDCG of one subject or query would say little."""

LABEL_COLUMNS = tuple(RelevanceLabel.columns())
WITHOUT_BIAS: Mapping[str, float] = {}


def rate(
    world: World, impressions: pl.DataFrame, *, day: int, pairs: int, bias: Mapping[str, float] = WITHOUT_BIAS
) -> pl.DataFrame:
    """Draw the labels that arrive on a day: rows of the landing table, two raters a pair.

    Half of the requests are searches as far as the log has them. The candidates of a request are spread over the stages
    of the funnel. ``inclusion_probability`` is that of the log, of the request among the logged ones of its surface,
    and of the candidate among those of its stage, multiplied.

    Args:
        impressions: of ``log_impressions``, of the days whose requests are judged.
        day: the number of the day on which the labels arrive; what is drawn depends on the seed and this day.
        pairs: number of pairs, to the nearest number of whole requests.
        bias: points that a rater, by name, gives more than the truth; 0 for the others.
    """
    generator = world.settings.generator("raters", day)
    logged = impressions.filter(pl.col("complete") & (pl.col("surface") != SURFACES[HOME_FEED]))
    requests = _drawn_requests(logged, wanted=round(pairs / CANDIDATES_OF_A_REQUEST), generator=generator)
    first = generator.integers(0, len(RATERS), requests.height)
    other = (first + generator.integers(1, len(RATERS), requests.height)) % len(RATERS)
    names = pl.Series(RATERS)
    requests = requests.with_columns(first=names.gather(first), other=names.gather(other))
    drawn = _drawn_candidates(logged.join(requests, on="request_id", maintain_order="left"), generator)
    judged = pl.concat([drawn.with_columns(rater_id=pl.col(rater)) for rater in ("first", "other")])
    seen = 1 + 4 * judged["relevance"].to_numpy() + generator.normal(0, world.settings.rater_noise, judged.height)
    seen += np.array([bias.get(name, 0.0) for name in judged["rater_id"]])
    return judged.with_columns(
        label=pl.Series(np.clip(np.rint(seen), MINIMUM_LABEL, MAXIMUM_LABEL)).cast(pl.Int32),
        template=pl.lit(GUIDELINES),
        labelled_at=pl.col("request_time") + pl.duration(days=1),
        inclusion_probability=world.settings.market.complete_share * pl.col("drawn"),
    ).select(LABEL_COLUMNS)


def _drawn_requests(logged: pl.DataFrame, wanted: int, generator: np.random.Generator) -> pl.DataFrame:
    """Return the names of ``wanted`` requests, and the probability ``request_drawn`` with which each is drawn."""
    requests = logged.select("request_id", search=pl.col("surface") == SURFACES[SEARCH]).unique(maintain_order=True)
    searches, others = requests.filter("search"), requests.filter(~pl.col("search"))
    of_searches = min(wanted // 2, searches.height)
    parts = []
    for names, number in ((searches, of_searches), (others, min(wanted - of_searches, others.height))):
        rows = np.sort(generator.choice(names.height, number, replace=False)) if number else np.zeros(0, np.int64)
        parts.append(names[rows].select("request_id", request_drawn=pl.lit(number / max(names.height, 1))))
    return pl.concat(parts)


def _drawn_candidates(candidates: pl.DataFrame, generator: np.random.Generator) -> pl.DataFrame:
    """Return at most ``CANDIDATES_OF_A_REQUEST`` of each request, about equally many of each stage.

    ``drawn`` is the probability that both the request and the candidate are drawn. Where the stages cannot share
    equally, the later stage has one more: fewer candidates reach it.
    """
    stage = ("request_id", "stage")
    return (
        candidates.with_columns(luck=generator.random(candidates.height))
        .with_columns(place=pl.col("luck").rank("ordinal").over(stage), size=pl.len().over(stage))
        .sort(
            "request_time", "request_id", "place", pl.col("stage").replace_strict(_LATEST_FIRST, return_dtype=pl.Int8)
        )
        .filter(pl.int_range(pl.len()).over("request_id") < CANDIDATES_OF_A_REQUEST)
        .with_columns(drawn=pl.col("request_drawn") * pl.len().over(stage) / pl.col("size"))
    )


_LATEST_FIRST = {stage: -number for number, stage in enumerate(STAGES)}
