"""The ads of a publication: a column of its catalogue, so that items and ads change in one step."""

from __future__ import annotations

import polars as pl

from warehouse.contracts import SCHEMAS, LandingTable

COLUMN, _ITEM = "ads", "item_id"
_SCHEMA = pl.Schema(SCHEMAS[LandingTable.ads])
_OF_AN_AD = [name for name in _SCHEMA if name != _ITEM]


def with_ads(catalogue: pl.DataFrame, ads: pl.DataFrame | None) -> pl.DataFrame:
    """Add to each item the list of its ads; a catalogue of a log without ads (None) stays as it is."""
    if ads is None:
        return catalogue
    of_item = ads.sort("ad_id").group_by(_ITEM, maintain_order=True).agg(pl.struct(_OF_AN_AD).alias(COLUMN))
    return catalogue.join(of_item, on=_ITEM, how="left", maintain_order="left")


def ads_in(catalogue: pl.DataFrame) -> pl.DataFrame | None:
    """Return the ads that ``with_ads`` added, in contract columns; None where the log has no ads."""
    if COLUMN not in catalogue.columns:
        return None
    ads = catalogue.select(_ITEM, COLUMN).explode(COLUMN).drop_nulls(COLUMN).unnest(COLUMN)
    return ads.select(_SCHEMA.names()).cast(_SCHEMA)
