"""The end of a day in the log's time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


def day_end(day: date, time_zone: str) -> datetime:
    """Return the first moment after ``day`` in ``time_zone``, in UTC.

    >>> day_end(date(2026, 3, 28), "Europe/Berlin").isoformat(), day_end(date(2026, 3, 29), "Europe/Berlin").isoformat()
    ('2026-03-28T23:00:00+00:00', '2026-03-29T22:00:00+00:00')
    """
    midnight = datetime.combine(day + timedelta(days=1), time.min, tzinfo=ZoneInfo(time_zone))
    return midnight.astimezone(UTC)
