"""The items of a catalogue that a user may be shown: one rule for the service, the export and the measured index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.availability import is_shown


@dataclass(frozen=True)
class Eligibility:
    """The availability and the countries of each item of a catalogue, by row.

    Attributes:
        available: [items] whether the item's word for its availability lets the item be shown.
        unrestricted: [items] whether the item names no countries, so that the item ships everywhere.
        ships_to: country -> [items] whether the item names the country.
    """

    available: NDArray[np.bool_]
    unrestricted: NDArray[np.bool_]
    ships_to: Mapping[str, NDArray[np.bool_]]

    @classmethod
    def of(cls, available: NDArray[np.bool_], countries: pl.Series) -> Eligibility:
        """Return the rule for the items of a catalogue.

        Args:
            available: [items] whether an item can be shown, as ``can_be_had`` returns it.
            countries: [items] the list of countries that an item ships to; null: everywhere.
        """
        named = countries.alias("country").to_frame().with_row_index("row").explode("country").drop_nulls()
        named = named.with_columns(_code(pl.col("country")))
        ships_to: dict[str, NDArray[np.bool_]] = {}
        for country, rows in named.group_by("country").agg("row").iter_rows():
            ships_to[country] = np.zeros(len(available), bool)
            ships_to[country][rows] = True
        return cls(available, countries.is_null().to_numpy(), ships_to)

    def mask(self, country: str | None, *, include_unavailable: bool = False) -> NDArray[np.bool_]:
        """Return whether each item [items] may be shown to a user in ``country``.

        None or a blank means an unknown country: every available item may be shown. Codes are compared without capitals
        and outer spaces.
        """
        mask = np.ones(len(self.available), bool) if include_unavailable else self.available.copy()
        if code := (country or "").strip().upper():
            mask &= self.unrestricted | self.ships_to.get(code, False)
        return mask


def can_be_had(availability: pl.Series) -> NDArray[np.bool_]:
    """Return whether each item's word for its availability [items] lets the item be shown."""
    return pl.select(is_shown(pl.lit(availability))).to_series().to_numpy()


def _code(country: pl.Expr) -> pl.Expr:
    return country.str.strip_chars().str.to_uppercase()
