"""``adseq check`` on the home of the tiny world: whole as it is, and each kind of damage named with what heals it."""

from __future__ import annotations

import io
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.checks.databases import database_part, registry_part
from pipelines.checks.fault import Checked, Part
from pipelines.checks.home import record_part, users_part
from pipelines.checks.models import index_part, model_part
from pipelines.checks.online import online_part
from pipelines.checks.tables import tables_part
from pipelines.cli.check import check_home
from pipelines.cli.errors import RunRefused
from tests.assets.world import DAYS, TRAINED, copy_of
from tests.flow import Ran
from warehouse.home import LANDING_POINTER, Home
from warehouse.home_record import HOME_FORMAT, HomeRecord, record_path
from warehouse.identity import SECRET_FILE
from warehouse.move_home import follow_home
from warehouse.online import LmdbStore
from warehouse.tables import Tables

LAST = DAYS[-1]
AGAIN = f"adseq run --days {LAST} --again"


@pytest.fixture(scope="module")
def home(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A copy, which each test damages and mends."""
    copy = copy_of(ran.home, tmp_path_factory.mktemp("checked") / "home")
    follow_home(copy)
    return copy


@contextmanager
def damaged(path: Path, content: bytes | None) -> Iterator[None]:
    """A file with other content, or gone for None."""
    before = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def flipped(path: Path, at: float = 0.5) -> bytes:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 0xFF
    return bytes(content)


def only_fault(part: Part) -> tuple[str, str]:
    assert len(part.faults) == 1, part
    return part.faults[0].what, part.faults[0].remedy


def data_file(home: Home, table: str, day: str) -> Path:
    return next(Path(path) for path in Tables(home.tables).files(table) if day in path)


def test_an_undamaged_home_is_whole_and_nothing_is_written(home: Home) -> None:
    before = {path: path.stat().st_mtime_ns for path in home.root.rglob("*") if path.is_file()}
    console = Console(file=io.StringIO(), width=200)
    assert check_home(home, True, console)
    after = {path: path.stat().st_mtime_ns for path in home.root.rglob("*") if path.is_file()}
    changed = {path for path in after if before.get(path) != after[path]}
    assert not {path for path in changed if path.name != "lock.mdb"}
    assert before.keys() <= after.keys()


def test_what_is_no_home_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunRefused, match="is not a home of adseq"):
        check_home(Home(tmp_path), False, Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("table", "day", "healed"),
    [
        ("events", str(LAST), AGAIN),
        ("user_states", str(LAST), AGAIN),
        ("events", str(TRAINED), f"adseq run --days {TRAINED} --again"),
        ("user_states", str(TRAINED), "adseq run --retrain"),
        ("training_examples", str(TRAINED), "adseq run --retrain"),
        ("model_versions", "item-1", "restore it from a backup"),
    ],
)
def test_a_missing_data_file_is_named_with_what_makes_it_again(home: Home, table: str, day: str, healed: str) -> None:
    path = data_file(home, table, day)
    with damaged(path, None):
        what, remedy = only_fault(tables_part(Checked(home, deep=False)))
    assert str(path) in what
    assert what.startswith(f"table '{table}'")
    assert remedy.startswith(healed)


@pytest.mark.parametrize(
    "broken",
    [lambda path: path.read_bytes()[:-1], lambda path: flipped(path, 1.0 - 1e-9), lambda _: b""],
    ids=["cut", "footer", "empty"],
)
def test_a_damaged_data_file_is_named(home: Home, broken: Callable[[Path], bytes]) -> None:
    path = data_file(home, "events", str(LAST))
    with damaged(path, broken(path)):
        what, remedy = only_fault(tables_part(Checked(home, deep=False)))
    assert str(path) in what
    assert remedy == AGAIN


def test_a_damaged_commit_is_named(home: Home) -> None:
    path = max((home.tables / "events" / "_delta_log").glob("*.json"))
    with damaged(path, path.read_bytes()[:60]):
        what, remedy = only_fault(tables_part(Checked(home, deep=False)))
    assert str(path) in what
    assert remedy == AGAIN


def test_a_damaged_commit_of_the_day_records_needs_no_backup(home: Home) -> None:
    path = max((home.tables / "landed_files" / "_delta_log").glob("*.json"))
    with damaged(path, path.read_bytes()[:-30]):
        _, remedy = only_fault(tables_part(Checked(home, deep=False)))
    assert remedy == "any run sets the commit aside"


def test_an_arrival_whose_files_left_the_landing_zone_is_not_made_empty(home: Home, tmp_path: Path) -> None:
    path, pointer = data_file(home, "events", str(LAST)), home.root / LANDING_POINTER
    before = pointer.read_bytes() if pointer.exists() else None
    home.use_landing(tmp_path)
    try:
        with damaged(path, None):
            _, remedy = only_fault(tables_part(Checked(home, deep=False)))
    finally:
        pointer.unlink()
        if before is not None:
            pointer.write_bytes(before)
    assert remedy.startswith(f"restore it from a backup of the home, or put date={LAST} back")


@pytest.mark.parametrize("name", ["items", "ads", "landed_files"])
def test_a_missing_table_is_named(home: Home, tmp_path: Path, name: str) -> None:
    shutil.move(home.tables / name, tmp_path / name)
    try:
        what, _ = only_fault(tables_part(Checked(home, deep=False)))
    finally:
        shutil.move(tmp_path / name, home.tables / name)
    assert what == f"table '{name}' is missing"


@pytest.mark.parametrize("name", ["weights.pt", "model.json", "content_basis.parquet"])
@pytest.mark.parametrize(
    "broken", [None, lambda path: path.read_bytes()[:-20], flipped], ids=["gone", "cut", "flipped"]
)
def test_a_damaged_model_is_named(home: Home, name: str, broken: Callable[[Path], bytes] | None) -> None:
    path = home.models / "item-1" / "deployed" / name
    with damaged(path, broken and broken(path)):
        what, remedy = only_fault(model_part(Checked(home, deep=False)))
    assert name in what
    assert str(path.parent) in what
    assert remedy.startswith("adseq run --retrain")


def test_a_version_without_its_directory_is_named(home: Home, tmp_path: Path) -> None:
    shutil.move(home.models / "item-1", tmp_path / "item-1")
    try:
        what, _ = only_fault(model_part(Checked(home, deep=False)))
    finally:
        shutil.move(tmp_path / "item-1", home.models / "item-1")
    assert what.startswith(f"{home.models / 'item-1'} is missing")


@pytest.mark.parametrize("kind", ["*.faiss", "*.parquet", "manifest.json"])
def test_a_flipped_byte_of_an_index_is_named(home: Home, kind: str) -> None:
    path = next((home.indexes / "item-1" / str(LAST)).glob(kind))
    with damaged(path, flipped(path) if kind != "manifest.json" else b"{"):
        what, remedy = only_fault(index_part(Checked(home, deep=False)))
    assert str(path) in what
    assert remedy == AGAIN


def test_the_store_is_held_against_its_sign(home: Home) -> None:
    pointer = json.loads((home.online / "served.json").read_text())
    catalogue = home.root / pointer["catalogue"]
    with damaged(catalogue, None):
        what, remedy = only_fault(online_part(Checked(home, deep=False)))
    assert str(catalogue) in what
    assert remedy == AGAIN
    with damaged(home.online / "served.json", b'{"model'):
        what, _ = only_fault(online_part(Checked(home, deep=False)))
    assert "the pointer of the online store cannot be read" in what


def test_the_store_is_held_against_the_tables(home: Home) -> None:
    """Counts tell of lost records, a sample tells of others."""
    namespace = "states-item-1"
    user = Tables(home.tables).scan("user_states").collect()["user_id"][0].encode()
    store = LmdbStore(home.online)
    before = store.get(namespace, user)
    assert before is not None
    try:
        store.remove(namespace, [user])
        what = [fault.what for fault in online_part(Checked(home, deep=False)).faults]
        assert any(re.search(rf"{namespace} holds \d+ records, and the tables \d+ users", each) for each in what)
        store.put(namespace, [(user, before[:-4] + b"\x00\x00\x80\x7f")])
        fault, remedy = only_fault(online_part(Checked(home, deep=False)))
        assert re.search(r"1 of \d+ states in the store are not those of the tables", fault)
        assert f"move {home.online} away" in remedy
    finally:
        store.remove(namespace, [user])
        store.put(namespace, [(user, before)])
        store.close()
    assert not online_part(Checked(home, deep=False)).faults


def test_an_alias_of_nothing_and_a_damaged_database_are_named(home: Home) -> None:
    database = home.root / "mlflow" / "mlflow.db"
    before = database.read_bytes()
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE registered_model_aliases SET version = 77 WHERE name = 'adseq_item_model'")
    try:
        what, _ = only_fault(registry_part(Checked(home, deep=False)))
        assert "names version 77, which is not registered" in what
    finally:
        database.write_bytes(before)
    with damaged(database, before[:5000] + bytes(20000) + before[25000:]):
        assert str(database) in database_part(Checked(home, deep=False)).faults[0].what


def test_who_can_read_the_home_and_what_it_says_of_itself(home: Home, tmp_path: Path) -> None:
    mode = home.root.stat().st_mode
    home.root.chmod(0o750)
    assert "chmod -R go-rwx" in record_part(Checked(home, deep=False)).notes[0]
    home.root.chmod(0o700)
    assert not record_part(Checked(home, deep=False)).notes
    home.root.chmod(mode)
    with damaged(record_path(home), HomeRecord(format=HOME_FORMAT + 1).model_dump_json().encode()):
        assert "use the version that wrote" in only_fault(record_part(Checked(home, deep=False)))[0]
    landing = home.landing
    landing.rename(tmp_path / "landing")
    assert str(landing) in only_fault(record_part(Checked(home, deep=False)))[0]
    (tmp_path / "landing").rename(landing)


def test_another_secret_is_told_from_the_right_one(home: Home) -> None:
    path = home.tables / SECRET_FILE
    with damaged(path, None):
        assert f"{path} is missing" in only_fault(users_part(Checked(home, deep=False)))[0]
    with damaged(path, b"s" * 32), damaged(home.landing / "manifest.toml", b""):
        assert "is not the secret of this home" in only_fault(users_part(Checked(home, deep=False)))[0]
