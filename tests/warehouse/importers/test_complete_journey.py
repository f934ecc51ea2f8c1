"""The Complete Journey's campaigns, on a source of a few rows by hand, as ads and impressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from tests.warehouse.importers.test_importers import everything
from tests.warehouse.importers.test_public_logs import ingested
from warehouse.contracts import LandingTable
from warehouse.importers.complete_journey import import_complete_journey
from warehouse.importers.landing_writer import ImportSummary, SourceError
from warehouse.landing import Landing
from warehouse.tables import Tables

LAST = date(2017, 3, 31)
# Days with events: 1, 6, 10, 13 and 31 March. Product 1 sells better than 2 only after campaign 1 has begun.
TILLS = [
    (10, 2, 1),
    (11, 2, 1),
    (10, 1, 1),
    (11, 1, 6),
    (10, 1, 13),
    (10, 1, 31),
    (11, 1, 31),
]  # household, product, day
REDEEMED = [(10, 100, 1, 10), (10, 100, 1, 10), (10, 300, 2, 6), (10, 500, 3, 31)]  # household, coupon, campaign, day


def table(names: str, rows: Sequence[Sequence[object]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=names.split(), orient="row")


def march(day: int, hour: int = 0) -> datetime:
    return datetime(2017, 3, day, hour)


def files(last: date = LAST) -> Mapping[str, pl.DataFrame]:
    """The source as it was at the end of ``last``: what is announced is known before, what is bought is not."""
    tills = [(str(user), "1", f"{user}{day}", str(item), 2.5, march(day, 12)) for user, item, day in TILLS]
    redeemed = [(user, coupon, campaign, march(day)) for user, coupon, campaign, day in REDEEMED]
    return {
        "transactions_sample": table(
            "household_id store_id basket_id product_id sales_value transaction_timestamp", tills
        ).filter(pl.col("transaction_timestamp").dt.date() <= last),
        "products": table(
            "product_id manufacturer_id department brand product_category product_type package_size",
            [(item, maker, "GROCERY", "National", "ICE", None, None) for item, maker in ((1, 7), (2, 7), (3, 8))],
        ),
        "demographics": table("household_id age", [(10, "45-54")]),
        "coupons": table(
            "coupon_upc product_id campaign_id",
            [
                *((100, 1, 1), (100, 2, 1), (100, 2, 1), (200, 3, 1), (200, 99, 1)),  # twice; not in the catalogue
                *((300, 1, 2), (500, 1, 3), (600, 1, 4), (700, 1, 5)),
            ],
        ),
        "coupon_redemptions": table("household_id coupon_upc campaign_id redemption_date", redeemed).filter(
            pl.col("redemption_date").dt.date() <= last
        ),
        "campaigns": table(
            "campaign_id household_id", [(1, 10), (1, 11), (2, 10), (2, 11), (3, 10), (4, 11), (5, 10), (5, 11)]
        ),
        "campaign_descriptions": table(
            "campaign_id campaign_type start_date end_date",
            [
                (1, "Type B", march(5), march(10)),
                (2, "Type A", march(5), march(12)),
                (3, "Type C", march(20), datetime(2017, 4, 5)),  # ends after the log
                (4, "Type B", datetime(2017, 2, 20), march(4)),  # began before the log
                (5, "Type B", datetime(2017, 4, 10), datetime(2017, 5, 10)),  # begins after the log
            ],
        ),
    }


def written(directory: Path, last: date = LAST) -> Path:
    directory.mkdir()
    for name, frame in files(last).items():
        frame.write_parquet(directory / f"{name}.parquet")
    return directory


@pytest.fixture
def imported(tmp_path: Path, landing: Landing) -> ImportSummary:
    return import_complete_journey(written(tmp_path / "source"), landing, daily_days=4)


def arrivals(landing: Landing, table: LandingTable) -> pl.DataFrame:
    """Return the rows of a table with the day of their arrival; null: with the history."""
    days = [day for day in (None, *landing.dates()) if landing.files(table, day)]
    return pl.concat(
        pl.read_parquet(path).with_columns(arrived=pl.lit(day, pl.Date))
        for day in days
        for path in landing.files(table, day)
    )


@pytest.mark.usefixtures("imported")
def test_a_coupon_for_a_product_is_an_ad_with_the_dates_of_its_campaign(landing: Landing) -> None:
    ads = everything(landing, LandingTable.ads).sort("ad_id")
    assert ads["ad_id"].to_list() == ["1-100-1", "1-100-2", "1-200-3", "2-300-1", "3-500-1", "4-600-1"]
    first = ads.row(0, named=True)
    assert first == {
        "ad_id": "1-100-1",
        "campaign_id": "1",
        "item_id": "1",
        "advertiser_id": "7",
        "starts": datetime(2017, 3, 5, tzinfo=UTC),
        "ends": datetime(2017, 3, 11, tzinfo=UTC),  # a coupon is taken on the campaign's last day
        "status": "active",
    }


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize(
    ("instant", "campaigns"),
    [
        (march(4, 23), {"4"}),
        (march(5), {"1", "2"}),
        (march(10, 23), {"1", "2"}),
        (march(11), {"2"}),
        (march(13), set()),
        (march(20), {"3"}),
    ],
)
def test_no_ad_runs_outside_the_dates_of_its_campaign(landing: Landing, instant: datetime, campaigns: set[str]) -> None:
    now = pl.lit(instant.replace(tzinfo=UTC))
    ads = everything(landing, LandingTable.ads)
    assert set(ads.filter(pl.col("starts") <= now, now < pl.col("ends"))["campaign_id"]) == campaigns


@pytest.mark.usefixtures("imported")
def test_a_mailed_coupon_is_one_impression_of_what_sold_best_before(landing: Landing) -> None:
    impressions = everything(landing, LandingTable.impressions).sort("request_id")
    assert impressions.select("request_id", "user_id", "item_id", "ad_id", "source", "stage").rows() == [
        ("1-10-100", "10", "2", "1-100-2", "Type B", "converted"),
        ("1-10-200", "10", "3", "1-200-3", "Type B", "impressed"),
        ("1-11-100", "11", "2", "1-100-2", "Type B", "impressed"),
        ("1-11-200", "11", "3", "1-200-3", "Type B", "impressed"),
    ]
    assert set(impressions["request_time"]) == {datetime(2017, 3, 5, tzinfo=UTC)}


def test_what_is_unknown_of_a_mailing_is_counted_and_not_guessed(imported: ImportSummary) -> None:
    assert (imported.ads, imported.impressions) == (6, 4)
    assert list(imported.requests_left_out.values()) == [2, 2]
    assert "6 ads" in imported.lines()
    assert any("2 requests left out: of Type A campaigns" in line for line in imported.lines())


@pytest.mark.usefixtures("imported")
def test_rows_arrive_when_they_are_known(landing: Landing) -> None:
    ads = arrivals(landing, LandingTable.ads)
    when = dict(ads.select("campaign_id", "arrived").unique().iter_rows())
    assert when == {"1": None, "2": None, "3": LAST, "4": None}  # the history ends on 5 March; the next day with events
    assert set(arrivals(landing, LandingTable.impressions)["arrived"]) == {date(2017, 3, 10)}


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("last", [date(2017, 3, 6), date(2017, 3, 10), date(2017, 3, 13)])
@pytest.mark.parametrize("table", [LandingTable.ads, LandingTable.impressions])
def test_nothing_is_from_the_future(tmp_path: Path, landing: Landing, last: date, table: LandingTable) -> None:
    """What has arrived by a day is what an import of the source of that day has."""
    cut = Landing(tmp_path / "cut")
    import_complete_journey(written(tmp_path / "earlier", last), cut, daily_days=1)
    rows = arrivals(landing, table)
    by_then = rows.filter(pl.col("arrived").fill_null(date(2017, 3, 5)) <= last).drop("arrived")
    key = "ad_id" if table is LandingTable.ads else "request_id"
    assert by_then.sort(key).equals(everything(cut, table).sort(key))


@pytest.mark.usefixtures("imported")
def test_every_row_is_ingested(landing: Landing, tables: Tables) -> None:
    found = ingested(landing, tables)
    assert (found["ads"].height, found["impressions"].height) == (6, 4)


def test_a_source_without_campaigns_is_named(tmp_path: Path, landing: Landing) -> None:
    source = written(tmp_path / "source")
    (source / "campaigns.parquet").unlink()
    with pytest.raises(SourceError, match=r"campaigns\.parquet does not exist"):
        import_complete_journey(source, landing, 1)
