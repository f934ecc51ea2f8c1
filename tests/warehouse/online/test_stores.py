"""What every online store does, and what happens to it when processes die."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from settings import Settings
from tests import processes
from warehouse.home import Home
from warehouse.online import LmdbStore, OnlineStore, StoreUnreachable, open_store


def value(stamp: int, content: bytes = b"x") -> bytes:
    return stamp.to_bytes(8, "big") + content


def test_what_is_put_is_found(store: OnlineStore) -> None:
    assert store.put("states", [(b"a", value(1)), (b"b", value(1, b"y"))]) == 2
    assert (store.get("states", b"a"), store.get("states", b"b")) == (value(1), value(1, b"y"))
    assert store.count("states") == 2
    assert store.namespaces() == ["states"]


def test_what_is_not_there_is_none(store: OnlineStore) -> None:
    assert store.get("nowhere", b"a") is None
    assert store.count("nowhere") == store.remove("nowhere", [b"a"]) == 0
    store.put("states", [(b"a", value(1))])
    assert store.get("states", b"b") is None


def test_the_later_stamp_stays(store: OnlineStore) -> None:
    """Among all byte values: 2**40 and 200 have bytes above 127, which text comparisons get wrong."""
    for stamp in (200, 2**40, 2**40 + 200):
        assert store.put("states", [(b"a", value(stamp))]) == 1
    assert store.put("states", [(b"a", value(2**40)), (b"b", value(3))]) == 1
    assert store.get("states", b"a") == value(2**40 + 200)
    assert store.put("states", [(b"a", value(2**40 + 200, b"again"))]) == 1  # a day that is run again
    assert store.get("states", b"a") == value(2**40 + 200, b"again")


def test_an_exchange_happens_only_if_nobody_was_faster(store: OnlineStore) -> None:
    assert store.exchange("sequences", b"a", None, value(5))
    assert not store.exchange("sequences", b"a", None, value(6))
    assert not store.exchange("sequences", b"a", value(4), value(6))
    assert store.get("sequences", b"a") == value(5)
    assert store.exchange("sequences", b"a", value(5), value(6))
    assert store.get("sequences", b"a") == value(6)


def test_namespaces_do_not_meet(store: OnlineStore) -> None:
    store.put("states-1", [(b"a", value(9))])
    store.put("states-2", [(b"a", value(1))])
    store.clear("states-1")
    assert store.get("states-1", b"a") is None
    assert store.get("states-2", b"a") == value(1)
    assert store.namespaces() == ["states-2"]
    store.put("states-1", [(b"b", value(1))])
    assert store.count("states-1") == 1


def test_keys_are_forgotten(store: OnlineStore) -> None:
    store.put("states", [(b"a", value(1)), (b"b", value(1))])
    assert store.remove("states", [b"a", b"c"]) == 1
    assert store.get("states", b"a") is None
    assert store.get("states", b"b") == value(1)


def test_the_sign_is_none_until_it_is_turned(store: OnlineStore) -> None:
    assert store.current() is None
    store.switch(b"one")
    store.switch(b"two")
    assert store.current() == b"two"
    assert store.namespaces() == []


def test_many_rows(store: OnlineStore) -> None:
    rows = [(number.to_bytes(4, "big"), value(1, bytes(500))) for number in range(50_000)]
    assert store.put("states", rows) == store.count("states") == 50_000
    assert store.get("states", (49_999).to_bytes(4, "big")) == value(1, bytes(500))


def test_the_setting_names_the_store(tmp_path: Path) -> None:
    assert isinstance(open_store(Settings().online.store, Home(tmp_path)), LmdbStore)
    with pytest.raises(ValueError, match="is 'memcached'"):
        open_store("memcached", Home(tmp_path))
    with pytest.raises(StoreUnreachable, match=r"redis://127\.0\.0\.1:1 does not answer"):
        open_store("redis://127.0.0.1:1", Home(tmp_path))


def test_two_stores_of_one_process_see_each_other(tmp_path: Path) -> None:
    """Also when one of them is closed."""
    first, second = LmdbStore(tmp_path), LmdbStore(tmp_path)
    first.put("states", [(b"a", value(1))])
    assert second.get("states", b"a") == value(1)
    first.close()
    assert second.get("states", b"a") == value(1)
    first.put("states", [(b"a", value(2))])
    second.close()
    assert first.get("states", b"a") == value(2)
    first.close()


CLEARER = """
import sys
from pathlib import Path
from warehouse.online import LmdbStore
store = LmdbStore(Path(sys.argv[1]))
store.clear("states")
store.put("states", [(b"b", (7).to_bytes(8, "big"))])
"""


@pytest.mark.slow
def test_a_namespace_that_another_process_filled_anew_is_seen(tmp_path: Path) -> None:
    """A rollback brings a namespace back that had been cleared while a service held it open."""
    store = LmdbStore(tmp_path)
    store.put("states", [(b"a", value(1))])
    assert processes.run(CLEARER, str(tmp_path), environment=os.environ).returncode == 0
    assert store.get("states", b"a") is None
    assert store.get("states", b"b") == value(7, b"")
    assert store.put("states", [(b"c", value(1))]) == 1
    assert LmdbStore(tmp_path).count("states") == 2


def test_a_namespace_that_another_store_of_the_process_filled_anew_is_seen(tmp_path: Path) -> None:
    first, second = LmdbStore(tmp_path), LmdbStore(tmp_path)
    first.put("states", [(b"a", value(1))])
    assert second.count("states") == 1
    first.clear("states")
    first.put("states", [(b"b", value(2))])
    assert (second.get("states", b"a"), second.get("states", b"b")) == (None, value(2))
    second.put("states", [(b"c", value(3))])
    assert first.count("states") == 2


def test_a_namespace_whose_directory_was_removed_is_let_go(tmp_path: Path) -> None:
    """Until the file is closed, the disk has no room of it back."""
    store = LmdbStore(tmp_path)
    store.put("states", [(b"a", value(1))])
    assert store.get("states", b"a") == value(1)
    file = str(tmp_path / "states" / "data.mdb")
    assert file in opened_files()
    shutil.rmtree(tmp_path / "states")
    assert store.get("states", b"a") is None
    assert not any(each.startswith(file) for each in opened_files())
    assert store.put("states", [(b"b", value(2))]) == 1
    assert (store.get("states", b"a"), store.get("states", b"b")) == (None, value(2))


def opened_files() -> list[str]:
    """Return the paths of the process's open files, of removed files too."""
    paths = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            paths.append(str(descriptor.readlink()))
    return paths


WRITER = """
import sys
from pathlib import Path
from warehouse.online import LmdbStore
store = LmdbStore(Path(sys.argv[1]))
stamp = 0
while True:
    stamp += 1
    rows = ((number.to_bytes(4, "big"), stamp.to_bytes(8, "big") * 50) for number in range(30_000))
    store.put("states", rows)
    print(stamp, flush=True)
"""


@pytest.mark.slow
def test_a_writer_killed_at_any_point_leaves_whole_values(tmp_path: Path) -> None:
    """Another process reads all the while, and each reader finds values that one writing made."""
    reader = LmdbStore(tmp_path)
    for patience in (0.2, 0.5, 0.9):
        with processes.start(WRITER, str(tmp_path), environment=os.environ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()  # a whole round was written
            time.sleep(patience)
            writer.send_signal(signal.SIGKILL)
        assert reader.count("states") == 30_000
        for number in range(0, 30_000, 97):
            found = reader.get("states", number.to_bytes(4, "big"))
            assert found is not None
            assert found == found[:8] * 50
        assert reader.put("states", [(b"next", value(1))]) in (0, 1)  # no lock was left behind
        reader.remove("states", [b"next"])
