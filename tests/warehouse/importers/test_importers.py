from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from settings import DataSettings
from warehouse.as_of import events_as_of, items_as_of
from warehouse.contracts import LandingTable
from warehouse.identity import external_ids
from warehouse.importers.amazon_reviews import import_amazon_reviews
from warehouse.importers.globo_clicks import import_globo_clicks
from warehouse.importers.landing_writer import SourceError
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing
from warehouse.tables import Tables

SHARED = Path(os.environ.get("ADSEQ_SHARED", Path(__file__).parents[3].parent / "shared")) / "data"


def real(folder: str) -> Path:
    if not (SHARED / folder).is_dir():
        pytest.skip(f"{SHARED / folder} is absent: set ADSEQ_SHARED to the folder that holds data/{folder}")
    return SHARED / folder


def read(landing: Landing, table: LandingTable, day: date | None) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in landing.files(table, day)])


def everything(landing: Landing, table: LandingTable) -> pl.DataFrame:
    return pl.concat([read(landing, table, day) for day in (None, *landing.dates()) if landing.files(table, day)])


def seconds(day: int) -> int:
    return int(datetime(2014, 7, day, tzinfo=UTC).timestamp())


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    source = tmp_path / "reviews"
    source.mkdir()
    rows = [
        ("u", "a", 0, seconds(1)),
        ("u", "b", 1, seconds(1)),
        *[("u", f"x{position}", position, seconds(1)) for position in range(2, 12)],
        ("v", "a", 0, seconds(5)),
        ("w", "c", 0, seconds(9)),
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "position", "timestamp"], orient="row")
    events.reverse().write_parquet(source / "events.parquet")
    items = {
        "item_id": ["a", "b", "c"],
        "brand_attr": [7, None, 7],
        "cat1_attr": [3, 3, None],
        "cat2_attr": [4, None, None],
        "cat3_attr": [5, None, None],
        "attributes": [[1], [2], [3]],
    }
    pl.DataFrame(items).write_parquet(source / "items.parquet")
    return source


def test_reviews_become_checkouts_with_the_last_days_as_partitions(reviews: Path, landing: Landing) -> None:
    summary = import_amazon_reviews(reviews, landing, daily_days=2)
    assert summary.days == (date(2014, 7, 5), date(2014, 7, 9)) == tuple(landing.dates())
    assert landing.history_day() == summary.history_until == date(2014, 7, 4)
    assert (summary.events, summary.users, summary.items, summary.advertisers) == (14, 3, 3, 1)
    assert any("14 events of 3 users" in line for line in summary.lines())
    assert landing.manifest.positive_events == ["checkout"]
    assert (landing.manifest.prediction_window_days, landing.manifest.repeats_count) == (28, False)
    history = read(landing, LandingTable.events, None)
    assert history["event_name"].unique().to_list() == ["checkout"]
    assert read(landing, LandingTable.users, date(2014, 7, 9))["user_id"].to_list() == ["w"]


def test_ties_of_reviews_keep_the_order_of_the_source(reviews: Path, landing: Landing) -> None:
    import_amazon_reviews(reviews, landing, daily_days=1)
    ordered = read(landing, LandingTable.events, None).filter(pl.col("user_id") == "u").sort("event_time", "event_id")
    assert ordered["item_id"].to_list() == ["a", "b", *[f"x{position}" for position in range(2, 12)]]


def test_brands_and_categories_of_reviews(reviews: Path, landing: Landing) -> None:
    import_amazon_reviews(reviews, landing, daily_days=1)
    items = read(landing, LandingTable.items, None).sort("item_id")
    assert items["advertiser_id"].to_list() == ["7", "unknown", "7"]
    assert items["category"].to_list() == ["c3 > c4 > c5", "c3", None]
    events = everything(landing, LandingTable.events)
    assert dict(events.select("item_id", "advertiser_id").unique().iter_rows())["x5"] == "unknown"


def milliseconds(day: int, hour: float) -> int:
    return int((datetime(2017, 10, 1, tzinfo=UTC) + timedelta(days=day - 1, hours=hour)).timestamp() * 1000)


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    source = tmp_path / "clicks"
    source.mkdir()
    rows = [
        # user, session, article, time
        (0, 100, 10, milliseconds(1, 12)),
        (0, 100, 11, milliseconds(1, 13)),
        (0, 100, 11, milliseconds(1, 14)),  # the same article again: no impression
        (0, 100, 12, milliseconds(2, 2.9)),  # still the 1st: local midnight is 03:00 UTC
        (1, 200, 10, milliseconds(2, 3)),
        (1, 200, 13, milliseconds(2, 3)),  # a tie, in the order of the source
        (0, 300, 12, milliseconds(3, 12)),
        (1, 400, 13, milliseconds(20, 12)),  # the trickle: too little for a day of its own
        *[(5, 500, 10, milliseconds(1, 20)) for _ in range(20)],
        *[(5, 501, 10, milliseconds(2, 20)) for _ in range(20)],
        *[(6, 502, 10, milliseconds(3, 20)) for _ in range(20)],
    ]
    names = ["user_id", "session_id", "click_article_id", "click_timestamp"]
    frame = pl.DataFrame(rows, schema=names, orient="row")
    frame.with_columns(click_country=pl.col("user_id") + 1).write_parquet(source / "clicks.parquet")
    items = {
        "article_id": [10, 11, 12, 14],
        "category_exact": [460, None, 3, 3],
        "created_at_ts": [milliseconds(1, 1), milliseconds(1, 13.5), None, milliseconds(2, 0)],
    }
    pl.DataFrame(items).write_parquet(source / "items.parquet")
    return source


def test_clicks_fall_on_local_days_and_the_trickle_is_counted(clicks: Path, landing: Landing) -> None:
    summary = import_globo_clicks(clicks, landing, daily_days=2)
    assert summary.days == (date(2017, 10, 2), date(2017, 10, 3))
    assert summary.left_out == {"after 2017-10-03": 1}
    assert any("1 events left out: after 2017-10-03" in line for line in summary.lines())
    assert [read(landing, LandingTable.events, day).height for day in (None, *summary.days)] == [24, 22, 21]
    assert landing.manifest.time_zone == "Etc/GMT+3"
    assert landing.manifest.positive_events == ["page_visit"]
    assert landing.manifest.prediction_window_days == 1
    assert summary.last_time == datetime(2017, 10, 3, 20, tzinfo=UTC)


def test_consecutive_clicks_of_a_session_are_impressions(clicks: Path, landing: Landing) -> None:
    import_globo_clicks(clicks, landing, daily_days=2)
    pairs = everything(landing, LandingTable.impressions).sort("request_time")
    assert pairs.select("user_id", "subject_item_id", "item_id").rows() == [
        ("0", "10", "11"),
        ("0", "11", "12"),
        ("1", "10", "13"),
    ]
    assert pairs["request_time"].to_list()[0] == datetime(2017, 10, 1, 13, tzinfo=UTC)
    assert pairs.select("surface", "stage", "source").unique().rows() == [("related_pins", "clicked", "log")]
    assert read(landing, LandingTable.impressions, date(2017, 10, 2)).height == 1


def test_an_article_is_available_from_its_creation_or_first_click(clicks: Path, landing: Landing) -> None:
    import_globo_clicks(clicks, landing, daily_days=2)
    items = {row["item_id"]: row for row in read(landing, LandingTable.items, None).to_dicts()}
    assert set(items) == {"10", "11", "12", "13", "14"}, "13 is clicked but not listed, 14 listed but not clicked"
    hours = {
        item: (row["available_from"] - datetime(2017, 10, 1, tzinfo=UTC)).total_seconds() / 3600
        for item, row in items.items()
    }
    assert hours == {"10": 1.0, "11": 13.0, "12": 26.9, "13": 27.0, "14": 24.0}
    assert items["10"]["category"] == "news > 460"
    assert items["11"]["category"] is None


@pytest.mark.parametrize("importer", [import_amazon_reviews, import_globo_clicks])
def test_a_missing_source_file_is_named(importer: object, tmp_path: Path, landing: Landing) -> None:
    with pytest.raises(SourceError, match=r"parquet does not exist. The importer of .* looks for"):
        importer(tmp_path, landing)
    assert not landing.root.exists()


def test_an_import_never_mixes_with_other_data(reviews: Path, landing: Landing) -> None:
    import_amazon_reviews(reviews, landing, daily_days=1)
    before = sorted(landing.root.rglob("*"))
    with pytest.raises(SourceError, match="is not empty"):
        import_amazon_reviews(reviews, landing, daily_days=2)
    assert sorted(landing.root.rglob("*")) == before


def test_an_import_that_fails_leaves_nothing(clicks: Path, landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Landing, manifest: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Landing, "write_manifest", full)
    with pytest.raises(OSError, match="no space left"):
        import_globo_clicks(clicks, landing)
    assert [path.name for path in landing.root.parent.iterdir()] == ["clicks"]


@pytest.mark.parametrize("days", [0, 3])
def test_too_many_daily_days_are_refused(reviews: Path, landing: Landing, days: int) -> None:
    with pytest.raises(SourceError, match="at least one more for the history"):
        import_amazon_reviews(reviews, landing, daily_days=days)


def test_imports_pass_the_contracts(reviews: Path, clicks: Path, tmp_path: Path) -> None:
    for source, importer in ((reviews, import_amazon_reviews), (clicks, import_globo_clicks)):
        landing, tables = Landing(tmp_path / "zone" / source.name), Tables(tmp_path / source.name / "tables")
        summary = importer(source, landing, 2)
        for day in (None, *summary.days):
            for table in [table for table in LandingTable if landing.files(table, day)]:
                report = ingest(landing, tables, table, day=day, settings=DataSettings(maximum_quarantine_share=0))
                assert report.rows_written == report.rows_read
                assert report.ignored_columns == ()


@pytest.mark.slow
def test_the_real_sports_log(tmp_path: Path, landing: Landing, tables: Tables) -> None:
    source = real("amazon-sports")
    summary = import_amazon_reviews(source, landing)
    assert (summary.events, summary.users, summary.items, summary.advertisers) == (296_337, 35_598, 18_357, 1_153)
    written = 0
    for day in (None, *summary.days):
        for table in LandingTable:
            report = ingest(landing, tables, table, day=day, settings=DataSettings(maximum_quarantine_share=0))
            written += report.rows_written if table is LandingTable.events else 0
    assert written == 296_337
    order = ["user_id", "item_id"]
    expected = pl.read_parquet(source / "events.parquet").sort("user_id", "position").select(order)
    found = events_as_of(tables, landing, summary.days[-1], order)
    named = found.with_columns(external_ids(tables, found["user_id"]).alias("user_id"))
    assert named.sort("user_id", maintain_order=True).equals(expected)
    items = items_as_of(tables, landing, summary.days[-1])
    assert items["listed_from"].null_count() == items.height  # the feed has no dates
    assert items.filter(pl.col("advertiser_id") == "unknown").height == 7_410
