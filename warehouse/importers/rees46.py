"""REES46's multi-category shop -> landing zone: views, carts and purchases; the brand stands for the advertiser.

The public monthly files (``2019-Oct.csv`` and the like, plain or gzip) through a mapping: they are streamed.
"""

from __future__ import annotations

from pathlib import Path

from settings import UNKNOWN_ADVERTISER, Settings
from warehouse.importers.landing_writer import SourceError
from warehouse.importers.mapping import Mapping
from warehouse.importers.tabular import TabularSummary, import_tables
from warehouse.landing import Landing

COLUMNS = {
    "item_id": "product_id",
    "advertiser_id": {"column": "brand", "default": UNKNOWN_ADVERTISER},
}
NAMES = {"view": "page_visit", "cart": "add_to_cart", "remove_from_cart": "remove_from_cart", "purchase": "checkout"}


def mapping(daily_days: int) -> Mapping:
    """Return the mapping of the public files' columns."""
    events = {
        "user_id": "user_id",
        "event_time": "event_time",
        "event_name": {"column": "event_type", "values": NAMES},
        "value": "price",
        "currency": {"constant": "USD"},
        **COLUMNS,
    }
    items = {
        "category": {"column": "category_code", "separator": "."},
        "price": "price",
        "currency": {"constant": "USD"},
        **COLUMNS,
    }
    return Mapping.model_validate(
        {
            "log": {"name": "REES46", "daily_days": daily_days, "positive_events": ["checkout", "add_to_cart"]},
            "table": [{"into": "events", "columns": events}, {"into": "items", "columns": items}],
        }
    )


def import_rees46(source: Path, landing: Landing, daily_days: int = 3) -> TabularSummary:
    """Write all CSV files of ``source`` into an empty or new landing zone.

    Raises:
        SourceError: there is no CSV file, one cannot be read, or the log has too few days.
    """
    files = sorted([*source.glob("*.csv"), *source.glob("*.csv.gz")])
    if not files:
        raise SourceError(f"{source} holds no *.csv or *.csv.gz: name the folder with REES46's monthly files")
    return import_tables(files, mapping(daily_days), landing, Settings().data.memory_gib)
