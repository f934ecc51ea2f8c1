"""Users' keys: what they hide, what leads back, and when they are the same."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tests.warehouse.ingest.arrivals import DAY, EVENTS, TOLERANT, arrive, event
from warehouse.identity import IDENTITIES, SECRET_FILE, SecretMissing, UserKeys, external_ids
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing, Manifest
from warehouse.tables import Tables


def test_many_keys_are_those_of_each(landing: Landing, tables: Tables) -> None:
    keys = UserKeys.of(tables, landing)
    users = pl.Series(["ann", None, "bob", "ann", "é" * 5000, ""])
    assert keys.keys(users).to_list() == [None if user is None else keys.key(user) for user in users]
    assert keys.keys(users.head(0)).to_list() == []
    assert {len(keys.key(user)) for user in users.drop_nulls()} == {12}
    assert len({keys.key(str(number)) for number in range(10_000)}) == 10_000


def test_a_home_keeps_its_keys_and_another_has_others(landing: Landing, tables: Tables, tmp_path: Path) -> None:
    key = UserKeys.of(tables, landing).key("ann")
    assert UserKeys.of(tables, landing).key("ann") == key
    assert UserKeys.of(Tables(tmp_path / "other"), landing).key("ann") != key
    assert (tables.root / SECRET_FILE).stat().st_mode & 0o777 == 0o600
    assert "secret" not in repr(UserKeys.of(tables, landing))


def test_a_synthetic_log_has_the_same_keys_everywhere(landing: Landing, tables: Tables, tmp_path: Path) -> None:
    landing.write_manifest(Manifest(synthetic=True))
    keys = UserKeys.of(tables, landing)
    assert keys == UserKeys.of(Tables(tmp_path / "other"), landing)


def test_a_lost_secret_is_not_replaced(landing: Landing, tables: Tables) -> None:
    """Nobody would be who they were, and who was forgotten would come back."""
    arrive(landing, [event("1")])
    ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT)
    before = (tables.root / SECRET_FILE).read_bytes()
    (tables.root / SECRET_FILE).unlink()
    with pytest.raises(SecretMissing, match=f"{SECRET_FILE} is missing"):
        ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT)
    (tables.root / SECRET_FILE).write_bytes(before)
    ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT)


def test_identities_lead_back_and_nothing_else_names_a_user(landing: Landing, tables: Tables) -> None:
    rows = [event("1", user_id="the-user-ann"), event("2", user_id="the-user-bob"), event("3", user_id="the-user-ann")]
    arrive(landing, [*rows, event("4", user_id="the-user-ann", value=-1.0)])  # which is quarantined
    for _ in range(2):
        ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT)
    stored = tables.read("events", {"arrival_date": DAY}).sort("event_id")
    assert external_ids(tables, stored["user_id"]).to_list() == [row["user_id"] for row in rows]
    assert external_ids(tables, pl.Series(["nobody's"])).to_list() == [None]
    assert tables.scan(IDENTITIES).collect().height == 2
    assert tables.scan("quarantine_events").collect().height == 1
    elsewhere = [path for path in tables.root.rglob("*") if path.is_file() and IDENTITIES not in path.parts]
    assert elsewhere
    assert not [path for path in elsewhere if b"the-user" in path.read_bytes()]


def test_no_log_holds_values_of_rows(landing: Landing, tables: Tables) -> None:
    """Delta's statistics would: and a log only grows."""
    arrive(landing, [event("1", user_id="the-user-ann", item_id="the-item"), event("the-event", value=-1.0)])
    ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT)
    logs = b"".join(path.read_bytes() for path in tables.root.rglob("_delta_log/*") if path.is_file())
    assert b"arrival_date" in logs
    assert not [word for word in (b"the-user", b"the-item", b"the-event") if word in logs]
