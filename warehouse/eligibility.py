"""The items of a catalogue that a user may be shown: one rule for the service, the export and the measured index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.availability import is_shown
from warehouse.best_ads import NO_AD, OFFER_SCHEMA, Ads, BestAds, Offer, named_countries


@dataclass(frozen=True)
class Eligibility:
    """The availability, the countries and the ads of each item of a catalogue, by row.

    Attributes:
        available: [items] whether the item's word for its availability lets the item be shown.
        unrestricted: [items] whether the item names no countries, so that the item ships everywhere.
        ships_to: country -> [items] whether the item names the country, or none.
        ads: the ads of the items; None where no ads are known, so that every item may be shown.
    """

    available: NDArray[np.bool_]
    unrestricted: NDArray[np.bool_]
    ships_to: Mapping[str, NDArray[np.bool_]]
    ads: BestAds | None

    @classmethod
    def of(cls, items: pl.DataFrame, ads: pl.DataFrame | None) -> Eligibility:
        """Return the rule for the items of a catalogue.

        Args:
            items: item_id, availability, countries (null: everywhere), by row of the index.
            ads: the newest version of each ad, contract columns; None where no ad has ever arrived.
        """
        unrestricted, ships_to = named_countries(items["countries"])
        best = None if ads is None else BestAds(Ads.of(ads, items["item_id"]))
        return cls(can_be_had(items["availability"]), unrestricted, ships_to, best)

    def mask(self, country: str | None, instant: datetime, *, include_unavailable: bool = False) -> NDArray[np.bool_]:
        """Return whether each item [items] may be shown to a user in ``country`` at an instant.

        Where there are ads, an item needs an ad that may be shown there and then. None or a blank means an unknown
        country: countries do not count. Codes are compared without capitals and outer spaces.
        """
        mask = np.ones(len(self.available), bool) if include_unavailable else self.available.copy()
        if code := (country or "").strip().upper():
            mask &= self.ships_to.get(code, self.unrestricted)
        if self.ads is not None:
            self.ads.move_to(instant)
            mask &= self.ads.view(country).shown
        return mask

    def offer(self, country: str | None, item: int) -> Offer | None:
        """Return the best ad of an item [row] for a user in ``country``, at the instant of the newest ``mask``.

        None where there is no such ad.
        """
        row = NO_AD if self.ads is None else int(self.ads.view(country).best[item])
        return None if self.ads is None or row == NO_AD else self.ads.ads.offers[row]

    def ad_rows(self, country: str | None, items: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the rows in ``offers`` of the best ads of items [rows], as ``offer`` does; ``NO_AD`` for none.

        An item of -1 has none. The result has the shape of ``items``.
        """
        if self.ads is None:
            return np.full(items.shape, NO_AD, np.int32)
        return np.where(items >= 0, self.ads.view(country).best[items], np.int32(NO_AD))

    @property
    def offers(self) -> pl.DataFrame:
        """Return the offers of all ads: columns of ``OFFER_SCHEMA``."""
        return pl.DataFrame(schema=OFFER_SCHEMA) if self.ads is None else self.ads.ads.offer_frame


def can_be_had(availability: pl.Series) -> NDArray[np.bool_]:
    """Return whether each item's word for its availability [items] lets the item be shown."""
    return pl.select(is_shown(pl.lit(availability))).to_series().to_numpy()
