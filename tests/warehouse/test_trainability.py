"""What validation says of training is what training does."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from settings import DataSettings
from tests.warehouse.ingest.arrivals import EVENTS, ITEMS, event
from warehouse.landing import Landing, Manifest
from warehouse.trainability import HistoryFigures, TrainingRule, why_too_few
from warehouse.validate_landing import Validation, validate

HISTORY_END = date(2026, 3, 9)


def history(landing: Landing, rows: list[dict[str, Any]], **manifest: Any) -> Manifest:
    written = Manifest(**manifest)
    landing.write_manifest(written)
    landing.write(EVENTS, None, pl.DataFrame(rows, infer_schema_length=None))
    landing.write(EVENTS, HISTORY_END + timedelta(days=1), pl.DataFrame([event("later", user_id="later")]))
    return written


def rule(minimum: int) -> TrainingRule:
    from ml.examples.pairs import training_cutoffs

    def cutoffs(end: float, first: float, window_days: float) -> list[float]:
        return training_cutoffs(end, first, 365, window_days=window_days, count=6).tolist()

    return TrainingRule(minimum, cutoffs)


def checked(landing: Landing, minimum: int = 1000) -> Validation:
    return validate(landing, DataSettings(), rule(minimum))


@pytest.mark.parametrize(("seed", "repeats_count"), [(0, True), (1, False), (2, True)])
def test_examples_are_counted_as_training_makes_them(landing: Landing, seed: int, repeats_count: bool) -> None:
    from ml.examples.pairs import LabelRule, examples_at, training_cutoffs
    from ml.features.event_log import build_event_log
    from warehouse.contracts import EVENT_NAMES

    random = np.random.default_rng(seed)
    end = datetime(2026, 3, 10, tzinfo=UTC)
    rows = [
        event(
            str(n),
            user_id=f"u{random.integers(8)}",
            item_id=f"i{random.integers(6)}" if random.random() < 0.8 else None,
            advertiser_id="a",
            event_name=str(random.choice(["page_visit", "checkout"])),
            event_time=end - timedelta(hours=int(random.integers(1, 24 * 30))),
        )
        for n in range(150)
    ]
    history(landing, [*rows, *rows[:20]], prediction_window_days=4, repeats_count=repeats_count)
    log = pl.DataFrame(rows, infer_schema_length=None).sort("user_id", "event_time", "event_id")
    items = log["item_id"].drop_nulls().unique().sort()
    names = list(EVENT_NAMES)
    events = build_event_log(log, items, names, advertiser_buckets=8, advertiser_hashes=1)
    labels = LabelRule(("checkout", "add_to_cart", "signup"), 4, repeats_count, {})
    cutoffs = training_cutoffs(end.timestamp(), float(events.seconds.min()), 365, window_days=4, count=6)
    expected = sum(len(examples_at(events, float(cutoff), labels, names)) for cutoff in cutoffs)
    assert expected > 5
    assert f"{expected:,} examples" in checked(landing, expected + 1).problems[0]
    assert checked(landing, expected).problems == ()


def visits(users: int, each: int, **fields: Any) -> list[dict[str, Any]]:
    times = [datetime(2026, 3, 9, 12, tzinfo=UTC) - timedelta(days=2 * n) for n in range(each)]
    return [
        event(f"{user}-{n}", user_id=f"u{user}", event_time=time, **fields)
        for user in range(users)
        for n, time in enumerate(times)
    ]


@pytest.mark.parametrize(
    ("rows", "manifest", "words"),
    [
        (visits(30, 1), {}, "30 of 30 users have one event"),
        (
            visits(30, 4, event_name="signup", item_id=None, advertiser_id="unknown"),
            {"prediction_window_days": 1},
            "none of the 120 conversions names an",
        ),
        (
            visits(30, 1, event_name="signup", item_id=None, advertiser_id="a"),
            {"prediction_window_days": 1},
            "30 of 30 users have one event",
        ),
        (
            visits(30, 3, event_name="signup", item_id=None, advertiser_id="a"),
            {"prediction_window_days": 4},
            "no conversion names an item, and the advertiser model has nothing to learn from",
        ),
        (visits(30, 4), {"prediction_window_days": 60}, "window of 60 days exceeds the history of 6 days"),
        (visits(3, 4), {"prediction_window_days": 1}, "A longer history helps"),
        ([event("1", user_id=None)], {}, "no good event"),
    ],
)
def test_the_reason_for_too_few_examples_is_named(
    landing: Landing, rows: list[dict[str, Any]], manifest: dict[str, Any], words: str
) -> None:
    history(landing, rows, **manifest)
    assert [problem for problem in checked(landing).problems if words in problem]


def test_a_history_whose_conversions_name_advertisers_alone_is_ready(landing: Landing) -> None:
    history(landing, visits(30, 12, event_name="signup", item_id=None, advertiser_id="a"), prediction_window_days=4)
    found = checked(landing)
    assert found.problems == ()
    assert [note for note in found.notes if "the advertiser model alone is trained" in note]


def test_advertisers_can_be_learnt_where_nobody_converts_in_the_newest_window(landing: Landing) -> None:
    """Twelve visits two days apart, of which the newest two, in the window of four days, convert nowhere."""
    rows = visits(30, 12, event_name="signup", item_id=None, advertiser_id="a")
    newest = sorted({row["event_time"] for row in rows})[-2:]
    rows = [{**row, "event_name": "page_visit"} if row["event_time"] in newest else row for row in rows]
    history(landing, rows, prediction_window_days=4)
    found = checked(landing)
    assert found.problems == ()
    assert [note for note in found.notes if "the advertiser model alone is trained" in note]


def test_a_history_without_conversions_is_told_so() -> None:
    assert "no event of the history is a conversion" in why_too_few(HistoryFigures(9, 0, 0, 0, 50, 0), 0, 10, 7)


def notes(landing: Landing) -> str:
    return " / ".join(validate(landing, DataSettings()).notes)


def test_odd_logs_are_noted(landing: Landing) -> None:
    noon = datetime(2026, 3, 8, 12, tzinfo=UTC)
    bot = [event(f"b{n}", user_id="bot", advertiser_id="unknown", event_time=noon) for n in range(100)]
    history(landing, [*visits(30, 1, item_id="12.0", advertiser_id="unknown"), *bot], time_zone="Pacific/Kiritimati")
    landing.write(ITEMS, None, pl.DataFrame({"item_id": ["12", "7"]}))
    landing.write_manifest(Manifest(time_zone="Pacific/Kiritimati", prediction_window_days=1))
    (landing.root / "users" / "history").mkdir(parents=True)
    (landing.root / "users" / "history" / "a.csv").write_text("user_id,age\nu1,25.0\n")
    said = notes(landing)
    for words in (
        "one user has 100 of the events, 76%",
        "users has 1 of the 32 users with events",
        "no event names an item of the catalogue. Events say '12.0', the catalogue '12'",
        "every advertiser is 'unknown'",
    ):
        assert words in said, said
    found = validate(landing, DataSettings())
    assert found.first_event == "2026-03-09", "noon of the 8th in UTC is the next day there"
    assert found.verdicts[ITEMS].rows == 2
    ages = found.verdicts[next(table for table in found.verdicts if table.value == "users")]
    assert (ages.good, ages.filled["age"]) == (1, 1)


def test_a_usual_log_has_no_notes(landing: Landing) -> None:
    history(landing, visits(30, 20, advertiser_id="a"), prediction_window_days=7)
    landing.write(ITEMS, None, pl.DataFrame({"item_id": ["i"]}))
    assert notes(landing) == ""


def test_examples_point_into_the_file_that_was_imported(landing: Landing, tmp_path: Path) -> None:
    from warehouse.importers.mapping import Mapping
    from warehouse.importers.tabular import import_tables

    text = (
        "when,who,what,sku,price\n2026-03-01,u,checkout,a,1\n2026-03-02,u,bought,a,about 2\n2026-03-03,u,checkout,b,x\n"
    )
    (tmp_path / "shop.csv").write_text(text)
    columns = {"event_time": "when", "user_id": "who", "event_name": "what", "item_id": "sku", "value": "price"}
    mapping = Mapping.model_validate({"log": {"daily_days": 1}, "table": [{"into": "events", "columns": columns}]})
    import_tables([tmp_path / "shop.csv"], mapping, landing, 0.25)
    verdict = validate(landing, DataSettings()).verdicts[EVENTS]
    assert verdict.examples == {"event_name is known": "shop.csv, line 3"}
    assert [text for text in verdict.missing if "1 values of value are no numbers, e.g. shop.csv, line 4: 'x'" in text]
    assert verdict.ignored_columns == set()
