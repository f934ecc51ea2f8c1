"""Events as they are sent to the Pinterest Conversions API -> landing zone.

JSON lines (an event each) or JSON documents ``{"data": [events]}``, plain or gzip. An event that names several products
becomes one for each. A user is the first ``external_id``, else the first hashed e-mail (``em``), else the click; an
event without any of them cannot be anybody's and is left out and counted. The API knows one advertiser an account, so
that its id is given; the brand of a product, where it is said, is the advertiser instead.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from warehouse.contracts import EVENT_NAMES, MAXIMUM_TIME, MINIMUM_TIME, SCHEMAS, LandingTable
from warehouse.importers.conversion import UNITS
from warehouse.importers.landing_writer import ImportSummary, Log, SourceError, write_log
from warehouse.landing import Landing, Manifest

SUFFIXES = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
WITHOUT_USER = "nobody can say whose they are"
WITHOUT_TIME = "their time is before 1990 or after 2100"
# As the tag writes the names of events: PageVisit, pagevisit.
_TAG_NAMES = {name.replace("_", ""): name for name in EVENT_NAMES}


def import_pinterest_conversions(
    source: Path, landing: Landing, daily_days: int = 3, advertiser_id: str = "account"
) -> ImportSummary:
    """Write all JSON files of ``source`` into an empty or new landing zone.

    Raises:
        SourceError: there is no file, a file is not JSON or holds something else, or the log has too few days.
    """
    files = sorted(path for path in source.iterdir() if path.name.endswith(SUFFIXES))
    if not files:
        raise SourceError(f"{source} holds no file that ends in {', '.join(SUFFIXES)}")
    events: list[dict[str, Any]] = []
    items: dict[str, dict[str, Any]] = {}
    left_out: Counter[str] = Counter()
    for given in (event for path in files for event in _events_in(path)):
        user, time = _user_of(given.object("user_data")), given.time()
        if user is None or time is None:
            left_out[WITHOUT_USER if user is None else WITHOUT_TIME] += 1
            continue
        for row, item in _rows(given, user, time, advertiser_id):
            events.append(row)
            if item is not None:
                items[item["item_id"]] = items.get(item["item_id"], {}) | {k: v for k, v in item.items() if v}
    frame = pl.DataFrame(events, schema=pl.Schema(SCHEMAS[LandingTable.events]))
    users = frame.select("user_id").unique().sort("user_id")
    products = pl.DataFrame(list(items.values()), schema=pl.Schema(SCHEMAS[LandingTable.items]))
    return write_log(Log(frame, products, users, Manifest(name="Conversions API"), left_out), landing, daily_days)


@dataclass(frozen=True)
class _Event:
    """An event as it was sent, and where it is."""

    fields: Mapping[str, Any]
    place: str

    def object(self, name: str) -> Mapping[str, Any]:
        """Return a field that holds an object, or the JSON text of an object.

        Raises:
            SourceError: the field holds something else.
        """
        value = _parsed_text(self.fields.get(name)) or {}
        if not isinstance(value, dict):
            raise self.wrong(name, "an object", value)
        return value

    def time(self) -> datetime | None:
        """Return the time of the event; None for a time before 1990 or after 2100.

        Raises:
            SourceError: the field is no time.
        """
        value = self.fields["event_time"]
        try:
            return _plausible(float(value))
        except OverflowError:
            return None
        except (TypeError, ValueError):
            pass
        try:
            written = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            raise self.wrong("event_time", "seconds since 1970 or a time (ISO 8601)", value) from None
        time = written if written.tzinfo else written.replace(tzinfo=UTC)
        return time.astimezone(UTC) if MINIMUM_TIME <= time <= MAXIMUM_TIME else None

    def wrong(self, name: str, expected: str, value: Any) -> SourceError:
        """Return the error to raise about a field."""
        return SourceError(f"{self.place}: {name} is {expected}; found {str(value)[:80]!r}. Correct the export.")


def _plausible(number: float) -> datetime | None:
    """Return a number since 1970 as a time; None where no unit makes it a time between 1990 and 2100.

    The number counts seconds, as in the API, or milliseconds or finer: the first unit that fits.
    """
    for per_second in UNITS.values():
        if MINIMUM_TIME.timestamp() <= number / per_second <= MAXIMUM_TIME.timestamp():
            return datetime.fromtimestamp(number / per_second, UTC)
    return None


def _events_in(path: Path) -> Iterator[_Event]:
    for place, document in _documents(path):
        found = document.get("data", [document]) if isinstance(document, dict) else document
        for number, event in enumerate(found if isinstance(found, list) else [found], 1):
            where = f"{place}, event {number}" if isinstance(found, list) and len(found) > 1 else place
            if not isinstance(event, dict) or "event_name" not in event or "event_time" not in event:
                raise SourceError(f"{where}: an event has event_name and event_time; found {str(event)[:80]!r}")
            yield _Event(event, where)


def _documents(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the JSON documents of a file: the whole file is one document, or each line is one."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} cannot be read: {error}. Export or download the file again.") from error
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        yield str(path), json.loads(content)
        return
    except ValueError:
        pass
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            yield f"{path}, line {number}", _parsed(path, number, line)


def _parsed(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise SourceError(f"{path}, line {number}: not JSON ({error.msg})") from error
    except ValueError as error:
        raise SourceError(f"{path}, line {number}: not UTF-8") from error


def _parsed_text(value: Any) -> Any:
    """Return a value; where the value is JSON text, the content of the JSON text."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _user_of(user: Mapping[str, Any]) -> str | None:
    for name in ("external_id", "em", "click_id"):
        given = _parsed_text(user.get(name))
        first = given[0] if isinstance(given, list) and given else given
        if isinstance(first, str | int) and str(first):
            return str(first)
    return None


def _contents(event: _Event, custom: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the products of an event, one entry each; a single empty entry where the event names none.

    Raises:
        SourceError: ``contents`` or ``content_ids`` is no list of products.
    """
    ids = _parsed_text(custom.get("content_ids")) or []
    ids = [each.strip() for each in ids.split(",") if each.strip()] if isinstance(ids, str) else ids
    ids = [ids] if isinstance(ids, int | float) else ids
    if not isinstance(ids, list) or any(isinstance(each, list | dict) for each in ids):
        raise event.wrong("content_ids", "a list of ids", ids)
    contents = _parsed_text(custom.get("contents")) or []
    contents = contents if isinstance(contents, list) else [contents]
    contents = [each if isinstance(each, dict) else {"id": each} for each in contents]
    if any(isinstance(each.get("id"), list | dict) for each in contents):
        raise event.wrong("contents", "a list of products", contents)
    if contents and all(each.get("id") is None for each in contents) and ids:
        contents = (
            [{**each, "id": id_} for each, id_ in zip(contents, ids, strict=True)] if len(contents) == len(ids) else []
        )
    return contents or [{"id": each} for each in ids] or [{}]


def _rows(
    event: _Event, user: str, time: datetime, advertiser_id: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Yield a row for each product of an event, and the facts about the product."""
    custom = event.object("custom_data")
    contents = _contents(event, custom)
    given_name = str(event.fields["event_name"])
    name = _TAG_NAMES.get(re.sub(r"[\W_]+", "", given_name.lower()), "custom")
    given_id = event.fields.get("event_id")
    for number, content in enumerate(contents):
        item_id = content.get("id")
        brand = content.get("item_brand") or custom.get("content_brand")
        price = _number(content.get("item_price"))
        event_id = str(given_id or f"{user} {event.fields['event_time']} {given_name} {item_id or ''}".rstrip())
        row = {
            "event_id": event_id if len(contents) == 1 else f"{event_id}-{number}",
            "user_id": user,
            "event_time": time,
            "event_name": name,
            "advertiser_id": str(brand or advertiser_id),
            "item_id": None if item_id is None else str(item_id),
            "value": price if price is not None else _number(custom.get("value")),
            "currency": _text(custom.get("currency")),
            "search_string": _text(custom.get("search_string")),
        }
        item = None
        if item_id is not None:
            title = content.get("item_name") or (custom.get("content_name") if len(contents) == 1 else None)
            item = {
                "item_id": str(item_id),
                "advertiser_id": str(brand or advertiser_id),
                "title": _text(title),
                "category": _text(content.get("item_category") or custom.get("content_category")),
                "price": price,
                "currency": _text(custom.get("currency")),
            }
        yield row, item


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, list | dict) else str(value)


def _number(value: Any) -> float | None:
    """Return a value as a number, also with commas between thousands; None for a value that is no number."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", value.strip()):
        value = value.replace(",", "")
    try:
        number = None if value is None else float(value)
    except (TypeError, ValueError):
        return None
    return None if number != number else number
