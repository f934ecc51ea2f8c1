"""``adseq split``: cut a landing zone's log into a fixed split, which `adseq evaluate` and `make peers` read.

The rules are those of the scoring folder's ``split.py`` (``pipelines.evaluate.split`` reads the format):

* temporal: learn from the conversions before the cut-off; predict the new items of known users in the window after it.
* context: a query is the first item of a user's day in the window; the other items of the day are its targets.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from pipelines.cli.errors import RunRefused
from settings import UNKNOWN_ADVERTISER, DataSettings
from warehouse.as_of import landed_items, landed_positives
from warehouse.landing import Landing

DAY_SECONDS = 86_400
HASH_BUCKETS = 2**64


class Protocol(StrEnum):
    """The question that a split's queries ask."""

    temporal = "temporal"
    context = "context"


@dataclass(frozen=True)
class Cut:
    """The rules of a cut: the protocol, the cut-off, the days of the window and the share of the users."""

    protocol: Protocol
    at: str  # a quantile of the conversions' times, or an instant
    window_days: float
    users: float  # share of the users that are kept

    def __post_init__(self) -> None:
        if self.window_days <= 0:
            raise RunRefused(f"--window-days {self.window_days:g}: give a positive number of days.")
        if not 0 < self.users <= 1:
            raise RunRefused(f"--users {self.users:g}: give a share above 0 and at most 1.")

    def instant(self, times: pl.Series, zone: ZoneInfo) -> int:
        """Return the cut-off in seconds.

        Args:
            times: times of the conversions, in seconds.
            zone: time zone of an instant that names no zone.

        Raises:
            RunRefused: ``at`` is neither a quantile nor an instant within the log.
        """
        try:
            quantile = float(self.at)
        except ValueError:
            found = self._given(zone)
        else:
            if not 0 < quantile < 1:
                raise RunRefused(f"--at {self.at}: a quantile lies between 0 and 1.")
            found = int(times.quantile(quantile, "lower"))  # type: ignore[arg-type]
        first, last = (datetime.fromtimestamp(each, zone) for each in (times[0], times[-1]))
        if not times[0] < found <= times[-1]:
            raise RunRefused(
                f"--at {self.at}: no conversion lies before that instant, or none after it; the log's conversions are "
                f"from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} ({zone.key})."
            )
        return found

    def _given(self, zone: ZoneInfo) -> int:
        try:
            instant = datetime.fromisoformat(self.at)
        except ValueError:
            raise RunRefused(
                f"--at {self.at!r}: write a quantile of time as 0.9, a day as 2014-07-01, or an instant as "
                "2014-07-01T12:00."
            ) from None
        return int((instant if instant.tzinfo else instant.replace(tzinfo=zone)).timestamp())


@dataclass(frozen=True)
class Frames:
    """The files of a split; see ``pipelines.evaluate.split.Split`` for their columns."""

    train: pl.DataFrame
    queries: pl.DataFrame
    history: pl.DataFrame
    targets: pl.DataFrame
    catalogue: pl.DataFrame

    def by_name(self) -> Mapping[str, pl.DataFrame]:
        return {name: getattr(self, name) for name in ("train", "queries", "history", "targets", "catalogue")}


def split_landing(landing: Landing, cut: Cut, out: Path, settings: DataSettings) -> dict[str, object]:
    """Cut the conversions of a landing zone and write the split into the new directory ``out``, whole or not at all.

    Returns:
        The content of the split's meta.json.

    Raises:
        RunRefused: the cut leaves nothing to learn from or nothing to ask, or ``out`` is not empty.
        LandingError, QuarantineExceeded: as ``ingest``.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunRefused(f"{out} is not empty: name a new directory with --out, or remove this one first.")
    manifest = landing.manifest
    if not landing.dates():
        raise RunRefused(f"{landing.root} has no landed day: name the landing zone of an import.")
    events = conversions(landing, cut.users, settings)
    cutoff = cut.instant(events["ts"], ZoneInfo(manifest.time_zone))
    advertisers = landed_items(landing, settings).select("item_id", brand="advertiser_id")
    frames = cut_frames(events, advertisers, cut.protocol, cutoff=cutoff, window_days=cut.window_days)
    if frames.targets.is_empty():
        raise RunRefused(
            f"Nothing to ask: no user converts with a new item in the {cut.window_days:g} days from "
            f"{datetime.fromtimestamp(cutoff, UTC):%Y-%m-%d %H:%M} UTC. Give an earlier --at or a longer --window-days."
        )
    meta = _meta(frames, manifest.name, cut, cutoff)
    _write(frames, meta, out)
    return meta


def conversions(landing: Landing, share: float, settings: DataSettings) -> pl.DataFrame:
    """Return the log's conversions with items, in the order of time.

    Args:
        share: share of the users to keep, chosen by a hash of the id.

    Returns:
        user_id, item_id, ts (whole seconds), session_id (the UTC day), ord (the place in the log).

    Raises:
        RunRefused: there is no conversion.
    """
    events = landed_positives(landing, settings)
    if share < 1:
        kept = [user for user in events["user_id"].unique() if _draw(user) < share]
        events = events.filter(pl.col("user_id").is_in(kept))
    if events.is_empty():
        raise RunRefused(
            f"{landing.root} has no conversion with an item: positive_events in manifest.toml is "
            f"{', '.join(landing.manifest.positive_events)}."
        )
    seconds = pl.col("event_time").dt.epoch("s")
    return (
        events.sort("event_time", "user_id", "event_id")
        .select("user_id", "item_id", ts=seconds, session_id=seconds // DAY_SECONDS)
        .with_row_index("ord")
        .cast({"ord": pl.Int64})
    )


def cut_frames(
    events: pl.DataFrame, advertisers: pl.DataFrame, protocol: Protocol, *, cutoff: int, window_days: float
) -> Frames:
    """Return the frames of a split.

    Args:
        events: as ``conversions`` returns them.
        advertisers: item_id, brand.
        cutoff: seconds.
    """
    end = cutoff + window_days * DAY_SECONDS
    train = events.filter(pl.col("ts") < cutoff)
    window = events.filter(pl.col("ts") >= cutoff, pl.col("ts") < end)
    if protocol is Protocol.temporal:
        queries, history, targets = _temporal(train, window)
    else:
        queries, history, targets = _context(events, window, cutoff)
    targets = targets.unique(maintain_order=True).join(history, on=["query_id", "item_id"], how="anti")
    queries = queries.join(targets, on="query_id", how="semi", maintain_order="left")
    history = history.join(queries, on="query_id", how="semi").sort("query_id", "ord")
    queries = queries.with_columns(has_history=pl.col("query_id").is_in(history["query_id"].implode()))
    brand = pl.col("brand").replace(UNKNOWN_ADVERTISER, None)
    catalogue = (
        events.select(pl.col("item_id").unique(maintain_order=True))
        .with_columns(warm=pl.col("item_id").is_in(train["item_id"].unique().implode()))
        .join(advertisers.with_columns(brand), on="item_id", how="left", maintain_order="left")
    )
    return Frames(train, queries, history, targets, catalogue)


def _temporal(train: pl.DataFrame, window: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return the queries, histories and targets of the temporal protocol.

    Each known user has one query; its targets are the items of the window.
    """
    targets = window.join(train, on="user_id", how="semi", maintain_order="left")
    targets = targets.select("item_id", query_id="user_id").select("query_id", "item_id")
    queries = targets.select(pl.col("query_id").unique(maintain_order=True)).with_columns(
        user_id="query_id", context_item=pl.lit(None, pl.String)
    )
    history = train.select("item_id", "ord", query_id="user_id").select("query_id", "item_id", "ord")
    return queries, history.join(queries, on="query_id", how="semi"), targets


def _context(
    events: pl.DataFrame, window: pl.DataFrame, cutoff: int
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return the queries, histories and targets of the context protocol.

    Each user and day with several conversions has one query; the first conversion is its context, the others are its
    targets.
    """
    window = window.sort("user_id", "ord").with_columns(day=(pl.col("ts") - cutoff) // DAY_SECONDS)
    basket = ["user_id", "day"]
    first = window.group_by(basket, maintain_order=True).agg(
        pl.col("item_id").first().alias("context_item"), pl.col("ts").first().alias("start"), pl.len()
    )
    queries = first.filter(pl.col("len") > 1).drop("len").with_row_index("query_id").cast({"query_id": pl.Int64})
    targets = (
        window.join(queries, on=basket, how="inner", maintain_order="left")
        .filter(pl.int_range(pl.len()).over("query_id") > 0, pl.col("item_id") != pl.col("context_item"))
        .select("query_id", "item_id")
    )
    history = queries.join(events, on="user_id", how="inner").filter(pl.col("ts") < pl.col("start"))
    return queries.select("query_id", "user_id", "context_item"), history.select("query_id", "item_id", "ord"), targets


def _draw(user: str) -> float:
    """Return a number in [0, 1) that depends on the id alone."""
    return int.from_bytes(hashlib.blake2b(user.encode(), digest_size=8).digest()) / HASH_BUCKETS


def _meta(frames: Frames, name: str, cut: Cut, cutoff: int) -> dict[str, object]:
    warm = frames.catalogue.filter("warm")
    return {
        "dataset": name,
        "protocol": cut.protocol.value,
        "cutoff": f"{datetime.fromtimestamp(cutoff, UTC):%Y-%m-%d %H:%M:%S}",
        "window_days": cut.window_days,
        "train_events": len(frames.train),
        "train_users": frames.train["user_id"].n_unique(),
        "train_items": frames.train["item_id"].n_unique(),
        "catalogue": len(frames.catalogue),
        "catalogue_warm": len(warm),
        "queries": len(frames.queries),
        "queries_with_history": int(frames.queries["has_history"].sum()),
        "targets": len(frames.targets),
        "targets_warm": len(frames.targets.join(warm, on="item_id", how="semi")),
    }


def _write(frames: Frames, meta: dict[str, object], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for name, frame in frames.by_name().items():
        frame.write_parquet(unfinished / f"{name}.parquet")
    (unfinished / "meta.json").write_text(json.dumps(meta, indent=1))
    if out.exists():
        out.rmdir()  # an empty directory
    unfinished.rename(out)
