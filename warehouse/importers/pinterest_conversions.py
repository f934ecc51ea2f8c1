"""Events as they are sent to the Pinterest Conversions API -> landing zone.

JSON lines (an event each) or JSON documents ``{"data": [events]}``, plain or gzip. An event that names several products
becomes one for each. A user is the first ``external_id``, else the first hashed e-mail (``em``), else the click; an
event without any of them cannot be anybody's and is left out and counted. The API knows one advertiser an account, so
that its id is given; the brand of a product, where it is said, is the advertiser instead.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.contracts import EVENT_NAMES, SCHEMAS, LandingTable
from warehouse.importers.writing import ImportSummary, Log, SourceError, write_log
from warehouse.landing import Landing, Manifest

SUFFIXES = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")


def import_pinterest_conversions(
    source: Path, landing: Landing, daily_days: int = 3, advertiser_id: str = "account"
) -> ImportSummary:
    """Write all JSON files of ``source`` into an empty or new landing zone.

    Raises:
        SourceError: there is none, one is not JSON or holds something else, or the log has too few days.
    """
    files = sorted(path for path in source.iterdir() if path.name.endswith(SUFFIXES))
    if not files:
        raise SourceError(f"{source} holds no file that ends in {', '.join(SUFFIXES)}")
    events: list[dict[str, Any]] = []
    items: dict[str, dict[str, Any]] = {}
    without_user = 0
    for path in files:
        for event in _events_in(path):
            user = _user_of(event.get("user_data") or {})
            if user is None:
                without_user += 1
                continue
            for row, item in _rows(event, user, advertiser_id):
                events.append(row)
                if item is not None:
                    items[item["item_id"]] = items.get(item["item_id"], {}) | {k: v for k, v in item.items() if v}
    frame = pl.DataFrame(events, schema=pl.Schema(SCHEMAS[LandingTable.events]))
    users = frame.select("user_id").unique().sort("user_id")
    products = pl.DataFrame(list(items.values()), schema=pl.Schema(SCHEMAS[LandingTable.items]))
    left_out = {"nobody can say whose they are": without_user}
    return write_log(Log(frame, products, users, Manifest(name="Conversions API"), left_out), landing, daily_days)


def _events_in(path: Path) -> Iterator[Mapping[str, Any]]:
    content = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
    try:
        whole = json.loads(content)
        documents = [whole]
    except json.JSONDecodeError:
        documents = [_parsed(path, number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    for document in documents:
        found = document.get("data", [document]) if isinstance(document, dict) else document
        for event in found if isinstance(found, list) else [found]:
            if not isinstance(event, dict) or "event_name" not in event or "event_time" not in event:
                raise SourceError(f"{path}: an event has event_name and event_time; found {str(event)[:80]!r}")
            yield event


def _parsed(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise SourceError(f"{path}, line {number}: not JSON ({error.msg})") from error


def _user_of(user: Mapping[str, Any]) -> str | None:
    for name in ("external_id", "em", "click_id"):
        given = user.get(name)
        first = given[0] if isinstance(given, list) and given else given
        if isinstance(first, str | int) and str(first):
            return str(first)
    return None


def _rows(
    event: Mapping[str, Any], user: str, advertiser_id: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """An event's rows, one a product, and what is said of the product."""
    custom: Mapping[str, Any] = event.get("custom_data") or {}
    contents = custom.get("contents") or [{"id": each} for each in custom.get("content_ids") or []] or [{}]
    name = event["event_name"] if event["event_name"] in EVENT_NAMES else "custom"
    event_id = str(event.get("event_id") or f"{user} {event['event_time']} {event['event_name']}")
    for number, content in enumerate(contents):
        item_id = content.get("id")
        brand = content.get("item_brand") or custom.get("content_brand")
        price = _number(content.get("item_price"))
        row = {
            "event_id": event_id if len(contents) == 1 else f"{event_id}-{number}",
            "user_id": user,
            "event_time": datetime.fromtimestamp(float(event["event_time"]), UTC),
            "event_name": name,
            "advertiser_id": str(brand or advertiser_id),
            "item_id": None if item_id is None else str(item_id),
            "value": price if price is not None else _number(custom.get("value")),
            "currency": custom.get("currency"),
            "search_string": custom.get("search_string"),
        }
        item = None
        if item_id is not None:
            item = {
                "item_id": str(item_id),
                "advertiser_id": str(brand or advertiser_id),
                "title": content.get("item_name") or (custom.get("content_name") if len(contents) == 1 else None),
                "category": content.get("item_category") or custom.get("content_category"),
                "price": price,
                "currency": custom.get("currency"),
            }
        yield row, item


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None
