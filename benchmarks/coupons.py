"""The Complete Journey's coupons: when they may be shown, how many were redeemed, and which ones a household redeems.

``python -m benchmarks.coupons --source DATA/complete-journey`` imports the log and measures

- the ads that run on each day, against the dates of their campaigns, and whether each redeemed coupon's ads ran then;
- delivered and redeemed coupons by type of campaign, by ``funnel_rows`` on the imported impressions. Which coupons of a
  Type A campaign a household received is unknown, and how many is known: 16. Their row is made of these counts;
- recall of redeemed coupons among the coupons of the mailing, ranked by what tills had counted before the campaign.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.report import Table
from ml.evaluation.funnel_outcomes import Stages, funnel_rows
from ml.evaluation.intervals import Interval, confidence_interval, paired_difference
from ml.evaluation.recall_rows import intervals_of
from ml.retrieval.lists import Positives, RankedLists
from warehouse.contracts import STAGES, LandingTable
from warehouse.importers.complete_journey import import_complete_journey
from warehouse.importers.complete_journey_campaigns import CHOSEN_BY_HOUSEHOLD
from warehouse.landing import Landing

COUPONS_OF_A_CHOSEN_MAILING = 16
K, SAMPLES, SEED = 10, 1000, 0
KEY = ["household_id", "campaign_id"]


RANKINGS = {
    "random order": ["chance"],
    "popularity": ["sold"],
    "earlier redemptions, then popularity": ["redeemed_before", "sold"],
    "category, then popularity": ["own_category", "sold"],
    "own purchases, then popularity": ["own", "sold"],
    "own purchases, then category, then popularity": ["own", "own_category", "sold"],
}
"""The counts that each ranking goes by, the first one first."""


@dataclass(frozen=True)
class Source:
    """The campaigns that lie within the log, and what the log has on their coupons. Ids are text.

    Attributes:
        campaigns: campaign_id, type, starts, last_day.
        covered: campaign_id, coupon_upc, product_id, category; a product of a coupon a row.
        mailed: household_id, campaign_id.
        redeemed: household_id, campaign_id, coupon_upc, day; of every campaign, a redemption a row.
        tills: household_id, product_id, category, day; a line of a basket a row.
    """

    campaigns: pl.DataFrame
    covered: pl.DataFrame
    mailed: pl.DataFrame
    redeemed: pl.DataFrame
    tills: pl.DataFrame

    @classmethod
    def read(cls, folder: Path) -> Source:
        def table(name: str) -> pl.DataFrame:
            frame = pl.read_parquet(folder / f"{name}.parquet", glob=False)
            ids = [each for each in frame.columns if each.endswith("_id") or each == "coupon_upc"]
            return frame.with_columns(pl.col(ids).cast(pl.String))

        category = table("products").select("product_id", category="product_category")
        tills = table("transactions_sample").join(category, on="product_id", how="left")
        day = pl.col("transaction_timestamp").dt.date()
        first, last = tills.select(first=day.min(), last=day.max()).row(0)
        campaigns = (
            table("campaign_descriptions")
            .select(
                "campaign_id",
                type="campaign_type",
                starts=pl.col("start_date").dt.date(),
                last_day=pl.col("end_date").dt.date(),
            )
            .filter(pl.col("starts") >= first, pl.col("last_day") <= last)
        )
        return cls(
            campaigns,
            table("coupons").unique().join(category, on="product_id"),
            table("campaigns").unique().join(campaigns.select("campaign_id"), on="campaign_id"),
            table("coupon_redemptions").with_columns(day=pl.col("redemption_date").dt.date()),
            tills.select("household_id", "product_id", "category", day=day),
        )


def running(ads: pl.DataFrame, day: date) -> pl.DataFrame:
    """Return the ads that may be shown at the beginning of a day."""
    instant = pl.lit(day).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return ads.filter(pl.col("starts") <= instant, instant < pl.col("ends"))


def dates_table(ads: pl.DataFrame, described: pl.DataFrame, redeemed: pl.DataFrame) -> Table:
    """Return how the ads that run on each day fit the dates of their campaigns.

    Args:
        ads: of the landing zone.
        described: campaign_id, starts, last_day of every campaign, as the source has them.
        redeemed: campaign_id, coupon_upc, day.
    """
    begin, end = described["starts"].min(), described["last_day"].max()
    assert isinstance(begin, date)
    assert isinstance(end, date)
    days = [begin + timedelta(days=number) for number in range(-1, (end - begin).days + 2)]
    dated = ads.join(described.select("campaign_id", begins="starts", closes="last_day"), on="campaign_id")
    shown = [running(dated, day).with_columns(on=pl.lit(day)) for day in days]
    outside = sum(len(each.filter(~pl.col("on").is_between("begins", "closes"))) for each in shown)
    absent = sum(
        len(dated.filter(pl.lit(day).is_between("begins", "closes"))) - len(each)
        for day, each in zip(days, shown, strict=True)
    )
    coupon = pl.col("ad_id").str.split("-").list.get(1)
    at_once = {day: each.select("campaign_id", coupon_upc=coupon) for day, each in zip(days, shown, strict=True)}
    kept = sum(
        len(of_day.join(at_once[day], on=["campaign_id", "coupon_upc"], how="semi"))
        for (day,), of_day in redeemed.group_by("day")
        if isinstance(day, date)
    )
    rows = (
        ("days", f"{len(days):,}"),
        ("ads", f"{len(ads):,}"),
        ("ads that run, mean of the days", f"{np.mean([len(each) for each in shown]):,.0f}"),
        ("ads that run outside the dates of their campaign", f"{outside:,}"),
        ("ads that do not run within the dates of their campaign", f"{absent:,}"),
        ("redeemed coupons whose ads run on that day", f"{kept:,} of {len(redeemed):,}"),
    )
    return Table("Coupons by date", ("", "all days together"), rows)


def chosen_mailings(source: Source) -> pl.DataFrame:
    """Return the 16 coupons of each mailing of a Type A campaign by their outcome: user_id, surface, source, stage."""
    chosen = source.campaigns.filter(pl.col("type").str.replace_all(" ", "") == CHOSEN_BY_HOUSEHOLD)
    redeemed = source.redeemed.group_by(KEY).agg(redeemed=pl.col("coupon_upc").n_unique().cast(pl.Int64))
    return (
        source.mailed.join(chosen, on="campaign_id")
        .join(redeemed, on=KEY, how="left")
        .join(pl.DataFrame({"place": range(COUPONS_OF_A_CHOSEN_MAILING)}), how="cross")
        .select(
            user_id="household_id",
            surface=pl.lit("home_feed"),
            source="type",
            stage=pl.when(pl.col("place") < pl.col("redeemed").fill_null(0))
            .then(pl.lit("converted"))
            .otherwise(pl.lit("impressed")),
        )
    )


def outcomes_table(impressions: pl.DataFrame, title: str) -> Table:
    """Return delivered and redeemed coupons by type of campaign, with intervals over households."""
    every_one = impressions.with_columns(inclusion_probability=pl.lit(1.0))
    rows = funnel_rows(every_one, Stages(STAGES), samples=SAMPLES, seed=SEED)
    by_metric = {
        metric: intervals_of(rows, metric) for metric in ("delivered", "share_of_impressions", "reached_converted")
    }
    redeemed = dict(impressions.filter(stage="converted").group_by("source").len().iter_rows())
    return Table(
        title,
        ("type of campaign", "delivered", "share of the delivered", "redeemed", "redeemed of the delivered"),
        tuple(
            (
                each,
                f"{delivered.estimate:,.0f}",
                _percent(by_metric["share_of_impressions"][each]),
                f"{redeemed.get(each, 0):,}",
                _percent(by_metric["reached_converted"][each], digits=2),
            )
            for each, delivered in by_metric["delivered"].items()
        ),
    )


@dataclass(frozen=True)
class Asked:
    """The mailings of which a coupon was redeemed, and the coupons of each, scored.

    Attributes:
        scored: query, household, type, candidate, redeemed and the counts that rankings go by; a coupon of a mailing a
            row. Every count is from before the campaign.
        types, households: [queries].
    """

    scored: pl.DataFrame
    types: NDArray[np.str_]
    households: NDArray[np.int64]

    def positives(self) -> Positives:
        redeemed = self.scored.filter("redeemed")
        return Positives.from_pairs(redeemed["query"], redeemed["candidate"], queries=len(self.types))

    def ranked(self, counts: Sequence[str]) -> RankedLists:
        """Return the first coupons of each mailing by counts, the largest first; of equal ones the smaller id."""
        best = (
            self.scored.sort("query", *counts, "candidate", descending=[False, *[True] * len(counts), False])
            .group_by("query", maintain_order=True)
            .head(K)
        )
        place = best.select(pl.int_range(pl.len()).over("query")).to_series()
        return RankedLists.from_places(
            best["query"].to_numpy(),
            place.to_numpy(),
            best["candidate"].to_numpy(),
            queries=len(self.types),
            depth=K,
        )

    def of_type(self, kind: str) -> Asked:
        wanted = np.flatnonzero(self.types == kind)
        renumbered = pl.DataFrame({"query": wanted, "number": np.arange(len(wanted))})
        scored = self.scored.join(renumbered, on="query").drop("query").rename({"number": "query"})
        return Asked(scored, self.types[wanted], self.households[wanted])


def asked(source: Source) -> Asked:
    """Return the mailings with a redeemed coupon, of campaigns with more than K coupons."""
    coupon = ["campaign_id", "coupon_upc"]
    coupons = source.covered.select(coupon).unique().sort(coupon).with_row_index("candidate")
    many = coupons.group_by("campaign_id").len().filter(pl.col("len") > K)
    campaigns = source.campaigns.join(many, on="campaign_id", how="semi")
    redeemed = source.redeemed.join(campaigns, on="campaign_id").select(*KEY, "coupon_upc").unique()
    queries = redeemed.select(KEY).unique().sort(KEY).with_row_index("query").join(campaigns, on="campaign_id")
    candidates = queries.join(coupons, on="campaign_id")

    covered = source.covered.join(campaigns.select("campaign_id", "starts"), on="campaign_id")
    before = pl.col("day") < pl.col("starts")
    of_products = source.tills.drop("category").join(covered, on="product_id").filter(before)
    weights = covered.group_by(*coupon, "starts", "category").len("products")
    share = weights.with_columns(pl.col("products") / pl.col("products").sum().over(coupon)).drop_nulls("category")
    of_categories = (
        source.tills.join(queries.select("household_id", "starts").unique(), on="household_id")
        .filter(before)
        .group_by("household_id", "starts", "category")
        .len("lines")
        .join(share, on=["starts", "category"])
        .group_by("household_id", *coupon)
        .agg(own_category=(pl.col("lines") * pl.col("products")).sum())
    )
    earlier = (
        source.redeemed.select("coupon_upc", "day")
        .join(covered.select(*coupon, "starts").unique(), on="coupon_upc")
        .filter(before)
    )
    counted = (
        candidates.join(of_products.group_by(coupon).len("sold"), on=coupon, how="left")
        .join(of_products.group_by("household_id", *coupon).len("own"), on=["household_id", *coupon], how="left")
        .join(of_categories, on=["household_id", *coupon], how="left")
        .join(earlier.group_by(coupon).len("redeemed_before"), on=coupon, how="left")
        .join(redeemed.with_columns(redeemed=True), on=[*KEY, "coupon_upc"], how="left")
        .with_columns(
            pl.col("sold", "own", "own_category", "redeemed_before").fill_null(0), pl.col("redeemed").fill_null(False)
        )
        .sort("query", "candidate")
    )
    chance = np.random.default_rng(SEED).random(len(counted))
    scored = counted.with_columns(
        pl.Series("chance", chance), pl.col("query", "candidate").cast(pl.Int64), household="household_id"
    )
    households = queries.sort("query")["household_id"].rank("dense").to_numpy().astype(np.int64) - 1
    return Asked(scored, queries.sort("query")["type"].to_numpy().astype(str), households)


def ranking_table(found: Asked, title: str) -> Table:
    """Return the recall of each ranking, and what it has more than popularity, with intervals over households."""
    positives = found.positives()
    lists = {name: found.ranked(counts) for name, counts in RANKINGS.items()}
    rows = []
    for name, ranked in lists.items():
        own = confidence_interval(ranked, positives, K, owners=found.households, samples=SAMPLES, seed=SEED)
        less = paired_difference(
            ranked, lists["popularity"], positives, k=K, owners=found.households, samples=SAMPLES, seed=SEED
        )
        rows.append((name, _number(own), "" if name == "popularity" else _number(less, sign=True)))
    a_mailing = len(found.scored) / len(found.types)
    note = (
        f"{len(found.types):,} mailings to {len(np.unique(found.households)):,} households, "
        f"{len(positives.items):,} redeemed coupons, {a_mailing:.0f} coupons a mailing"
    )
    return Table(title, ("ranked by", f"recall@{K}", "less popularity"), tuple(rows), (note,))


def _percent(found: Interval, digits: int = 1) -> str:
    return f"{found.estimate:.{digits}%} ({found.low:.{digits}%} to {found.high:.{digits}%})"


def _number(found: Interval, *, sign: bool = False) -> str:
    return f"{found.estimate:{'+' if sign else ''}.3f} ({found.low:.3f} to {found.high:.3f})"


def landed(landing: Landing, table: LandingTable) -> pl.DataFrame:
    """Return every row of a table of a landing zone."""
    paths = [path for day in (None, *landing.dates()) for path in landing.files(table, day)]
    return pl.concat(pl.read_parquet(path) for path in paths)


def main() -> None:
    """Import, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    folder = parser.parse_args().source
    console, source = Console(width=140), Source.read(folder)
    with tempfile.TemporaryDirectory(prefix="adseq-benchmark-") as directory:
        landing = Landing(Path(directory) / "landing")
        for line in import_complete_journey(folder, landing).lines():
            console.print(line, highlight=False)
        ads, impressions = (landed(landing, table) for table in (LandingTable.ads, LandingTable.impressions))
    described = pl.read_parquet(folder / "campaign_descriptions.parquet").select(
        pl.col("campaign_id").cast(pl.String),
        starts=pl.col("start_date").dt.date(),
        last_day=pl.col("end_date").dt.date(),
    )
    dates_table(ads, described, source.redeemed).show(console)
    logged = impressions.select("user_id", "surface", "source", "stage")
    outcomes_table(logged, "Coupons of the impression log").show(console)
    together = pl.concat([logged, chosen_mailings(source)])
    outcomes_table(together, "With 16 coupons for each mailing of Type A").show(console)
    found = asked(source)
    ranking_table(found, "Redeemed coupons among those of the mailing").show(console)
    for kind in sorted(set(found.types)):
        ranking_table(found.of_type(kind), f"The same, {kind}").show(console)


if __name__ == "__main__":
    main()
