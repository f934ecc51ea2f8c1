"""The figures of the Complete Journey's coupons, on sources of a few rows by hand."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.coupons import KEY, K, Source, asked, chosen_mailings, dates_table, landed, outcomes_table
from ml.retrieval.lists import RankedLists
from tests.warehouse.importers.test_complete_journey import table, written
from warehouse.contracts import LandingTable
from warehouse.importers.complete_journey import import_complete_journey
from warehouse.landing import Landing

STARTS = date(2017, 5, 1)
COUPONS = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path / "source")


@pytest.fixture
def imported(tmp_path: Path, folder: Path) -> Landing:
    landing = Landing(tmp_path / "landing")
    import_complete_journey(folder, landing, daily_days=1)
    return landing


def described(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "campaign_descriptions.parquet").select(
        pl.col("campaign_id").cast(pl.String),
        starts=pl.col("start_date").dt.date(),
        last_day=pl.col("end_date").dt.date(),
    )


def figures(folder: Path, ads: pl.DataFrame) -> dict[str, str]:
    return dict(dates_table(ads, described(folder), Source.read(folder).redeemed).rows)  # type: ignore[arg-type]


def test_no_ad_runs_outside_its_campaign_and_one_that_does_is_counted(folder: Path, imported: Landing) -> None:
    ads = landed(imported, LandingTable.ads)
    found = figures(folder, ads)
    assert found["ads"] == "6"
    assert found["ads that run outside the dates of their campaign"] == "0"
    assert found["ads that do not run within the dates of their campaign"] == "0"
    assert found["redeemed coupons whose ads run on that day"] == "4 of 4"
    longer = figures(folder, ads.with_columns(pl.col("ends").dt.offset_by("1d")))
    assert longer["ads that run outside the dates of their campaign"] == "6"
    shorter = figures(folder, ads.with_columns(pl.col("ends").dt.offset_by("-1d")))
    assert shorter["ads that do not run within the dates of their campaign"] == "6"
    assert shorter["redeemed coupons whose ads run on that day"] == "2 of 4"  # two of four on a campaign's last day


def test_delivered_and_redeemed_by_type_of_campaign(folder: Path, imported: Landing) -> None:
    logged = landed(imported, LandingTable.impressions).select("user_id", "surface", "source", "stage")
    [row] = outcomes_table(logged, "").rows
    assert (row[0], row[1], row[3]) == ("Type B", "4", "1")
    assert row[4].startswith("25.00%")
    chosen = chosen_mailings(Source.read(folder))
    assert dict(chosen.group_by("user_id", "stage").len().select("user_id", "len").sort("len").iter_rows()) == {
        "10": 15,
        "11": 16,
    }
    assert chosen.filter(stage="converted")["user_id"].to_list() == ["10"]


def source(tills: list[tuple[str, str, int]]) -> Source:
    """Return one campaign of twelve coupons, one for each product, mailed to "ann", who redeems coupons 03 and 07.

    Args:
        tills: household, product, days after the campaign's start.
    """
    names = [f"{number:02d}" for number in range(COUPONS)]
    return Source(
        campaigns=table("campaign_id type starts last_day", [("1", "Type B", STARTS, STARTS + timedelta(days=30))]),
        covered=table("campaign_id coupon_upc product_id category", [("1", each, f"p{each}", each) for each in names]),
        mailed=table(" ".join(KEY), [("ann", "1")]),
        redeemed=table(
            "household_id campaign_id coupon_upc day", [("ann", "1", each, STARTS) for each in ("03", "07", "07")]
        ),
        tills=table(
            "household_id product_id category day",
            [(who, what, what.removeprefix("p"), STARTS + timedelta(days=after)) for who, what, after in tills],
        ),
    )


def order(ranked: RankedLists) -> list[int]:
    return [int(each) for each in ranked.items[0]]


def test_a_ranking_goes_by_what_was_bought_before_the_campaign() -> None:
    before = [("ann", "p07", -3), ("bob", "p11", -2), ("bob", "p11", -1)]
    found = asked(source(before))
    assert order(found.ranked(["sold"]))[:3] == [11, 7, 0]  # of those that never sold, the smaller id
    assert order(found.ranked(["own", "sold"]))[:3] == [7, 11, 0]
    assert order(found.ranked(["own_category"]))[:2] == [7, 0]
    assert found.positives().items.tolist() == [3, 7]
    later = asked(source([*before, *[("ann", f"p{number:02d}", after) for number in (3, 5) for after in (0, 9)]]))
    assert later.scored.equals(found.scored)
    assert np.array_equal(found.households, [0])


def test_a_mailing_of_few_coupons_is_not_asked() -> None:
    small = source([("ann", "p07", -3)])
    few = Source(small.campaigns, small.covered.head(K), small.mailed, small.redeemed, small.tills)
    assert asked(few).scored.is_empty()
