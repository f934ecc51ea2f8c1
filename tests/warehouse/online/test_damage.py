"""Damaged bytes, full disks, directories that cannot be written: each is said, none is an answer that is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings import Precision
from warehouse.online import DamagedRecord, LmdbStore, StateRecord, StoreDamaged, StoreUnreachable, lmdb_store
from warehouse.online.publication import SEQUENCES, Publication, check, served
from warehouse.online.records import RECORD_FORMAT, json_in, json_rows, json_value
from warehouse.online.sequences import COLUMNS, Held, add
from warehouse.online.store import StoreUnwritable

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
STATE = StateRecord(7, date(2026, 3, 2), 3, NOON, np.arange(4, dtype=np.float32)).to_bytes(Precision.float32)
LIST = json_value(7, {"advertiser_ids": ["a", "b"], "scores": [0.5, 0.25]})
PUBLICATION = Publication(
    model_version="item-1",
    day=date(2026, 3, 2),
    model=Path("m"),
    index=Path("i"),
    catalogue=Path("c"),
    advertiser_version=None,
    precision=Precision.float32,
    time_zone="UTC",
    repeats_count=True,
    published_at=NOON,
)


def value(stamp: int, content: bytes = b"x") -> bytes:
    return stamp.to_bytes(8, "big") + content


@given(st.data())
def test_a_record_with_any_bit_flipped_or_any_end_cut_off_is_damaged(data: st.DataObject) -> None:
    record, read = data.draw(st.sampled_from([(STATE, StateRecord.from_bytes), (LIST, json_in)]))
    damaged = bytearray(record)
    if data.draw(st.booleans()):
        damaged[data.draw(st.integers(0, len(record) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del damaged[data.draw(st.integers(0, len(record) - 1)) :]
    with pytest.raises(DamagedRecord):
        read(bytes(damaged))


def test_a_damaged_sequence_begins_anew_with_the_next_event(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    event = {**dict.fromkeys(COLUMNS), "event_id": "1", "event_time": 5, "event_name": "custom"}
    [(key, record)] = json_rows(
        pl.DataFrame({"user_id": ["ann"], "stamp": [9], **{name: [[event[name]]] for name in COLUMNS}}), COLUMNS
    )
    store.put(SEQUENCES, [(key, b"\x7f" + record[1:])])  # a stamp of the far future
    assert Held.of(store.get(SEQUENCES, key)) == Held(None, [])
    assert add(store, key, [event | {"event_id": "2"}], stamp=10, since=0, length=5)[0] == 10
    held = Held.of(store.get(SEQUENCES, key))
    assert (held.stamp, [each["event_id"] for each in held.events]) == (10, ["2"])
    store.close()


BROKEN = """
import random, shutil, sys
from pathlib import Path
from warehouse.online import LmdbStore
from warehouse.online.store import StoreError
root, seed = Path(sys.argv[1]), random.Random(0)
whole, said = (root / "whole" / "states" / "data.mdb").read_bytes(), set()
for number in range(40):
    content, kind = bytearray(whole), ("cut off", "page", "bits")[number % 3]
    page = seed.randrange(len(whole) // 4096) * 4096
    if kind == "cut off":
        del content[seed.choice([0, 100, 4096, 8192, page, len(whole) - 1]):]
    elif kind == "page":
        content[page:page + 4096] = seed.choice([bytes(4096), seed.randbytes(4096)])
    else:
        for _ in range(20):
            content[page + seed.randrange(64)] ^= 1 << seed.randrange(8)
    path = root / f"broken-{number}"
    (path / "states").mkdir(parents=True)
    (path / "states" / "data.mdb").write_bytes(content)
    store, wrong = LmdbStore(path), []
    for row in range(0, 2000, 10):
        for act in (lambda key: store.get("states", key), lambda key: store.exchange("states", key, b"-", b"+")):
            try:
                act(row.to_bytes(4, "big"))
            except StoreError as error:
                said.add(f"{kind}: {type(error).__name__}")
    try:
        store.count("states")
        store.put("states", [(row.to_bytes(4, "big"), bytes([255] * 300)) for row in range(0, 2000, 50)])
    except StoreError as error:
        said.add(f"{kind}: {type(error).__name__}")
    store.close()
    shutil.rmtree(path)
print(sorted(said))
"""


@pytest.mark.slow
def test_a_file_that_is_damaged_anywhere_raises_the_store_s_own_errors_and_kills_nobody(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "whole")
    store.put("states", [(number.to_bytes(4, "big"), value(1, bytes(300))) for number in range(2000)])
    store.close()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert "cut off: StoreDamaged" in done.stdout
    assert "page: DamagedRecord" in done.stdout


def test_a_cut_off_or_missing_namespace_is_refused_with_what_to_do(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    store.put("states-item-1", [(number.to_bytes(4, "big"), value(1, bytes(300))) for number in range(100)])
    with pytest.raises(StoreDamaged, match=r"lacks .*sequences: run the newest day again"):
        check(store, PUBLICATION)
    store.put(SEQUENCES, [(b"a", LIST)])
    check(store, PUBLICATION)
    store.close()
    data = tmp_path / "states-item-1" / "data.mdb"
    for length in (data.stat().st_size - 1, 8192, 0):
        os.truncate(data, length)
        with pytest.raises(StoreDamaged, match=r"states-item-1/data.mdb.*run the newest day again"):
            check(LmdbStore(tmp_path), PUBLICATION)


def test_a_sign_of_another_format_or_of_no_sense_is_refused_with_what_to_do(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    for pointer in (b"", b"{", b"[]", b'{"model_version": 3}', PUBLICATION.to_bytes()[:-9]):
        store.switch(pointer)
        with pytest.raises(StoreDamaged, match="the pointer of the online store cannot be read"):
            served(store)
    store.switch(PUBLICATION.to_bytes().replace(b', "record_format": %d' % RECORD_FORMAT, b""))
    before = served(store)
    assert before is not None
    with pytest.raises(StoreDamaged, match=r"records of format 1, .*adseq run --days 2026-03-02 --again"):
        check(store, before)


def test_a_full_store_takes_no_write_and_goes_on_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_store, "MAXIMUM_BYTES", 1 << 20)
    store = LmdbStore(tmp_path)
    store.put("states", [(b"a", value(1))])
    with pytest.raises(StoreUnwritable, match="takes no write"):
        store.put("states", [(number.to_bytes(4, "big"), value(1, bytes(1000))) for number in range(2000)])
    with pytest.raises(StoreUnwritable, match="takes no write"):
        store.exchange("states", b"b", None, value(1, bytes(1 << 20)))
    assert store.get("states", b"a") == value(1)
    assert store.put("states", [(b"b", value(2))]) == 1
    store.close()


def test_when_all_places_of_readers_are_taken_it_says_so_and_goes_on_when_one_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_store, "MAXIMUM_READERS", 2)
    store = LmdbStore(tmp_path)
    store.put("states", [(b"a", value(1))])
    environment = store._namespace("states")
    assert environment is not None
    reading = [environment.begin() for _ in range(2)]
    with pytest.raises(StoreUnreachable, match="cannot be read"):
        store.get("states", b"a")
    reading.pop().abort()
    del reading
    assert store.get("states", b"a") == value(1)
    store.close()


def test_a_directory_that_cannot_be_written_is_read_without_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "online"
    writer = LmdbStore(root)
    writer.put("states", [(b"a", value(1))])
    writer.close()
    (root / "states" / "lock.mdb").unlink()
    monkeypatch.setattr(
        "warehouse.online.lmdb_store.os.access", lambda *_: False
    )  # as on a read-only mount, for root too
    store = LmdbStore(root)
    assert (store.get("states", b"a"), store.count("states")) == (value(1), 1)
    for write in (
        lambda: store.put("states", [(b"b", value(1))]),
        lambda: store.exchange("states", b"a", value(1), value(2)),
        lambda: store.remove("states", [b"a"]),
    ):
        with pytest.raises(StoreUnwritable, match="correct the rights of the directory"):
            write()
    assert store.get("states", b"a") == value(1)
    assert [path.name for path in (root / "states").iterdir()] == ["data.mdb"]
    store.close()
