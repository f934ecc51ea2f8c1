"""The impression log of a day, as an ad system would write it."""

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
from warehouse.world.market.requests import SURFACES, queries

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
LOG_SCHEMA = pl.Schema({**IMPRESSION_SCHEMA, "relevance": pl.Float64(), "complete": pl.Boolean()})
"""The log as the world knows it. What it adds to ``IMPRESSION_SCHEMA`` reaches no landing zone."""


def log_impressions(world: World, ads: Ads, onsite: OnsiteDay) -> pl.DataFrame:
    """Return the impression log of one day, of ``LOG_SCHEMA``.

    All impressions are logged, and the other candidates of a share of the requests: these requests are ``complete``.
    ``relevance`` is the truth behind labels, 0 to 1.
    """
    requests, candidates, outcome = onsite.requests, onsite.candidates, onsite.outcome
    number = np.zeros(len(requests), np.int64)
    whole = Luck(world.settings.seed).uniform("log", requests.key, number) < world.settings.market.complete_share
    complete = whole[candidates.pairs.request]
    kept = np.flatnonzero(complete | (outcome.stage >= IMPRESSED))
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
            complete=complete[kept],
            inclusion_probability=np.where(stage >= IMPRESSED, 1.0, world.settings.market.complete_share),
        )
        .with_columns(
            ad_id=pl.when(pl.Series(ad != NO_AD)).then("ad_id"),
            price_paid=pl.when(shown).then("price_paid"),
            value=pl.when(pl.col("stage") == STAGES[-1]).then("value"),
        )
        .select(LOG_SCHEMA.names())
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
