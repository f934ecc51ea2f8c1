"""A training with too few examples says why, in the words of validation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from assets.training import _enough
from ml.examples.pairs import LabelRule
from ml.examples.period import TrainingPeriod
from warehouse.contracts import EVENT_NAMES

END = datetime(2026, 3, 10, tzinfo=UTC)


def period(users: int, each: int, item: str | None, window_days: float) -> TrainingPeriod:
    rows = [
        {"user_id": f"u{user}", "event_time": END - timedelta(days=n + 1), "event_name": "signup", "item_id": item}
        for user in range(users)
        for n in range(each)
    ]
    nothing = pl.DataFrame()
    rule = LabelRule(("signup",), window_days, True, {})
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "user_id": pl.String,
        "event_time": pl.Datetime("us", "UTC"),
        "event_name": pl.String,
        "item_id": pl.String,
        "advertiser_id": pl.String,
    }
    return TrainingPeriod(pl.DataFrame(rows, schema), nothing, nothing, END.timestamp(), rule, list(EVENT_NAMES))


@pytest.mark.parametrize(
    ("users", "each", "item", "window_days", "reason"),
    [
        (9, 5, None, 2, "none of the 45 conversions names an item"),
        (9, 1, "i", 2, "9 of 9 users have one event"),
        (9, 5, "i", 28, "the prediction window of 28 days exceeds the history of 5 days"),
        (9, 5, "i", 2, "A longer history helps"),
    ],
)
def test_a_check_that_fails_names_the_reason(
    users: int, each: int, item: str | None, window_days: float, reason: str
) -> None:
    result = _enough(3, 1000, period(users, each, item, window_days))
    assert not result.passed
    assert result.description is not None
    assert reason in result.description


def test_a_check_that_passes_says_nothing() -> None:
    assert _enough(1000, 1000, period(9, 5, "i", 2)).passed
