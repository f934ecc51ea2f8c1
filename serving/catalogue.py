"""The catalogue of a publication in the shape that requests need: arrays by row, and rows by name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.features.event_log import row_numbers
from ml.features.items import ItemFeatures
from ml.file_integrity import Unreadable, first_line, sha256_of
from ml.models.tensors import CatalogueTensors
from serving.contracts import Filters
from warehouse.eligibility import Eligibility
from warehouse.online.catalogue_ads import ads_in
from warehouse.online.publication import Publication

POPULARITY_DAYS = 28.0


def unreadable_catalogue(path: Path, why: str) -> Unreadable:
    """Return the error of a missing or damaged catalogue; the file's name is the day that writes the file."""
    return Unreadable(f"{path} cannot be read ({why}): run its day again (adseq run --days {path.stem} --again)")


def verify_catalogue(home: Path, publication: Publication) -> None:
    """Check the catalogue file of a publication against the checksum in the pointer.

    Raises:
        Unreadable: the file is missing, or does not match the checksum.
    """
    path = home / publication.catalogue
    try:
        found = sha256_of(path)
    except OSError as error:
        raise unreadable_catalogue(path, first_line(error)) from error
    if publication.catalogue_sha256 not in (None, found):
        raise unreadable_catalogue(path, "it does not match the checksum of its publication")


@dataclass(frozen=True)
class Attributes:
    """The attributes of each item, by row."""

    item_id: list[str]
    advertiser_id: list[str | None]
    title: list[str | None]
    category_path: list[str | None]
    amount: list[float | None]
    currency: list[str | None]


@dataclass(frozen=True)
class Catalogue:
    """All items, and of these the listed ones that the index holds."""

    frame: pl.DataFrame  # attributes, sorted by item_id
    features: ItemFeatures
    tensors: CatalogueTensors
    listed: NDArray[np.int64]  # [index rows] row of the item
    popularity: NDArray[np.float32]  # [index rows] log count of events in about the last four weeks
    ads: pl.DataFrame | None  # contract columns; None where the log has no ads

    @classmethod
    def read(cls, path: Path, index_item_ids: list[str], windows_days: list[float]) -> Catalogue:
        """Read the catalogue file of a publication.

        Raises:
            Unreadable: the file is missing or damaged.
            ValueError: the index holds an item that the catalogue lacks.
        """
        try:
            frame = pl.read_parquet(path, glob=False)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise unreadable_catalogue(path, first_line(error)) from error
        features, statistics = ItemFeatures.from_frame(frame)
        window = int(np.abs(np.array(windows_days) - POPULARITY_DAYS).argmin())
        listed = row_numbers(frame["item_id"], pl.Series(index_item_ids, dtype=pl.String))
        if (listed < 0).any():
            raise ValueError(
                f"{path} does not contain every item of the index: the two files come from different runs of the same "
                "day. Wait until the newer run has published."
            )
        if "content_type" not in frame.columns:  # a catalogue of before: the trim has one threshold for all its items
            frame = frame.with_columns(content_type=pl.lit(None, pl.String))
        attributes = frame.select(
            "item_id",
            "advertiser_id",
            "title",
            "category_path",
            "content_type",
            "stated_interests",
            "amount",
            "currency",
            "availability",
            "countries",
        )
        tensors, popularity = CatalogueTensors(features), statistics[listed, window]
        return cls(attributes, features, tensors, listed, popularity, ads_in(frame))

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Return item id -> row."""
        return {item_id: row for row, item_id in enumerate(self.frame["item_id"].to_list())}

    @cached_property
    def attributes(self) -> Attributes:
        """Return the attributes for people and ads, one list a column: reading a row of a frame would take too long."""
        return Attributes(*(self.frame[name].to_list() for name in Attributes.__annotations__))

    @cached_property
    def index_row_of(self) -> NDArray[np.int64]:
        """Return [items] the index row of each item, -1 where the item is not listed."""
        rows = np.full(len(self), -1)
        rows[self.listed] = np.arange(len(self.listed))
        return rows

    @cached_property
    def by_popularity(self) -> NDArray[np.int64]:
        """Return [index rows] the index rows, most popular first."""
        return np.argsort(-self.popularity, kind="stable")

    @cached_property
    def advertisers(self) -> dict[str, NDArray[np.int64]]:
        """Return advertiser id -> index rows of the advertiser's items."""
        rows = pl.DataFrame({"advertiser": self.frame["advertiser_id"].gather(self.listed)}).with_row_index("row")
        groups = rows.drop_nulls().group_by("advertiser").agg("row")
        return {name: np.array(own, np.int64) for name, own in groups.iter_rows()}

    def allowed(self, filters: Filters, country: str | None, instant: datetime) -> NDArray[np.bool_]:
        """Return the items [index rows] that a request may get at an instant.

        ``country`` is the user's country; the filters may name another one.
        """
        ships_to = filters.country or country
        mask = self.eligibility.mask(ships_to, instant, include_unavailable=filters.include_unavailable)
        if filters.minimum_price is not None:
            mask &= self._price >= filters.minimum_price
        if filters.maximum_price is not None:
            mask &= self._price <= filters.maximum_price
        for advertiser in filters.blocked_advertisers:
            mask[self.advertisers.get(advertiser, NOBODY)] = False
        return mask

    @cached_property
    def _price(self) -> NDArray[np.float64]:
        return self.frame["amount"].gather(self.listed).fill_null(float("nan")).to_numpy()

    @cached_property
    def eligibility(self) -> Eligibility:
        """Return the rule of stock, countries and ads for the listed items, by index row."""
        return Eligibility.of(self.frame.select("item_id", "availability", "countries")[self.listed], self.ads)

    def warm_up(self, instant: datetime) -> None:
        """Compute what is computed on first use, so that no request waits for it.

        Args:
            instant: about when the first request asks.
        """
        for name in (
            "row_of",
            "attributes",
            "index_row_of",
            "by_popularity",
            "advertisers",
            "_price",
            "eligibility",
        ):
            getattr(self, name)
        self.eligibility.mask(None, instant)  # all starts and ends of ads until now pass here


NOBODY = np.zeros(0, np.int64)
