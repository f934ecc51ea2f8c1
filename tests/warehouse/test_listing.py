"""Each folder and file of a landing zone is read, or named with why it is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.warehouse.ingest.arrivals import DAY, EVENTS, arrive, event
from warehouse.contracts import LandingTable
from warehouse.landing import WRITTEN_BY_THE_SERVICE, Landing, is_being_written
from warehouse.listing import COMPLETE_MARK, Listing, list_landing

PIECES = st.sampled_from(
    [
        "date=",
        "2026",
        "-02-28",
        "-02-30",
        "20260228",
        "-",
        "history",
        "events",
        "item",
        "ads",
        "_",
        ".tmp",
        ".",
        " ",
        "é",
    ]
)
NAMES = st.one_of(
    st.lists(PIECES, min_size=1, max_size=5).map("".join),
    st.dates(date(1, 1, 1), date(9999, 12, 31)).map(lambda day: f"date={day.isoformat()}"),
    st.text("date=-0123456789yYmM/", min_size=1, max_size=12),
).filter(lambda name: "/" not in name and name not in (".", ".."))
FILES = st.sampled_from(["part-0.parquet", "a.csv", "_a.csv", "_SUCCESS", ".a.csv", "a.csv.part"])


@given(
    table=st.one_of(st.sampled_from([*LandingTable]), NAMES),
    arrival=NAMES,
    below=st.one_of(st.none(), NAMES),
    file=FILES,
)
@example(table="events", arrival="date=2026-02-28", below="hour=00", file="a.csv")
@example(table="events", arrival="date=0001-01-01", below=None, file="a.csv")
@example(table="events", arrival="date=２０２６-02-28", below=None, file="a.csv")  # digits, but not ours
def test_a_file_anywhere_is_read_or_named_or_being_written(
    table: str, arrival: str, below: str | None, file: str
) -> None:
    with TemporaryDirectory() as directory:
        landing = Landing(Path(directory))
        path = landing.root / table / arrival / (below or "") / file
        path.parent.mkdir(parents=True)
        path.touch()
        listing = list_landing(landing)
        read = [found for each in LandingTable for day in (None, *listing.days) for found in landing.files(each, day)]
        named = any(path.is_relative_to(unread.path) for unread in listing.unread)
        parts = path.relative_to(landing.root).parts
        waits = table in WRITTEN_BY_THE_SERVICE and not listing.days  # for the log of its day
        silent = waits or parts[-1] == COMPLETE_MARK or any(is_being_written(part) for part in parts)
        assert (path in read) + named + (silent and path not in read and not named) == 1
        landing.history_day()  # of whatever was found


def test_rows_of_the_service_make_no_day_and_wait_for_the_log_of_theirs(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    for table, day in (("events", 2), ("funnel_sample", 1), ("funnel_sample", 2), ("feedback", 3)):
        folder = tmp_path / table / f"date=2026-03-0{day}"
        folder.mkdir(parents=True)
        (folder / "live-1.jsonl").touch()
    listing = list_landing(landing)
    assert listing.days == (date(2026, 3, 2),)
    [skipped] = listing.unread  # the third has not come yet; the second is read
    assert skipped.path == tmp_path / "funnel_sample" / "date=2026-03-01"
    assert "no log of 2026-03-01 has landed" in str(skipped)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("events/date=YYYY-MM-DD/a.csv", "history or date=YYYY-MM-DD"),
        ("items/date=2026-02-30/a.csv", "2026-02-30 is not a day"),
        ("events/date=2026-2-28/a.csv", "rename it to date=2026-02-28"),
        ("events/date=20260228/a.csv", "rename it to date=2026-02-28"),
        ("events/2026-02-28/a.csv", "rename it to date=2026-02-28"),
        ("events/History/a.csv", "rename it to history"),
        ("events/date=2026-02-28/hour=00/a.csv", "move its files into date=2026-02-28/"),
        ("events/date=2026-02-28/_a.csv", "begins with _"),
        ("events/a.csv", "move it into events/date=YYYY-MM-DD/"),
        ("item/date=2026-02-28/a.csv", "rename it to items"),
        ("purchases/history/a.csv", "the tables are events, items, users, ads, impressions"),
        ("events.csv", "beside the tables only manifest.toml is read"),
    ],
)
def test_what_nothing_reads_is_named_with_what_to_do(landing: Landing, place: str, reason: str) -> None:
    arrive(landing, [event("1")])
    path = landing.root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    listing = list_landing(landing)
    (unread,) = listing.unread
    assert path.is_relative_to(unread.path)
    assert reason in str(unread)
    assert DAY in listing.days


def test_a_link_to_nothing_is_named(landing: Landing) -> None:
    path = arrive(landing, [event("1")]).with_name("b.parquet")
    path.symlink_to("nowhere")
    assert [unread.path for unread in list_landing(landing).unread] == [path]


def test_a_folder_on_or_before_the_history_is_refused_with_what_to_do_with_its_rows(landing: Landing) -> None:
    for days in range(3):
        arrive(landing, [event(str(days))], DAY + timedelta(days=days))
    listing = list_landing(replace(landing, recorded_history_day=DAY + timedelta(days=1)))
    assert listing.days == (DAY + timedelta(days=2),)
    assert [unread.path for unread in listing.unread] == [
        landing.folder(EVENTS, DAY),
        landing.folder(EVENTS, DAY + timedelta(days=1)),
    ]
    assert "move its files into the folder of a newer day" in listing.unread[0].reason


def test_a_landing_zone_that_is_not_there_is_empty(landing: Landing) -> None:
    assert list_landing(landing) == Listing((), ())
