"""The impression log of a day and the raters' labels, as an ad system would write them."""

from __future__ import annotations

import numpy as np
import polars as pl

from warehouse.contracts import STAGES
from warehouse.world.dynamics import World
from warehouse.world.log import EVENT_TIME
from warehouse.world.market.ads import NO_AD, Ads
from warehouse.world.market.downstream import IMPRESSED
from warehouse.world.market.legacy_generators import LEGACY_SOURCES
from warehouse.world.market.luck import Luck
from warehouse.world.market.market import OnsiteDay
from warehouse.world.market.requests import HOME_FEED, SURFACES, queries

IMPRESSION_SCHEMA = pl.Schema(
    {
        "request_id": pl.String(),
        "request_time": EVENT_TIME,
        "user_id": pl.String(),
        "surface": pl.String(),
        "subject_item_id": pl.String(),
        "query": pl.String(),
        "item_id": pl.String(),
        "ad_id": pl.String(),
        "source": pl.String(),
        "stage": pl.String(),
        "propensity": pl.Float64(),
        "price_paid": pl.Float64(),
        "value": pl.Float64(),
        "inclusion_probability": pl.Float64(),
    }
)


def log_impressions(world: World, ads: Ads, onsite: OnsiteDay) -> pl.DataFrame:
    """Return the impression log of one day: ``IMPRESSION_SCHEMA`` plus ``relevance``, the truth behind labels (0..1).

    All impressions are logged, and the other candidates of a share of the requests.
    """
    requests, candidates, outcome = onsite.requests, onsite.candidates, onsite.outcome
    number = np.zeros(len(requests), np.int64)
    complete = Luck(world.settings.seed).uniform("log", requests.key, number) < world.settings.market.complete_share
    kept = np.flatnonzero(complete[candidates.pairs.request] | (outcome.stage >= IMPRESSED))
    item, ad, stage = candidates.pairs.item[kept], outcome.ad[kept], outcome.stage[kept]
    shown = pl.Series(stage >= IMPRESSED)
    return (
        _asked(world, onsite)[candidates.pairs.request[kept]]
        .with_columns(
            item_id=world.catalogue.items.ids.gather(item),
            ad_id=ads.ids.gather(np.maximum(ad, 0)),
            source=pl.Series(LEGACY_SOURCES).gather(candidates.source[kept]),
            stage=pl.Series(STAGES).gather(stage),
            propensity=candidates.propensity[kept],
            price_paid=outcome.price_paid[kept],
            value=outcome.value[kept],
            relevance=outcome.relevance[kept],
            inclusion_probability=np.where(stage >= IMPRESSED, 1.0, world.settings.market.complete_share),
        )
        .with_columns(
            ad_id=pl.when(pl.Series(ad != NO_AD)).then("ad_id"),
            price_paid=pl.when(shown).then("price_paid"),
            value=pl.when(pl.col("stage") == STAGES[-1]).then("value"),
        )
    )


def rate(world: World, impressions: pl.DataFrame) -> pl.DataFrame:
    """Draw five-point labels of two raters, with rater noise, for a sample of (subject or query, candidate) pairs.

    Args:
        impressions: of ``log_impressions``, with its ``relevance``.
    """
    generator = world.settings.generator("raters")
    judged = impressions.filter(pl.col("surface") != SURFACES[HOME_FEED])
    number = min(world.settings.relevance_labels, judged.height)
    rows = np.sort(generator.choice(judged.height, number, replace=False)) if number else np.zeros(0, dtype=np.int64)
    pairs = pl.concat([judged[rows]] * 2)
    noise = generator.normal(0, world.settings.rater_noise, pairs.height)
    label = np.clip(np.rint(1 + 4 * pairs["relevance"].to_numpy() + noise), 1, 5).astype(np.int32)
    raters = pl.Series([f"rater-{number}" for number in range(10)])
    first = generator.integers(0, 10, number)
    other = (first + generator.integers(1, 10, number)) % 10
    return pairs.select(
        "surface",
        "subject_item_id",
        "query",
        "item_id",
        raters.gather(np.concatenate([first, other])).alias("rater_id"),
        pl.Series("label", label),
        (pl.col("request_time") + pl.duration(days=1)).alias("labelled_at"),
    )


def _asked(world: World, onsite: OnsiteDay) -> pl.DataFrame:
    """Return the columns that belong to the request, one row a request."""
    requests, items = onsite.requests, world.catalogue.items
    midnight = int(world.settings.midnight(requests.day).timestamp() * 1_000_000)
    subject = pl.Series(requests.subject)
    return pl.DataFrame(
        {
            "request_id": requests.ids,
            "request_time": pl.Series(midnight + (requests.second * 1e6).astype(np.int64)).cast(EVENT_TIME),
            "user_id": world.population.ids.gather(requests.person),
            "surface": pl.Series(SURFACES).gather(requests.surface),
            "subject_item_id": items.ids.gather(np.maximum(requests.subject, 0)),
            "query": queries(world, requests),
        }
    ).with_columns(subject_item_id=pl.when(subject >= 0).then("subject_item_id"))
