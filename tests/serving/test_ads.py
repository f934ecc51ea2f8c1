"""The service shows the ads of its publication that may be shown now, and follows their status and their spend."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from fastapi.testclient import TestClient

from assets.common.workspace import Workspace
from assets.steps.publish import publish_day
from assets.steps.versions import serving
from serving.app import create_app
from settings import Settings
from tests.assets.world import DAYS, copy_of
from tests.flow import Ran
from tests.serving.test_answer import asked
from warehouse.contracts import LandingTable
from warehouse.days import day_end
from warehouse.home import Home
from warehouse.ingest.arrival import ingest
from warehouse.online import LmdbStore
from warehouse.online.publication import served
from warehouse.online.spend import counter_key, put_spend, spend_namespace

pytestmark = pytest.mark.slow
DAY = DAYS[-1]


@pytest.fixture(scope="module")
def home(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home in which no ad has arrived."""
    home = copy_of(ran.home, tmp_path_factory.mktemp("ads") / "home")
    shutil.rmtree(home.tables / "ads", ignore_errors=True)
    return home


@pytest.fixture(scope="module")
def item_ids(ran: Ran) -> list[str]:
    """Items that the feed lists without a country, in stock."""
    items = ran.tables.scan("items").filter(pl.col("countries").is_null()).collect()
    return items["item_id"].unique().sort().to_list()[:40]


@pytest.fixture
def ads(home: Home, item_ids: list[str]) -> Iterator[list[dict[str, Any]]]:
    """An ad of each of forty items, and a cheaper one of each of the first ten; published."""
    first = [{"ad_id": f"a{n}", "item_id": item, "bid": 2.0, "bid_kind": "cpc"} for n, item in enumerate(item_ids)]
    rows = [*first, *({**row, "ad_id": f"b{row['ad_id']}", "bid": 1.0} for row in first[:10])]
    publish(home, rows)
    yield rows
    store = LmdbStore(home.online)
    store.clear(spend_namespace(today(home)))
    store.close()


def publish(home: Home, rows: list[dict[str, Any]]) -> None:
    """Publish the newest day again, with these ads, as a log whose calendar is that of the clock."""
    workspace = Workspace(Settings(home=home.root))
    for path in workspace.landing.files(LandingTable.ads, DAY):
        path.unlink()
    schema = pl.Schema({"status": pl.String(), "daily_budget": pl.Float64(), "ends": pl.Datetime("us", "UTC")})
    frame = pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None)
    workspace.landing.write(LandingTable.ads, DAY, frame)
    ingest(workspace.landing, workspace.tables, LandingTable.ads, day=DAY, settings=workspace.settings.data)
    publish_what_arrived(home)


def publish_what_arrived(home: Home) -> None:
    workspace = Workspace(Settings(home=home.root))
    version = serving(workspace.tables, home, DAY, "item-1")
    published = publish_day(workspace, version, DAY, version.name).publication
    store = LmdbStore(home.online)
    store.switch(replace(published, synthetic=False).to_bytes())
    store.close()


def changed(rows: list[dict[str, Any]], ad_id: str, **fields: Any) -> list[dict[str, Any]]:
    return [{**row, **fields} if row["ad_id"] == ad_id else row for row in rows]


def client_of(home: Home, **settings: Any) -> TestClient:
    base = Settings(home=home.root)
    serving_settings = base.serving.model_copy(update=settings)
    return TestClient(create_app(base.model_copy(update={"serving": serving_settings})), base_url="http://127.0.0.1")


def offers(client: TestClient) -> dict[str, str]:
    """The ad of each candidate."""
    found = asked(client, user_id="nobody", k=500)["candidates"]
    assert all({"ad_id", "bid", "bid_kind"} <= set(each) for each in found)
    return {each["item_id"]: each["ad_id"] for each in found}


def today(home: Home) -> date:
    zone = Workspace(Settings(home=home.root)).landing.manifest.time_zone
    return datetime.now(UTC).astimezone(ZoneInfo(zone)).date()


def test_without_ads_a_candidate_has_none(home: Home) -> None:
    publish_what_arrived(home)
    with client_of(home) as client:
        found = asked(client, user_id="nobody", k=500)["candidates"]
    assert len(found) > 40
    assert not any({"ad_id", "bid", "bid_kind"} & set(each) for each in found)


def test_candidates_are_the_items_that_have_an_ad_and_carry_the_best(
    home: Home, ads: list[dict[str, Any]], item_ids: list[str]
) -> None:
    with client_of(home) as client:
        found = offers(client)
        assert len(found) > 30
        assert all(found[item] == f"a{item_ids.index(item)}" for item in found)
        [candidate] = asked(client, user_id="nobody", k=1)["candidates"]
        assert (candidate["bid"], candidate["bid_kind"]) == (2.0, "cpc")


def test_an_ad_ends_while_the_service_answers(home: Home, ads: list[dict[str, Any]], item_ids: list[str]) -> None:
    with client_of(home) as client:
        item = next(item for item in offers(client) if item_ids.index(item) >= 10)
        ends = datetime.now(UTC) + timedelta(seconds=2)
        publish(home, changed(ads, f"a{item_ids.index(item)}", ends=ends))
        client.app.state.service.follower.look()  # type: ignore[attr-defined]
        assert datetime.now(UTC) < ends, "publishing took too long to see the ad before its end"
        assert item in offers(client)
        time.sleep(max(0.0, (ends - datetime.now(UTC)).total_seconds()))
        assert item not in offers(client)


def test_a_status_is_served_within_two_looks_at_the_pointer(
    home: Home, ads: list[dict[str, Any]], item_ids: list[str]
) -> None:
    every = Settings().serving.follow_seconds
    with client_of(home) as client:
        item = next(item for item in offers(client) if item_ids.index(item) >= 10)
        publish(home, changed(ads, f"a{item_ids.index(item)}", status="paused"))
        published = time.monotonic()
        while item in offers(client):
            assert time.monotonic() - published < 2 * every
            time.sleep(0.05)
        publish(home, ads)
        published = time.monotonic()
        while item not in offers(client):
            assert time.monotonic() - published < 2 * every
            time.sleep(0.05)


def test_an_ad_that_has_spent_its_budget_gives_way_to_the_next(
    home: Home, ads: list[dict[str, Any]], item_ids: list[str]
) -> None:
    publish(home, changed(ads, "a0", daily_budget=10.0))
    with client_of(home, follow_seconds=3600.0) as client:
        follower = client.app.state.service.follower  # type: ignore[attr-defined]

        def after(total: float, day: date | None = None) -> str:
            body = {"day": str(day or today(home)), "spent": [{"ad_id": "a0", "total": total}]}
            assert client.post("/spend", json=body).status_code == 200
            follower.look_at_spend()
            return offers(client)[item_ids[0]]

        assert after(10.0, today(home) - timedelta(days=1)) == "a0"  # of another day
        assert after(9.99) == "a0"
        assert after(10.0) == "ba0"
        assert after(1.0) == "ba0"  # sent late
        publish(home, changed(ads, "a0", daily_budget=12.0))
        follower.look()
        assert after(11.0) == "a0"  # the budget was raised
        assert after(12.0) == "ba0"
        publish(home, changed(ads, "a0", daily_budget=12.0))
        follower.look()
        assert offers(client)[item_ids[0]] == "ba0"  # counted before the publication answers
        store = client.app.state.service.store  # type: ignore[attr-defined]
        store.clear(spend_namespace(today(home)))
        store.put(spend_namespace(today(home)), [(counter_key("a0"), b"\xff" * 12)])  # damaged: what was known counts
        follower.look_at_spend()
        assert offers(client)[item_ids[0]] == "ba0"
        assert 'adseq_store_faults_total{kind="spend"}' in client.get("/metrics").text


def test_the_calendar_of_a_synthetic_world_stands_still(
    home: Home, ads: list[dict[str, Any]], item_ids: list[str]
) -> None:
    """Its ads have ended by the clock, and the demo shows them all the same."""
    end = day_end(DAY, Workspace(Settings(home=home.root)).landing.manifest.time_zone)
    publish(home, changed([{**row, "ends": end + timedelta(hours=1)} for row in ads], "a20", ends=end))
    store = LmdbStore(home.online)
    now = served(store)
    assert now is not None
    with client_of(home) as client:
        assert not offers(client)
        store.switch(replace(now, synthetic=True).to_bytes())
        client.app.state.service.follower.look()  # type: ignore[attr-defined]
        found = offers(client)
        assert len(found) > 30
        assert item_ids[20] not in found
        body = {"day": str(DAY + timedelta(days=1)), "spent": [{"ad_id": "a0", "total": 1.0}]}
        assert client.post("/spend", json=body).json() == {"counted": 1}
    store.close()


def test_a_spend_of_another_week_is_refused(home: Home, ads: list[dict[str, Any]]) -> None:
    with client_of(home) as client:
        body = {"day": "2014-07-20", "spent": [{"ad_id": "a0", "total": 1.0}]}
        refused = client.post("/spend", json=body)
        assert refused.status_code == 422
        assert refused.json()["detail"][0]["field"] == "day"


def test_counters_of_days_before_the_publication_go(home: Home, ads: list[dict[str, Any]]) -> None:
    store = LmdbStore(home.online)
    days = [DAY + timedelta(days=distance) for distance in (-1, 0, 1)]
    for day in days:
        put_spend(store, day, {"a0": 1.0})
    publish(home, ads)
    kept = set(store.namespaces())
    store.close()
    assert [spend_namespace(day) in kept for day in days] == [False, True, True]


def test_a_publication_knows_what_the_impressions_of_its_day_have_cost(home: Home, ads: list[dict[str, Any]]) -> None:
    workspace = Workspace(Settings(home=home.root))
    row = {
        "request_id": "r",
        "request_time": datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC),
        "user_id": "u",
        "surface": "home_feed",
        "item_id": "i",
        "stage": "clicked",
        "ad_id": "a7",
        "price_paid": 0.75,
    }
    workspace.landing.write(LandingTable.impressions, DAY, pl.DataFrame([row]), "priced")
    ingest(workspace.landing, workspace.tables, LandingTable.impressions, day=DAY, settings=workspace.settings.data)
    publish(home, ads)
    store = LmdbStore(home.online)
    counters = store.everything(spend_namespace(DAY))
    store.close()
    assert counter_key("a7") in counters
