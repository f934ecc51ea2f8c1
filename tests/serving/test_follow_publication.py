"""A publication that cannot be loaded: the reason is said, and an earlier one goes on answering."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from settings import Settings
from tests.assets.world import copy_of
from tests.flow import Ran
from warehouse.home import Home
from warehouse.online import LmdbStore

UNREADABLE = "adseq_publication_unreadable"


@pytest.fixture(scope="module")
def home(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Home:
    return copy_of(ran.home, tmp_path_factory.mktemp("followed") / "home")


def client_of(home: Home) -> TestClient:
    return TestClient(create_app(Settings(home=home.root)), base_url="http://127.0.0.1")


def broken(home: Home, kind: str) -> tuple[Path, bytes]:
    """Damage a file of the publication. Returns the file and what it was."""
    pointer = json.loads((home.online / "served.json").read_text())
    path = {
        "weights": home.root / pointer["model"] / "weights.pt",
        "index": next((home.root / pointer["index"]).glob("*.faiss")),
        "catalogue": home.root / pointer["catalogue"],
    }[kind]
    before = path.read_bytes()
    if kind == "weights":
        path.write_bytes(before[: len(before) // 2])
    elif kind == "index":
        path.write_bytes(before[:-9] + bytes([before[-9] ^ 1]) + before[-8:])
    else:
        path.unlink()
    return path, before


@pytest.fixture(params=["weights", "index", "catalogue"])
def damaged(request: pytest.FixtureRequest, home: Home) -> Iterator[Path]:
    path, before = broken(home, request.param)
    yield path
    path.write_bytes(before)


def test_the_reason_is_in_the_log_in_ready_and_in_the_metrics(
    home: Home, damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), client_of(home) as client:
        follower = client.app.state.service.follower  # type: ignore[attr-defined]
        follower.look()
        for response in (client.get("/ready"), client.post("/candidates", json={"user_id": "u"})):
            assert response.status_code == 503
            said = response.json()["detail"]
            assert str(damaged.relative_to(home.root)) in said
            assert "nothing is published" not in said
            assert str(home.root) not in said
        assert f"{UNREADABLE} 1.0" in client.get("/metrics").text
    told = [record for record in caplog.records if damaged.name in record.getMessage()]
    assert len(told) == 1  # not at each look


def test_one_that_can_be_loaded_again_answers_without_a_restart(home: Home) -> None:
    path, before = broken(home, "weights")
    with client_of(home) as client:
        assert client.get("/ready").status_code == 503
        path.write_bytes(before)
        client.app.state.service.follower.look()  # type: ignore[attr-defined]
        assert client.get("/ready").json()["status"] == "ready"
        assert f"{UNREADABLE} 0.0" in client.get("/metrics").text


def test_the_one_before_goes_on_and_says_that_it_is_behind(home: Home) -> None:
    with client_of(home) as client:
        path, before = broken(home, "index")
        store, pointer = LmdbStore(home.online), (home.online / "served.json").read_bytes()
        try:
            store.switch(pointer + b" ")  # another publication
            client.app.state.service.follower.look()  # type: ignore[attr-defined]
            ready = client.get("/ready")
            assert ready.status_code == 200
            assert path.name in ready.json()["behind"]
            assert f"{UNREADABLE} 1.0" in client.get("/metrics").text
            assert client.post("/candidates", json={"user_id": "u"}).status_code == 200
        finally:
            path.write_bytes(before)
            store.switch(pointer)
            store.close()
