"""A home that has nothing but a labelling queue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from assets.steps.choose_pairs import described_pairs
from ml.relevance.labelling_queue import QUEUE
from warehouse.home import Home
from warehouse.home_record import HOME_FORMAT, HomeRecord, record_path
from warehouse.identity import UserKeys
from warehouse.queued_pairs import LABELLING_QUEUE
from warehouse.tables import Tables

DAY = date(2026, 3, 3)
ITEMS = pl.DataFrame(
    {
        "item_id": ["chair", "lamp", "rug", "mystery"],
        "title": ["Rustic Armchair", "Floor Lamp <b>", "Wool Rug", None],
        "category": ["Home > Furniture", "Home > Lighting", "Home > Textiles", None],
        "price": [120.0, 45.5, None, None],
        "currency": ["EUR", "EUR", None, None],
        "content_type": ["shopping", "video", "shopping", None],
    }
)
BESIDE_LAMP = {"surface": "related_pins", "subject_item_id": "chair", "item_id": "lamp"}
BESIDE_RUG = {"surface": "related_pins", "subject_item_id": "chair", "item_id": "rug"}
SEARCHED = {"surface": "search", "query": "red “chair”", "item_id": "mystery"}
PAIRS: Sequence[dict[str, Any]] = (BESIDE_LAMP, SEARCHED, BESIDE_RUG)


def queue(pairs: Sequence[dict[str, Any]] = PAIRS, **changed: Any) -> pl.DataFrame:
    """The rows of a queue, in the order of the pairs."""
    usual = {"reason": "drawn", "stage": "ranked", "inclusion_probability": 0.25, "rater_ids": []} | changed
    rows = [usual | pair | {"position": place} for place, pair in enumerate(pairs)]
    return described_pairs(pl.DataFrame(rows, schema=QUEUE), ITEMS)


def home_with_queue(root: Path, rows: pl.DataFrame | None = None, day: date = DAY) -> Home:
    """Write a queue into a home."""
    home = Home(root)
    if not record_path(home).exists():
        HomeRecord(format=HOME_FORMAT).write(home)
    UserKeys.of_home(home)  # the secret comes before the first table
    Tables(home.tables).write(LABELLING_QUEUE, queue() if rows is None else rows, {"day": day})
    return home
