"""Rows and files that arrive in a landing zone."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from settings import DataSettings
from warehouse.contracts import LandingTable
from warehouse.landing import Landing
from warehouse.tables import Tables

DAY = date(2026, 3, 10)


NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


TOLERANT = DataSettings(maximum_quarantine_share=1.0)


EVENTS, ITEMS = LandingTable.events, LandingTable.items


def event(event_id: str | None, **fields: Any) -> dict[str, Any]:
    defaults = {"user_id": "u", "event_time": NOON, "event_name": "checkout", "item_id": "i", "advertiser_id": None}
    return {"event_id": event_id, **defaults, "value": 1.0, "search_string": None, **fields}


def random_rows(random: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """Return rows with repeated keys and equal times, late rows, and rows that break rules."""
    rows = [
        event(
            str(random.integers(60)),
            user_id=f"u{random.integers(12)}",
            event_time=NOON - timedelta(hours=int(random.integers(30))),
            item_id=f"i{random.integers(5)}",
        )
        for _ in range(count)
    ]
    for row in random.choice(np.array(rows), count // 10, replace=False):
        row |= random.choice(np.array([{"event_name": "unheard of"}, {"user_id": None}, {"value": -1.0}]))
    return rows


def arrive(landing: Landing, rows: list[dict[str, Any]], day: date | None = DAY, part: str = "part-0") -> Path:
    return landing.write(EVENTS, day, pl.DataFrame(rows, infer_schema_length=None), part)


def write_text(landing: Landing, name: str, text: str, table: LandingTable = EVENTS) -> Path:
    folder = landing.folder(table, DAY)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def ids(tables: Tables, day: date = DAY) -> list[str]:
    return sorted(tables.read("events", {"arrival_date": day})["event_id"])


def as_csv(rows: list[dict[str, Any]]) -> str:
    return pl.DataFrame(rows, infer_schema_length=None).write_csv(datetime_format="%Y-%m-%dT%H:%M:%SZ")


def as_json_lines(rows: list[dict[str, Any]]) -> str:
    texts = [{name: str(value) if name == "event_time" else value for name, value in row.items()} for row in rows]
    return "\n".join(json.dumps(row) for row in texts) + "\n"
