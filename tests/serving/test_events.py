"""Events as they happen: durable, known to the next answer, and no other state than the daily run arrives at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

import serving.refresh
from serving.app import create_app
from serving.service import Service
from settings import Settings
from tests.assets.compare import TOLERANCE
from tests.assets.world import DAYS, LATER, PUBLISHED, SETTINGS, copy_of, days_of, execute
from tests.flow import Ran
from tests.serving.test_answer import asked, ids
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.online import LmdbStore, StateRecord
from warehouse.online.publication import SEQUENCES, served
from warehouse.online.records import json_in, json_value, stamp_of

pytestmark = pytest.mark.slow
NOON = datetime.combine(LATER, time(12), UTC)


@pytest.fixture
def home(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of the test's own, at noon of the day after the newest one."""
    monkeypatch.setattr(Service, "now", lambda service: NOON)
    return copy_of(ran.home, tmp_path / "home")


@pytest.fixture
def client(home: Home) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(home=home.root)), base_url="http://127.0.0.1") as client:
        yield client


def event(user_id: str, item_id: str | None, number: int = 0, **changed: Any) -> dict[str, Any]:
    return {
        "event_id": f"live-{user_id}-{number}",
        "user_id": user_id,
        "event_time": (NOON - timedelta(minutes=60 - number)).isoformat(),
        "event_name": "page_visit",
        "item_id": item_id,
    } | changed


def posted(client: TestClient, *events: dict[str, Any]) -> dict[str, Any]:
    response = client.post("/events", json={"events": list(events)})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def items(ran: Ran, count: int) -> list[str]:
    return (
        ran.tables.scan("items").select("item_id").unique().sort("item_id").head(count).collect()["item_id"].to_list()
    )


def sequence(home: Home, user_id: str) -> dict[str, list[Any]]:
    store = LmdbStore(home.online)
    value = store.get(SEQUENCES, Ran(home, "").key(user_id))
    store.close()
    return json_in(value) if value else {}


def test_the_next_answer_knows_an_event(client: TestClient, ran: Ran) -> None:
    chair, *_ = items(ran, 1)
    assert asked(client, user_id="newcomer", k=5)["basis"] == "popularity"
    assert posted(client, event("newcomer", chair)) == {
        "accepted": 1,
        "known": 0,
        "forgotten": 0,
        "arrival_day": LATER.isoformat(),
        "refreshed": True,
    }
    answer = asked(client, user_id="newcomer", k=500, explain=True)
    assert answer["basis"] == "history"
    assert chair not in ids(answer)
    assert answer["candidates"][0]["explanation"]["events"][0]["item_id"] == chair


def test_an_event_changes_what_somebody_known_gets(client: TestClient, ran: Ran, home: Home) -> None:
    sequences = ran.tables.read("user_sequences", {"day": DAYS[-1]})
    user_id = ran.ids(sequences["user_id"])[0]
    before = asked(client, user_id=user_id, k=50)
    far = [item for item in items(ran, 300) if item not in set(ids(before)) | set(sequences["item_id"][0].to_list())]
    posted(client, *(event(user_id, item, number, event_name="add_to_cart") for number, item in enumerate(far[:3])))
    after = asked(client, user_id=user_id, k=50)
    assert ids(after) != ids(before)
    assert after["state_age_seconds"] < before["state_age_seconds"]


def test_the_daily_run_arrives_at_the_same_state(home: Home, client: TestClient, ran: Ran) -> None:
    """Of somebody new, of somebody known, of one whose events have equal times, and of a late one."""
    chair, lamp, rug = items(ran, 3)
    known = ran.ids(ran.tables.read("user_sequences", {"day": DAYS[-1]})["user_id"])
    late = event(known[1], lamp, event_time=(NOON - timedelta(days=20)).isoformat())
    posted(client, event("newcomer", chair), event("newcomer", lamp, 1, event_name="checkout"))
    posted(client, event(known[0], rug, 1))
    posted(client, late)
    at_once = NOON.isoformat()
    posted(client, event(known[2], rug, 7, event_time=at_once), event(known[2], lamp, 3, event_time=at_once))
    posted(client, event(known[2], chair, 5, event_time=at_once))
    posted(client, event("newcomer", chair))  # sent again
    store = LmdbStore(home.online)
    now = served(store)
    assert now is not None
    users = ["newcomer", *known[:3]]
    values = {ran.key(user).decode(): store.get(now.states, ran.key(user)) for user in users}
    store.close()
    execute(home, days_of([LATER], ("events", *PUBLISHED)))
    daily = Ran(home, "").tables.read("user_states", {"model_version": "item-1", "day": LATER})
    assert sorted(daily["user_id"]) == sorted(values)
    for row in daily.rows(named=True):
        value = values[row["user_id"]]
        assert value is not None
        live = StateRecord.from_bytes(value)
        assert (live.events, live.last_event_time) == (row["events"], row["last_event_time"]), row["user_id"]
        assert np.abs(live.state - np.array(row["state"], np.float32)).max() <= TOLERANCE, row["user_id"]
    again = LmdbStore(home.online)
    record = again.get(now.states, ran.key("newcomer"))
    assert record is not None
    assert StateRecord.from_bytes(record).day == LATER  # the day's publication takes the place of the live state
    again.close()


def test_an_event_after_the_day_survives_its_publication(home: Home, client: TestClient, ran: Ran) -> None:
    """The day before is published (again) after an event of this noon came in: the store keeps what is newer."""
    user_id = ran.ids(ran.tables.read("user_sequences", {"day": DAYS[-1]})["user_id"])[0]
    posted(client, event(user_id, items(ran, 1)[0]))
    told = sequence(home, user_id)
    execute(home, days_of([DAYS[-1]], ["online_states"]))
    assert sequence(home, user_id) == told
    assert told["event_id"][-1] == f"live-{user_id}-0"


def test_what_the_days_files_bring_joins_what_came_in_live(home: Home, client: TestClient, ran: Ran) -> None:
    """A user's event of this noon is in the store; then the day is published with an older event that only its files
    have: the live sequence is kept, and gets it."""
    chair, lamp, _ = items(ran, 3)
    posted(client, event("newcomer", chair, 9))
    store = LmdbStore(home.online)
    key = ran.key("newcomer")
    older = event("newcomer", lamp, 1) | {"event_id": "of-the-file"}
    (live,) = (home.landing / "events" / f"date={LATER}").glob("live-*.jsonl")
    live.with_name("export.jsonl").write_text(json.dumps(older) + "\n")
    held = store.get(SEQUENCES, key)
    assert held is not None
    stamp = stamp_of(NOON + timedelta(days=2))  # as of an event that came in after the end of the day
    assert store.exchange(SEQUENCES, key, held, json_value(stamp, json_in(held)))
    execute(home, days_of([LATER], ("events", *PUBLISHED)))
    assert sequence(home, "newcomer")["event_id"] == ["of-the-file", "live-newcomer-9"]
    answer = asked(client, user_id="newcomer", k=500, explain=True)
    assert not {chair, lamp} & set(ids(answer))
    store.close()


def test_an_old_event_changes_nothing_and_harms_nobody(home: Home, client: TestClient, ran: Ran) -> None:
    chair, *_ = items(ran, 1)
    old = event("clock-of-1970", chair, event_time="1970-01-01T00:00:00Z")
    assert posted(client, old, event("newcomer", chair))["refreshed"]
    assert sequence(home, "clock-of-1970") == {}
    assert asked(client, user_id="clock-of-1970", k=5)["basis"] == "popularity"
    assert asked(client, user_id="newcomer", k=5)["basis"] == "history"


def test_an_event_is_taken_once_and_in_its_place(home: Home, client: TestClient, ran: Ran) -> None:
    chair, lamp, rug = items(ran, 3)
    told = posted(client, event("u", chair, 5), event("u", lamp, 9), event("u", lamp, 9))
    assert (told["accepted"], told["known"]) == (2, 1)
    told = posted(client, event("u", rug, 7), event("u", chair, 5))
    assert (told["accepted"], told["known"]) == (1, 1)
    assert sequence(home, "u")["event_id"] == ["live-u-5", "live-u-7", "live-u-9"]
    (file,) = (home.landing / "events" / f"date={LATER}").glob("live-*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["item_id"] for line in lines] == [chair, lamp, rug]


def test_what_was_sent_before_costs_a_look_up(
    home: Home, client: TestClient, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line on the disk, no inference: of events just sent, of a day's, and of one too old for a sequence."""
    chair, *_ = items(ran, 1)
    sequences = ran.tables.read("user_sequences", {"day": DAYS[-1]})
    of_a_day = event(ran.ids(sequences["user_id"])[0], chair, event_id=sequences["event_id"][0][-1])
    sent = [
        *(event("u", chair, number) for number in range(99)),
        event("clock-of-1970", chair, event_time="1970-01-01"),
    ]
    assert posted(client, *sent)["accepted"] == 100
    (file,) = (home.landing / "events" / f"date={LATER}").glob("live-*.jsonl")
    content = file.read_bytes()
    monkeypatch.setattr(serving.refresh, "infer", lambda *_: pytest.fail("a known event was inferred"))
    for again in (sent, sent[::-1], [of_a_day]):
        told = posted(client, *again)
        assert (told["accepted"], told["known"], told["refreshed"]) == (0, len(again), True)
    assert file.read_bytes() == content


def test_an_event_that_was_refused_is_new_when_it_is_sent_again(home: Home, client: TestClient, ran: Ran) -> None:
    folder = home.landing / "events" / f"date={LATER}"
    folder.write_text("in the way")
    late = event("newcomer", items(ran, 1)[0])
    assert client.post("/events", json={"events": [late]}).status_code == 503
    folder.unlink()
    assert posted(client, late)["accepted"] == 1


def test_a_manifest_that_changes_is_followed(home: Home, client: TestClient, ran: Ran) -> None:
    """It is read once for each of its states; one that breaks a rule takes no events."""
    landing, chair = Landing(home.landing), items(ran, 1)[0]
    given = landing.manifest
    landing.write_manifest(
        given.model_copy(update={"time_zone": "Pacific/Kiritimati"})
    )  # noon in UTC is tomorrow there
    assert posted(client, event("u", chair))["arrival_day"] == (LATER + timedelta(days=1)).isoformat()
    (home.landing / "manifest.toml").write_text("time_zone = 7")
    refused = client.post("/events", json={"events": [event("u", chair, 1)]})
    assert (refused.status_code, "manifest.toml" in refused.json()["detail"]) == (503, True)
    landing.write_manifest(given)
    assert posted(client, event("u", chair, 1))["arrival_day"] == LATER.isoformat()


def test_only_the_newest_events_are_kept(home: Home, client: TestClient, ran: Ran) -> None:
    length = int(SETTINGS["ADSEQ_SEQUENCES__LENGTH"])  # under which the model was trained
    chair, *_ = items(ran, 1)
    posted(client, *(event("u", chair, number) for number in range(100)))
    posted(client, *(event("u", chair, number) for number in range(100, 130)))
    assert sequence(home, "u")["event_id"] == [f"live-u-{number}" for number in range(130 - length, 130)]


def test_events_of_one_user_from_all_sides_are_all_there(home: Home, client: TestClient, ran: Ran) -> None:
    chair, *_ = items(ran, 1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: posted(client, event("u", chair, number)), range(24)))
    assert len(sequence(home, "u")["event_id"]) == 24


def test_a_state_that_a_new_version_does_not_have_is_inferred_when_asked_for(
    home: Home, client: TestClient, ran: Ran
) -> None:
    posted(client, event("newcomer", items(ran, 1)[0]))
    before = asked(client, user_id="newcomer", k=20)
    store = LmdbStore(home.online)
    now = served(store)
    assert now is not None
    store.close()
    service = client.app.state.service  # type: ignore[attr-defined]
    assert service.store.remove(now.states, [ran.key("newcomer")]) == 1
    assert ids(asked(client, user_id="newcomer", k=20)) == ids(before)
    assert service.store.get(now.states, ran.key("newcomer")) is not None


@pytest.mark.parametrize(
    ("changed", "field", "rule"),
    [
        ({"event_name": "bought"}, "events.0.event_name", "page_visit"),
        ({"item_id": None}, "events.0", "names an item or an advertiser"),
        ({"event_time": (NOON + timedelta(days=3)).isoformat()}, "events.0.event_time", "ahead of the service's clock"),
        ({"event_time": "yesterday"}, "events.0.event_time", "valid datetime"),
        ({"value": -1}, "events.0.value", "greater than or equal to 0"),
        ({"value": "Infinity"}, "events.0.value", "finite number"),
        ({"event_id": "é" * 300}, "events.0.event_id", "at most 512 bytes"),
        ({"event_time": "0001-01-01T00:00:00+14:00"}, "events.0.event_time", "not one that UTC has"),
    ],
)
def test_bad_events_name_the_field_and_the_rule(
    client: TestClient, home: Home, ran: Ran, changed: dict[str, Any], field: str, rule: str
) -> None:
    response = client.post("/events", json={"events": [event("u", items(ran, 1)[0]) | changed]})
    assert response.status_code == 422
    (problem,) = response.json()["detail"]
    assert problem["field"] == field
    assert rule in problem["rule"]
    assert not list((home.landing / "events").glob(f"date={LATER}/*"))


def test_what_cannot_be_written_is_not_taken(client: TestClient, home: Home, ran: Ran) -> None:
    (home.landing / "events" / f"date={LATER}").write_text("in the way")
    response = client.post("/events", json={"events": [event("newcomer", items(ran, 1)[0])]})
    assert response.status_code == 503
    assert "none of the events was taken" in response.json()["detail"]
    assert sequence(home, "newcomer") == {}


def test_a_time_without_a_zone_is_utc(home: Home, client: TestClient, ran: Ran) -> None:
    chair, *_ = items(ran, 1)
    posted(client, event("u", chair, 1, event_time="2026-03-04T10:00:00"))
    posted(client, event("u", chair, 2, event_time="2026-03-04T10:30:00+01:00"))
    assert sequence(home, "u")["event_id"] == ["live-u-2", "live-u-1"]
    assert pl.from_epoch(pl.Series(sequence(home, "u")["event_time"]), "us")[1] == datetime(2026, 3, 4, 10)
