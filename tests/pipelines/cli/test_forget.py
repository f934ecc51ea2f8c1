"""``adseq forget`` on a home after some days: nothing of the user is left, and nothing brings them back."""

from __future__ import annotations

import gzip
import re
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from settings import Settings
from tests.assets.world import ARRIVED, DAYS, adseq, copy_of, days_of, execute
from tests.flow import Ran
from warehouse.forget import TOMBSTONES
from warehouse.home import Home
from warehouse.online import LmdbStore
from warehouse.online.publication import FORGOTTEN

pytestmark = pytest.mark.slow
OF_USERS = (*ARRIVED, "user_sequences", "user_states", "advertiser_candidates")  # the assets with rows of users


def shown_in_a_report(ran: Ran) -> str:
    """The key of somebody whose history is on the page of a report."""
    pages = sorted(ran.home.artifacts.rglob("*.html"))
    keys = [key for page in pages for key in re.findall(r'data-user="([^"]+)"', page.read_text())]
    assert keys, "no report shows a user"
    return str(keys[0])


def texts(path: Path) -> bytes:
    """Everything in a file that could name somebody: its bytes, and what is compressed in them."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if path.suffix == ".parquet":
        frame = pl.read_parquet(path, hive_partitioning=False)
        return content + b"\n".join(frame[name].to_frame().write_ndjson().encode() for name in frame.columns)
    return content


@pytest.fixture(scope="module")
def forgotten(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, str, str]:
    """A home that has forgotten somebody, their key and their id."""
    home = copy_of(ran.home, tmp_path_factory.mktemp("forget") / "home")
    key = shown_in_a_report(ran)
    (user_id,) = ran.ids(pl.Series([key]))
    execute(home, days_of([DAYS[0]], OF_USERS))  # so that there are older versions
    done = adseq(home, "forget", user_id, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 pages changed" in done.stdout
    return Ran(home, done.stdout), key, user_id


def test_no_byte_names_the_user(forgotten: tuple[Ran, str, str], ran: Ran) -> None:
    home, key, user_id = forgotten
    files = [path for path in home.home.root.rglob("*") if path.is_file()]
    name, hidden = re.compile(rf"(?<!\w){user_id}(?!\w)".encode()), key.encode()
    assert [path for path in ran.home.root.rglob("*.parquet") if name.search(texts(path))]  # a scan that can find
    assert not [path for path in files if name.search(texts(path))]
    # The key is left in the tombstones, and on pages that the embedded store will use again.
    kept = (home.tables.path(TOMBSTONES), home.home.online)
    elsewhere = [path for path in files if not any(path.is_relative_to(place) for place in kept)]
    assert not [path for path in elsewhere if hidden in texts(path)]


def test_the_store_has_nothing_of_them_and_everything_of_others(forgotten: tuple[Ran, str, str], ran: Ran) -> None:
    home, key, _ = forgotten
    before, after = LmdbStore(ran.home.online), LmdbStore(home.home.online)
    for namespace in set(before.namespaces()) - {FORGOTTEN}:
        had = before.get(namespace, key.encode()) is not None
        assert after.get(namespace, key.encode()) is None
        assert after.count(namespace) == before.count(namespace) - had
    before.close()
    after.close()


def test_everybody_else_is_as_before(forgotten: tuple[Ran, str, str], ran: Ran) -> None:
    home, key, _ = forgotten
    for name in ("events", "user_states", "user_sequences", "advertiser_candidates", "impressions"):
        rows = [tables.scan(name).collect().height for tables in (ran.tables, home.tables)]
        theirs = ran.tables.scan(name).filter(pl.col("user_id") == key).collect().height
        assert rows[1] == rows[0] - theirs


def test_neither_a_day_nor_a_file_nor_a_request_brings_them_back(forgotten: tuple[Ran, str, str], ran: Ran) -> None:
    home, key, user_id = forgotten
    # The exporting job sends the newest day's file again.
    (again,) = (ran.home.landing / "events" / f"date={DAYS[-1]}").glob("*.parquet")
    (home.home.landing / "events" / f"date={DAYS[-1]}" / again.name).write_bytes(again.read_bytes())
    event = {"event_id": "live", "user_id": user_id, "event_time": f"{DAYS[-1]}T10:00:00Z", "event_name": "custom"}
    with TestClient(create_app(Settings(home=home.home.root)), base_url="http://127.0.0.1") as client:
        taken = client.post("/events", json={"events": [event, event | {"user_id": "somebody else"}]}).json()
        assert (taken["accepted"], taken["forgotten"]) == (1, 1)
        answer = client.post("/candidates", json={"user_id": user_id}).json()
        assert answer["basis"] == "popularity"
    assert not [path for path in home.home.landing.rglob("live-*.jsonl") if user_id in path.read_text()]
    execute(home.home, days_of([DAYS[-1]], (*OF_USERS, "online_states")))
    for name in home.tables.names():
        rows = home.tables.scan(name)
        if name != TOMBSTONES and "user_id" in rows.collect_schema():
            assert rows.filter(pl.col("user_id") == key).collect().is_empty(), name
    store = LmdbStore(home.home.online)
    assert [namespace for namespace in store.namespaces() if store.get(namespace, key.encode()) is not None] == [
        FORGOTTEN
    ]
    store.close()


def test_a_user_whom_nobody_knows_is_kept_out_all_the_same(forgotten: tuple[Ran, str, str]) -> None:
    home = forgotten[0].home
    done = adseq(home, "forget", "nobody", "nobody else", "--yes")
    assert done.returncode == 0
    assert "0 rows of 0 files" in done.stdout
    assert "Abort" in adseq(home, "forget", "nobody").stderr  # nobody is there to confirm


def test_it_waits_for_nobody(forgotten: tuple[Ran, str, str]) -> None:
    home = Home(forgotten[0].home.root)
    with home.writing("a test"):
        done = adseq(home, "forget", "nobody", "--yes")
    assert done.returncode == 2
    assert "a test" in done.stderr


def test_another_store_than_the_homes_own_is_refused(forgotten: tuple[Ran, str, str]) -> None:
    """The users would stay in the one that is served."""
    home = forgotten[0].home
    (home.root / "online.store").write_text("redis://elsewhere:6379/0")
    done = adseq(home, "forget", "nobody", "--yes")
    (home.root / "online.store").write_text("lmdb")
    assert done.returncode == 2
    assert "publishes to redis://elsewhere:6379/0" in done.stderr


def test_a_mistyped_home_is_no_home(tmp_path: Path) -> None:
    done = adseq(Home(tmp_path / "hmoe"), "forget", "nobody", "--yes")
    assert done.returncode == 2
    assert "does not exist: give the --home of an earlier `adseq run`" in done.stderr
    assert not (tmp_path / "hmoe").exists()


def test_dagster_keeps_nobody(ran: Ran) -> None:
    """What a run says of itself is kept where nobody forgets."""
    keys = {key.encode() for key in ran.tables.scan("identities").select("user_id").unique().collect()["user_id"]}
    kept = b"".join(path.read_bytes() for path in ran.home.dagster.rglob("*") if path.is_file())
    assert b"online_states" in kept
    assert not [key for key in keys if key in kept]


def test_events_that_arrive_meanwhile_are_gone_too(ran: Ran, tmp_path: Path) -> None:
    home, stop = Ran(copy_of(ran.home, tmp_path / "home"), ""), threading.Event()
    user_id = ran.ids(ran.tables.read("user_sequences", {"day": DAYS[-1]})["user_id"])[0]
    item = ran.tables.scan("items").select("item_id").first().collect()["item_id"][0]
    codes: list[int] = []

    def post(client: TestClient) -> None:
        while not stop.is_set():
            name = f"live-{len(codes)}"
            event = {"event_id": name, "user_id": user_id, "event_name": "page_visit", "item_id": item}
            event["event_time"] = datetime.now(UTC).isoformat()
            codes.append(client.post("/events", json={"events": [event]}).status_code)
            client.post("/candidates", json={"user_id": user_id, "k": 5})

    with TestClient(create_app(Settings(home=home.home.root)), base_url="http://127.0.0.1") as client:
        posting = threading.Thread(target=post, args=(client,))
        posting.start()
        while len(codes) < 10:
            time.sleep(0.01)
        done = adseq(home.home, "forget", user_id, "--yes")
        stop.set()
        posting.join()
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(codes) == {200}
    name = re.compile(rf"(?<!\w){user_id}(?!\w)".encode())
    assert not [path for path in home.home.landing.rglob("*") if path.is_file() and name.search(texts(path))]
    store, key = LmdbStore(home.home.online), ran.key(user_id)
    assert [namespace for namespace in store.namespaces() if store.get(namespace, key) is not None] == [FORGOTTEN]
    store.close()
