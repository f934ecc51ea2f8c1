"""When a day ends, in the log's time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


def day_end(day: date, time_zone: str) -> datetime:
    """The first moment after ``day`` in ``time_zone``, in UTC."""
    midnight = datetime.combine(day + timedelta(days=1), time.min, tzinfo=ZoneInfo(time_zone))
    return midnight.astimezone(UTC)
