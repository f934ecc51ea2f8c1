"""Clicked and converted impressions as events of sequences: their kinds, their times, and who never sees them."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from engine.local import LocalEngine
from settings import AD_CLICK, AD_CONVERSION, DataSettings, SequenceSettings
from tests.warehouse.ingest.arrivals import event
from tests.warehouse.whole_sequences import all_user_sequences, user_sequences
from warehouse.as_of import engaged_items, events_as_of, items_as_of, items_of_users
from warehouse.contracts import EVENT_NAMES, LandingTable
from warehouse.identity import UserKeys
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing, Manifest, ManifestError
from warehouse.onsite_events import days_with_arrivals, impressions_wait, onsite_events, sequence_events_as_of
from warehouse.stored_sequences import TABLE, sequences_of_day, write_sequences
from warehouse.tables import Tables

HISTORY, FIRST, SECOND = (date(2026, 3, number) for number in (9, 10, 11))
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
COLUMNS = ["user_id", "event_time", "event_name", "item_id", "advertiser_id"]
SHAPE = SequenceSettings(length=10, lookback_days=60)
MEMORY = 1.0


def impression(request_id: str, stage: str, **fields: Any) -> dict[str, Any]:
    defaults = {"request_time": NOON, "user_id": "ann", "surface": "home_feed", "item_id": "chair"}
    return {"request_id": request_id, "stage": stage, **defaults, **fields}


def land(landing: Landing, table: LandingTable, day: date | None, rows: list[dict[str, Any]]) -> None:
    landing.write(table, day, pl.DataFrame(rows, infer_schema_length=None))


def run(landing: Landing, tables: Tables, *days: date | None) -> None:
    for day in days:
        for table in (LandingTable.items, LandingTable.events, LandingTable.impressions):
            ingest(landing, tables, table, day=day, settings=DataSettings())


def told(tables: Tables, landing: Landing, frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    """The rows with the names of users instead of their keys, sorted."""
    keys = UserKeys.of(tables, landing)
    names = {keys.key(name): name for name in ("ann", "bob", "cy")}
    return sorted(frame.with_columns(pl.col("user_id").replace(names)).rows())


@pytest.fixture
def onsite(landing: Landing) -> Landing:
    """A landing zone with onsite events: a chair of a shop, an old visit of ann's, nothing of bob's."""
    landing.write_manifest(Manifest(onsite_events=True, repeats_count=False))
    land(landing, LandingTable.items, None, [{"item_id": "chair", "advertiser_id": "shop"}])
    visit = event("old", user_id="ann", event_name="page_visit", item_id="lamp", event_time=NOON - timedelta(days=9))
    land(landing, LandingTable.events, None, [visit])
    land(landing, LandingTable.events, FIRST, [event("new", user_id="cy", event_time=NOON)])
    return landing


def test_a_click_is_one_event_a_conversion_two_and_an_impression_none(onsite: Landing, tables: Tables) -> None:
    stages = ("retrieved", "trimmed", "ranked", "auctioned", "impressed", "clicked", "converted")
    rows = [impression(stage, stage) for stage in stages]
    land(onsite, LandingTable.impressions, FIRST, rows)
    run(onsite, tables, None, FIRST)
    found = onsite_events(tables, onsite)
    assert told(tables, onsite, found.select("user_id", "event_id", "event_name", "item_id", "advertiser_id")) == [
        ("ann", "ad_click:7:clicked:chair", AD_CLICK, "chair", "shop"),
        ("ann", "ad_click:9:converted:chair", AD_CLICK, "chair", "shop"),
        ("ann", "ad_conversion:9:converted:chair", AD_CONVERSION, "chair", "shop"),
    ]
    assert found["event_time"].unique().to_list() == [NOON]
    assert found["arrival_date"].unique().to_list() == [FIRST]


def test_a_conversion_that_arrives_later_is_no_older_than_its_arrival(onsite: Landing, tables: Tables) -> None:
    """Dated at its request, a conversion that was told later would be in histories that end before it happened."""
    land(onsite, LandingTable.impressions, None, [impression("h", "converted", request_time=NOON - timedelta(days=5))])
    land(onsite, LandingTable.impressions, FIRST, [impression("a", "clicked"), impression("b", "impressed")])
    land(onsite, LandingTable.impressions, SECOND, [impression("a", "converted"), impression("b", "clicked")])
    run(onsite, tables, None, FIRST, SECOND)
    found = onsite_events(tables, onsite).sort("event_id").select("event_id", "event_time", "arrival_date")
    assert found.rows() == [
        ("ad_click:1:a:chair", NOON, FIRST),
        ("ad_click:1:b:chair", NOON, SECOND),
        ("ad_click:1:h:chair", NOON - timedelta(days=5), HISTORY),
        ("ad_conversion:1:a:chair", datetime(2026, 3, 11, tzinfo=UTC), SECOND),
        ("ad_conversion:1:h:chair", NOON - timedelta(days=5), HISTORY),
    ]


def test_an_advertiser_that_was_told_after_the_click_is_not_known(onsite: Landing, tables: Tables) -> None:
    land(onsite, LandingTable.impressions, FIRST, [impression("a", "clicked", item_id="sofa")])
    land(onsite, LandingTable.impressions, SECOND, [impression("b", "clicked", item_id="sofa")])
    land(onsite, LandingTable.items, SECOND, [{"item_id": "sofa", "advertiser_id": "late shop"}])
    run(onsite, tables, None, FIRST, SECOND)
    found = onsite_events(tables, onsite).sort("arrival_date")
    assert found["advertiser_id"].to_list() == [None, "late shop"]


def test_a_click_makes_its_user_active_and_gives_a_user_without_offsite_events_a_sequence(
    onsite: Landing, tables: Tables
) -> None:
    rows = [impression("a", "clicked"), impression("b", "clicked", user_id="bob"), impression("c", "impressed")]
    land(onsite, LandingTable.impressions, FIRST, rows)
    run(onsite, tables, None, FIRST)
    names = user_sequences(tables, onsite, FIRST, settings=SHAPE).select("user_id", "event_name")
    assert told(tables, onsite, names) == [
        ("ann", ["page_visit", AD_CLICK]),
        ("bob", [AD_CLICK]),
        ("cy", ["checkout"]),
    ]
    assert_frame_equal(
        all_user_sequences(tables, onsite, FIRST, settings=SHAPE), user_sequences(tables, onsite, FIRST, settings=SHAPE)
    )


def test_no_request_sees_its_own_click_and_a_late_impression_is_not_seen_before_it_arrives(
    onsite: Landing, tables: Tables
) -> None:
    """A request is answered with the sequence as of the end of the day before."""
    land(onsite, LandingTable.impressions, FIRST, [impression("a", "clicked", request_time=NOON.replace(hour=0))])
    late = impression("b", "clicked", request_time=NOON - timedelta(days=3))
    land(onsite, LandingTable.impressions, SECOND, [late])
    run(onsite, tables, None, FIRST, SECOND)
    for day, clicks in ((HISTORY, 0), (FIRST, 1), (SECOND, 2)):
        events = sequence_events_as_of(tables, onsite, day, COLUMNS)
        assert events.filter(event_name=AD_CLICK).height == clicks
        sequences = all_user_sequences(tables, onsite, day, settings=SHAPE)
        assert sequences["event_name"].explode().eq(AD_CLICK).sum() == clicks


def test_a_day_with_impressions_alone_has_sequences(onsite: Landing, tables: Tables) -> None:
    land(onsite, LandingTable.impressions, SECOND, [impression("a", "clicked", request_time=NOON + timedelta(days=1))])
    run(onsite, tables, None, FIRST, SECOND)
    assert tables.days("events", "arrival_date") == [HISTORY, FIRST]
    assert days_with_arrivals(tables, onsite) == [HISTORY, FIRST, SECOND]
    assert len(user_sequences(tables, onsite, SECOND, settings=SHAPE)) == 1
    lengths = all_user_sequences(tables, onsite, SECOND, settings=SHAPE)["event_id"].list.len().sum()
    assert lengths == 3


def test_nothing_that_counts_events_sees_onsite_events(onsite: Landing, tables: Tables) -> None:
    land(onsite, LandingTable.impressions, FIRST, [impression("a", "converted", item_id="sofa")])
    run(onsite, tables, None, FIRST)
    assert AD_CLICK not in events_as_of(tables, onsite, FIRST)["event_name"].to_list()
    assert "sofa" not in engaged_items(tables, onsite, FIRST).to_list()
    assert "sofa" not in items_as_of(tables, onsite, FIRST)["item_id"].to_list()
    users = pl.Series([UserKeys.of(tables, onsite).key("ann")])
    assert items_of_users(tables, onsite, FIRST, users)["item_id"].to_list() == ["lamp"]


def test_without_the_switch_the_sequences_are_those_of_before(onsite: Landing, tables: Tables) -> None:
    land(onsite, LandingTable.impressions, FIRST, [impression("a", "clicked")])
    run(onsite, tables, None, FIRST)
    write_sequences(tables, onsite, FIRST, shape=SHAPE, data=DataSettings(), engine=LocalEngine())
    onsite.write_manifest(Manifest())
    without = user_sequences(tables, onsite, FIRST, settings=SHAPE)
    assert without["event_name"].to_list() == [["checkout"]]
    assert days_with_arrivals(tables, onsite) == tables.days("events", "arrival_date")
    assert_frame_equal(
        sequence_events_as_of(tables, onsite, FIRST, COLUMNS), events_as_of(tables, onsite, FIRST, COLUMNS)
    )
    # The stored sequences hold the click, and are of no use now.
    assert tables.read(TABLE, {"day": FIRST}).height == 2
    assert_frame_equal(sequences_of_day(tables, onsite, FIRST, shape=SHAPE, data=DataSettings()), without)


def test_impressions_that_are_not_ingested_are_waited_for_where_sequences_need_them(
    onsite: Landing, tables: Tables
) -> None:
    run(onsite, tables, None, FIRST)
    assert not impressions_wait(tables, onsite, FIRST)
    land(onsite, LandingTable.impressions, FIRST, [impression("a", "clicked")])
    assert impressions_wait(tables, onsite, FIRST)
    onsite.write_manifest(Manifest())
    assert not impressions_wait(tables, onsite, FIRST)
    onsite.write_manifest(Manifest(onsite_events=True))
    ingest(onsite, tables, LandingTable.impressions, day=FIRST, settings=DataSettings())
    assert not impressions_wait(tables, onsite, FIRST)


@pytest.mark.parametrize("old", [FIRST, SECOND])
def test_a_table_of_before_its_newest_columns_is_read(onsite: Landing, tables: Tables, old: date) -> None:
    run(onsite, tables, None, FIRST)
    shutil.rmtree(tables.path("impressions"))
    for day in (FIRST, SECOND):
        rows = pl.DataFrame([impression(str(day), "clicked")]).cast({"request_time": pl.Datetime("us", "UTC")})
        newer = rows.with_columns(ad_id=pl.lit("ad"), value=pl.lit(1.0))
        tables.write("impressions", rows if day == old else newer, {"arrival_date": day})
    assert len(onsite_events(tables, onsite)) == 2


def test_a_home_without_impressions_or_items_has_no_onsite_events(onsite: Landing, tables: Tables) -> None:
    for day in (None, FIRST):
        ingest(onsite, tables, LandingTable.events, day=day, settings=DataSettings())
    assert onsite_events(tables, onsite).is_empty()
    assert len(all_user_sequences(tables, onsite, FIRST, settings=SHAPE)) == 2


@pytest.mark.parametrize("name", [AD_CLICK, AD_CONVERSION])
def test_no_export_and_no_manifest_can_name_an_onsite_event(landing: Landing, name: str) -> None:
    assert name not in EVENT_NAMES
    landing.root.mkdir(parents=True)
    (landing.root / "manifest.toml").write_text(f'positive_events = ["{name}"]\n')
    with pytest.raises(ManifestError, match=name):
        Manifest.read(landing.root / "manifest.toml")
