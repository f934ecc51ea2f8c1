from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from warehouse.contracts import LandingTable
from warehouse.landing import Landing, Manifest, ManifestError


def test_the_manifest_survives_being_written(landing: Landing) -> None:
    manifest = Manifest(name='a "log"', positive_events=["lead"], time_zone="Etc/GMT+3", repeats_count=False)
    landing.write_manifest(manifest)
    assert landing.manifest == manifest


def test_no_manifest_means_the_defaults(landing: Landing) -> None:
    assert landing.manifest == Manifest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "not valid TOML"),
        ("colour = 'red'", "'colour'"),
        ("prediction_window_days = -1", "'prediction_window_days'"),
        ("positive_events = ['purchase']", "purchase.*known are"),
        ("time_zone = 'Mars/Olympus'", "'Mars/Olympus' is not known"),
    ],
)
def test_a_broken_manifest_names_the_file_and_the_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "manifest.toml"
    path.write_text(text)
    with pytest.raises(ManifestError, match=message) as error:
        Manifest.read(path)
    assert str(path) in str(error.value)


def test_the_history_arrived_on_the_day_before_the_first_daily_folder(landing: Landing) -> None:
    assert landing.history_day() is None
    landing.write(LandingTable.items, date(2026, 1, 3), pl.DataFrame({"item_id": ["a"]}))
    landing.write(LandingTable.events, date(2026, 1, 2), pl.DataFrame({"event_id": ["a"]}))
    assert landing.dates() == [date(2026, 1, 2), date(2026, 1, 3)]
    assert landing.history_day() == date(2026, 1, 1)


def test_files_being_written_are_no_data(landing: Landing) -> None:
    path = landing.write(LandingTable.users, None, pl.DataFrame({"user_id": ["a"]}))
    for name in (".part-1.parquet", "part-1.parquet.tmp", "part-2.csv.part", "_SUCCESS"):
        (path.parent / name).write_text("half")
    assert landing.files(LandingTable.users, None) == [path]
    assert landing.files(LandingTable.users, date(2026, 1, 1)) == []
