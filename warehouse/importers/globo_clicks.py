"""Globo.com news clicks -> landing zone: a click is a positive ``page_visit``; a session's consecutive clicks are an
impression log with real context.

Days are those of the fixed zone ``Etc/GMT+3`` (three hours BEHIND Greenwich; the sign is POSIX's), not of
America/Sao_Paulo: Brazil's summer time began on 2017-10-15, in the middle of the log, and the log's public splits cut
every day at 03:00 UTC. ``event_id`` is the row number in the source, which breaks ties in the order of the source.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl
from tqdm import tqdm

from settings import UNKNOWN_ADVERTISER
from warehouse.contracts import CATEGORY_SEPARATOR, LandingTable
from warehouse.importers.landing_writer import ImportSummary, SourceError, require_files, sink, staged, write_by_day
from warehouse.landing import Landing, Manifest

TIME_ZONE = "Etc/GMT+3"
_ID_DIGITS = 9
# A day with less than this share of the busiest day's clicks belongs to the log's trickle (0.1 % of all clicks), on
# which nothing can be learned or measured: the daily partitions are the last days above it.
_TRAFFIC_SHARE = 0.1


def import_globo_clicks(source: Path, landing: Landing, daily_days: int = 2) -> ImportSummary:
    """Write ``source`` (clicks.parquet, items.parquet) into an empty or new landing zone, streaming the clicks.

    The last ``daily_days`` days that carry the log's traffic become daily partitions, everything earlier the history;
    clicks after the last of them (4 weeks of a trickle) are left out and counted in the summary. An article is
    available from its creation or its first click, whichever is earlier. Users carry the country code of their first
    click.

    Raises:
        SourceError: a source file is missing, the log has too few days, or the landing zone is not empty.
    """
    require_files(source, ("clicks.parquet", "items.parquet"), "Globo.com clicks")
    clicks = _clicks(source / "clicks.parquet")
    span = _span(clicks, daily_days, source)
    kept = clicks.filter(pl.col("day") <= span.days[-1])
    items, users = _items(source / "items.parquet", kept), _users(kept)
    with (
        staged(landing) as zone,
        tqdm(total=len(span.days) + 3, desc="import Globo clicks", file=sys.stderr) as progress,
    ):
        for day in (None, *span.days):
            part = pl.col("day") < span.days[0] if day is None else pl.col("day") == day
            sink(zone, LandingTable.events, day, _events(kept.filter(part)))
            progress.update()
        impressions = _impressions(kept)
        write_by_day(zone, LandingTable.impressions, impressions, days=span.days)
        progress.update()
        write_by_day(zone, LandingTable.users, users, days=span.days)
        zone.write(LandingTable.items, None, items)
        zone.write_manifest(
            Manifest(
                name="Globo.com clicks",
                positive_events=["page_visit"],
                prediction_window_days=1,
                time_zone=TIME_ZONE,
                repeats_count=False,
            )
        )
        progress.update()
    extent = kept.select(pl.col("time").min().alias("first"), pl.col("time").max().alias("last"), events=pl.len())
    first, last, events = extent.collect(engine="streaming").row(0)
    return ImportSummary(
        events=events,
        users=users.height,
        items=items.height,
        advertisers=0,
        impressions=impressions.height,
        first_time=first,
        last_time=last,
        history_until=span.days[0] - timedelta(days=1),
        days=span.days,
        left_out={f"after {span.days[-1]}": span.left_out},
    )


@dataclass(frozen=True)
class _Span:
    """The daily partitions, and how many clicks lie after them."""

    days: tuple[date, ...]
    left_out: int


def _clicks(path: Path) -> pl.LazyFrame:
    """Return the clicks with ``row`` (in the file), ``time`` (UTC) and ``day`` (local)."""
    time = pl.from_epoch("click_timestamp", time_unit="ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC")
    return pl.scan_parquet(path, glob=False).select(
        "user_id",
        "session_id",
        pl.col("click_article_id").alias("item_id"),
        pl.col("click_country").alias("country"),
        pl.int_range(pl.len()).alias("row"),
        time.alias("time"),
        time.dt.convert_time_zone(TIME_ZONE).dt.date().alias("day"),
    )


def _span(clicks: pl.LazyFrame, daily_days: int, source: Path) -> _Span:
    volume = clicks.group_by("day").len().sort("day").collect(engine="streaming")
    busy = volume.filter(pl.col("len") >= _TRAFFIC_SHARE * pl.col("len").max())["day"].to_list()
    if not 1 <= daily_days < len(busy):
        raise SourceError(
            f"{source / 'clicks.parquet'} has {len(busy)} days with traffic; {daily_days} daily partitions need at "
            "least one more for the history. Choose between 1 and the number of days less one."
        )
    days = tuple(busy[-daily_days:])
    return _Span(days, int(volume.filter(pl.col("day") > days[-1])["len"].sum()))


def _events(clicks: pl.LazyFrame) -> pl.LazyFrame:
    return clicks.select(
        event_id=_source_id(),
        user_id=pl.col("user_id").cast(pl.String),
        event_time="time",
        event_name=pl.lit("page_visit"),
        advertiser_id=pl.lit(UNKNOWN_ADVERTISER),
        item_id=pl.col("item_id").cast(pl.String),
    )


def _impressions(clicks: pl.LazyFrame) -> pl.DataFrame:
    """Return an impression for consecutive clicks a -> b of a session, a other than b: b was clicked on a's page.

    The column ``day`` is the day of click b.
    """
    ordered = clicks.select("session_id", "row", "user_id", "item_id", "time", "day").sort("session_id", "time", "row")
    same_session = pl.col("session_id") == pl.col("session_id").shift(1)
    pairs = ordered.with_columns(subject=pl.when(same_session).then(pl.col("item_id").shift(1)))
    return (
        pairs.filter(pl.col("subject") != pl.col("item_id"))
        .select(
            request_id=_source_id(),
            request_time="time",
            user_id=pl.col("user_id").cast(pl.String),
            surface=pl.lit("related_pins"),
            subject_item_id=pl.col("subject").cast(pl.String),
            item_id=pl.col("item_id").cast(pl.String),
            source=pl.lit("log"),
            stage=pl.lit("clicked"),
            day="day",
        )
        .collect()
    )


def _items(path: Path, clicks: pl.LazyFrame) -> pl.DataFrame:
    first_click = clicks.group_by(article_id=pl.col("item_id").cast(pl.Int64)).agg(first_click=pl.col("time").min())
    created = pl.from_epoch("created_at_ts", time_unit="ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC")
    return (
        pl.scan_parquet(path, glob=False)
        .with_columns(pl.col("article_id").cast(pl.Int64))
        .join(first_click, on="article_id", how="full", coalesce=True)
        .sort("article_id")
        .select(
            item_id=pl.col("article_id").cast(pl.String),
            advertiser_id=pl.lit(UNKNOWN_ADVERTISER),
            content_type=pl.lit("standard"),
            category=pl.format("news" + CATEGORY_SEPARATOR + "{}", "category_exact"),
            available_from=pl.min_horizontal(created, "first_click"),
        )
        .collect(engine="streaming")
    )


def _users(clicks: pl.LazyFrame) -> pl.DataFrame:
    """Return the users with the country code and the ``day`` of their first click."""
    first = pl.col("time").arg_min()
    return (
        clicks.group_by("user_id")
        .agg(pl.col("country").get(first), pl.col("day").min())
        .select(pl.col("user_id", "country").cast(pl.String), "day")
        .sort("user_id")
        .collect()
    )


def _source_id() -> pl.Expr:
    return pl.col("row").cast(pl.String).str.zfill(_ID_DIGITS)
