"""A store that is damaged, full or read-only while the service runs: no answer is a 500, and a day makes it again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from settings import Settings
from tests.assets.world import DAYS, Step, copy_of, execute
from tests.flow import Ran
from tests.serving.answers import answers
from warehouse.home import Home
from warehouse.online import LmdbStore, StoreDamaged, lmdb_store
from warehouse.online.publication import SEQUENCES, served
from warehouse.online.records import is_damaged

pytestmark = pytest.mark.slow


@pytest.fixture
def home(ran: Ran, tmp_path: Path) -> Home:
    return copy_of(ran.home, tmp_path / "home")


@pytest.fixture
def client(home: Home) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(home=home.root)), base_url="http://127.0.0.1") as client:
        yield client


def basis(client: TestClient, user: str) -> str:
    response = client.post("/candidates", json={"user_id": user, "k": 5})
    assert response.status_code == 200, response.text
    assert len(response.json()["candidates"]) == 5
    return str(response.json()["basis"])


def spoil(store: LmdbStore, namespace: str, key: bytes) -> None:
    """Turn one byte of a record."""
    before = store.get(namespace, key)
    assert before is not None
    assert store.exchange(namespace, key, before, before[:20] + bytes([before[20] ^ 255]) + before[21:])


def test_a_damaged_record_counts_as_missing_and_is_counted(ran: Ran, client: TestClient, user: str) -> None:
    store, key = client.app.state.service.store, ran.key(user)  # type: ignore[attr-defined]
    publication = served(store)
    assert publication is not None
    assert publication.advertisers is not None
    spoil(store, publication.states, key)
    assert basis(client, user) == "history"  # inferred anew from the sequence, and put in its place
    value = store.get(publication.states, key)
    assert value is not None
    assert not is_damaged(value)
    for namespace in (publication.advertisers, "users", SEQUENCES):
        spoil(store, namespace, key)
    assert basis(client, user) == "history"
    assert client.post("/history", json={"user_id": user}).json()["events"] == []
    text = client.get("/metrics").text
    for namespace, times in ((publication.states, 1), (publication.advertisers, 1), ("users", 1), (SEQUENCES, 1)):
        assert f'adseq_store_faults_total{{kind="{namespace}"}} {times}.0' in text


def test_a_store_that_takes_no_write_is_answered_from(
    ran: Ran, client: TestClient, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a user whose state is gone, and with events: they are durable, and the answer says what is not done."""
    store = client.app.state.service.store  # type: ignore[attr-defined]
    publication = served(store)
    assert publication is not None
    store.remove(publication.states, [ran.key(user)])

    def full(*_: object) -> int:
        raise lmdb.MapFullError("mdb_put: MDB_MAP_FULL")

    monkeypatch.setattr(lmdb_store, "_put_batch", full)
    assert basis(client, user) == "history"
    assert 'adseq_store_faults_total{kind="unwritten"} 1.0' in client.get("/metrics").text
    event = {"event_id": "1", "user_id": user, "event_time": f"{DAYS[-1]}T10:00:00Z", "event_name": "custom"}
    told = client.post("/events", json={"events": [event]}).json()
    assert (told["accepted"], told["refreshed"]) == (1, False)


def test_a_home_that_cannot_be_written_is_served(home: Home, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warehouse.online.lmdb_store.os.access", lambda *_: False)

    def refuse(*_: object) -> int:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr("warehouse.live_rows._opened", refuse)
    with TestClient(create_app(Settings(home=home.root)), base_url="http://127.0.0.1") as client:
        assert basis(client, user) == "history"
        assert client.get("/ready").status_code == 200
        event = {"event_id": "1", "user_id": user, "event_time": f"{DAYS[-1]}T10:00:00Z", "event_name": "custom"}
        refused = client.post("/events", json={"events": [event]})
    assert (refused.status_code, refused.json()["detail"]) == (
        503,
        "the landing zone cannot be written (Read-only file system); none of the events was taken, send them again",
    )


def test_a_store_that_is_cut_off_is_refused_at_start_and_made_again_by_its_day(ran: Ran, home: Home) -> None:
    [states] = home.online.glob("states-*")
    os.truncate(states / "data.mdb", (states / "data.mdb").stat().st_size // 2)
    shutil.rmtree(home.online / "users")
    for _ in range(2):
        with (
            pytest.raises(StoreDamaged, match=r"states-item-1/data.mdb.*run the newest day again"),
            TestClient(create_app(Settings(home=home.root))),
        ):
            pass
    execute(home, [Step("daily", DAYS[-1].isoformat(), ["online_states"])])
    assert answers(Ran(home, "")) == answers(ran)
