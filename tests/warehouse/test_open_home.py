"""Which homes are opened: of which format, with which secret, and who else may read them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest

from tests import processes
from tests.warehouse.ingest.arrivals import DAY, EVENTS, TOLERANT, arrive, event
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.home_record import HOME_FORMAT, HomeRecord, HomeRecordError, record_path
from warehouse.identity import IDENTITIES, SECRET_FILE, SecretMismatch, SecretMissing, UserKeys
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing, Manifest
from warehouse.migrate_home import STEPS, MigrationImpossible
from warehouse.open_home import OtherFormat, format_of, open_for_reading, open_for_writing
from warehouse.tables import Tables


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Opening a home sets the umask of the process: put it back."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def ingested(home: Home, *, history: bool = True) -> Landing:
    """Tables as an earlier version left them: no record of the home."""
    landing = Landing(home.landing)
    if history:
        arrive(landing, [event("0")], day=None)
    arrive(landing, [event("1")])
    for day in [None, DAY] if history else [DAY]:
        ingest(landing, Tables(home.tables), EVENTS, day=day, settings=TOLERANT)
    record_path(home).unlink(missing_ok=True)
    return landing


def test_a_new_home_has_a_record_and_is_its_owner_s_only(home: Home) -> None:
    open_for_writing(home)
    assert HomeRecord.read(home) == HomeRecord(format=HOME_FORMAT)
    (home.tables / "written-later").write_text("")
    UserKeys.of_home(home)
    modes = {path: path.stat().st_mode & 0o077 for path in (home.root, *home.root.rglob("*"))}
    assert len(modes) > 5
    assert not any(modes.values()), modes
    open_for_writing(home)
    assert HomeRecord.read(home) == HomeRecord(format=HOME_FORMAT)


@pytest.mark.slow
def test_children_write_private_files_too(home: Home) -> None:
    """The web servers of Dagster and MLflow are children of ``adseq ui``."""
    open_for_writing(home)
    written = home.root / "by-a-child"
    subprocess.run([sys.executable, "-c", f"open({str(written)!r}, 'w')"], check=True)
    assert not written.stat().st_mode & 0o077


def test_a_directory_with_something_in_it_keeps_its_permissions(home: Home) -> None:
    """An exporting job of another account may write into the landing zone inside it."""
    home.landing.mkdir(parents=True)
    home.root.chmod(0o755)
    open_for_writing(home)
    assert home.root.stat().st_mode & 0o777 == 0o755


def test_reading_writes_nothing(home: Home) -> None:
    open_for_reading(home)
    assert not home.root.exists()


@pytest.mark.parametrize("open_home", [open_for_reading, open_for_writing])
def test_a_home_of_before_is_refused_with_the_command_that_migrates_it(
    home: Home, open_home: Callable[[Home], None]
) -> None:
    ingested(home)
    before = sorted(home.root.rglob("*"))
    with pytest.raises(OtherFormat, match=rf"adseq migrate --home {home.root}"):
        open_home(home)
    assert sorted(home.root.rglob("*")) == before


@pytest.mark.parametrize("fields", ["", ', "engine": "ray"', ', "history_day": {"events": "2026-03-09"}'])
def test_a_later_format_is_refused_and_left_alone(home: Home, fields: str) -> None:
    """Whatever else the later format records."""
    home.make_root()
    record_path(home).write_text(f'{{"format": {HOME_FORMAT + 1}{fields}}}')
    with pytest.raises(OtherFormat, match=f"format {HOME_FORMAT + 1}, and this version of adseq reads") as refused:
        open_for_writing(home)
    assert "migrate" not in str(refused.value)
    assert format_of(home) == HOME_FORMAT + 1


def test_a_damaged_record_is_named(home: Home) -> None:
    open_for_writing(home)
    record_path(home).write_text('{"format": "one"}')
    with pytest.raises(HomeRecordError, match=r"home\.json: format"):
        open_for_reading(home)


@pytest.mark.parametrize("history", [True, False])
def test_a_home_of_before_is_migrated_with_the_day_of_its_history(home: Home, history: bool) -> None:
    """The first arrival, or the day before it where the history was empty."""
    landing = ingested(home, history=history)
    expected = landing.history_day()
    for _ in range(2):  # interrupted before the record was written, the step is repeated
        record_path(home).unlink(missing_ok=True)
        STEPS[0](home)
        assert HomeRecord.read(home) == HomeRecord(format=1, history_day=expected)
    open_for_writing(home)


def test_a_folder_that_came_before_the_migration_moves_no_history(home: Home) -> None:
    landing = ingested(home)
    expected = landing.history_day()
    arrive(landing, [event("early")], day=date(2010, 1, 1))
    STEPS[0](home)
    record = HomeRecord.read(home)
    assert record is not None
    assert record.history_day == expected


def test_a_home_from_before_user_keys_cannot_be_migrated_and_says_why(home: Home) -> None:
    ingested(home)
    (home.tables / SECRET_FILE).unlink()
    os.rename(home.tables / IDENTITIES, home.root / "gone")
    with pytest.raises(MigrationImpossible, match=r"before users had keys.*Begin a new home"):
        STEPS[0](home)
    assert HomeRecord.read(home) is None


def test_a_home_whose_secret_was_lost_is_not_migrated(home: Home) -> None:
    ingested(home)
    (home.tables / SECRET_FILE).unlink()
    with pytest.raises(SecretMissing, match=f"{SECRET_FILE} is missing"):
        STEPS[0](home)


@pytest.mark.parametrize("synthetic", [True, False])
def test_keys_do_not_outlive_the_flag_that_they_were_made_under(home: Home, synthetic: bool) -> None:
    landing = Landing(home.landing)
    landing.write_manifest(Manifest(synthetic=synthetic))
    open_for_writing(home)
    key = UserKeys.of_home(home).key("ann")
    landing.write_manifest(Manifest(synthetic=not synthetic))
    for attempt in (open_for_writing, open_for_reading, UserKeys.of_home):
        with pytest.raises(SecretMismatch, match=r"manifest\.toml .*[Bb]egin a new home"):
            attempt(home)
    landing.write_manifest(Manifest(synthetic=synthetic))
    assert UserKeys.of_home(home).key("ann") == key


def test_without_its_landing_zone_a_home_of_a_synthetic_log_is_read(home: Home) -> None:
    landing = Landing(home.landing)
    landing.write_manifest(Manifest(synthetic=True))
    open_for_writing(home)
    keys = UserKeys.of_home(home)
    landing.root.rename(home.root / "elsewhere")
    assert UserKeys.of_home(home) == keys


@pytest.mark.parametrize("length", [0, 5, 31])
def test_a_secret_that_lost_a_part_is_refused(home: Home, length: int) -> None:
    """An empty key would make hashes that everybody can make."""
    open_for_writing(home)
    UserKeys.of_home(home)
    (home.tables / SECRET_FILE).write_bytes(b"x" * length)
    with pytest.raises(SecretMissing, match=f"has {length} bytes and not 32"):
        UserKeys.of_home(home)


def test_a_landing_zone_inside_the_home_moves_with_the_home(home: Home, tmp_path: Path) -> None:
    home.use_landing(home.root / "incoming")
    moved = Home(home.root.rename(tmp_path / "moved"))
    assert moved.landing == tmp_path / "moved" / "incoming"
    moved.use_landing(tmp_path / "outside")
    assert Home(moved.root.rename(home.root)).landing == tmp_path / "outside"


@pytest.mark.slow
def test_dagster_started_by_itself_refuses_another_format(home: Home) -> None:
    ingested(home)
    assert LandingTable.events.value in Tables(home.tables).names()
    environment = {**os.environ, "ADSEQ_HOME": str(home.root)}
    done = processes.run("import pipelines.definitions", environment=environment)
    assert done.returncode != 0
    assert f"run `adseq migrate --home {home.root}`" in done.stderr
