"""``adseq export candidates``: everybody's top items and advertisers in a file, for teams that take them in batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from assets.common.workspace import Workspace
from assets.steps.encode import snapshot_embeddings
from assets.steps.versions import advertiser_versions, item_versions, serving_advertisers
from ml.features.event_log import row_numbers
from ml.retrieval.index import ItemIndex, search_index
from ml.retrieval.index_files import load_index
from ml.retrieval.lists import NO_ITEM, Ragged, RankedLists
from pipelines.cli.errors import RunRefused
from warehouse.as_of import ads_as_of, events_as_of, items_as_of, users_as_of
from warehouse.best_ads import OFFER_SCHEMA
from warehouse.days import day_end
from warehouse.eligibility import Eligibility
from warehouse.identity import external_ids
from warehouse.item_trainings import why_advertisers_alone
from warehouse.online import NothingPublished, open_store
from warehouse.online.publication import Publication, served
from warehouse.states import candidates_snapshot

BATCH_USERS = 10_000
FORMATS = (".parquet", ".csv")
SCHEMA = pl.Schema(
    {
        "user_id": pl.String(),
        "kind": pl.String(),  # item or advertiser
        "rank": pl.Int32(),
        "item_id": pl.String(),
        "advertiser_id": pl.String(),
        "score": pl.Float32(),
        **OFFER_SCHEMA,  # null where the log has no ads
    }
)


def export_candidates(workspace: Workspace, out: Path, count: int, console: Console) -> None:
    """Write each user's ``count`` best items and ``count`` best advertisers, best first.

    Version and day are those that the service serves.

    Items are those that the home feed may show without a context: each is available and ships to the user's country,
    has an ad that may be shown there at the end of the day if the log has ads, and none is of the user's own history
    unless the manifest says that repeats count. A home without an item model has advertisers alone, of the newest day
    that ran. The file appears whole or not at all.

    Raises:
        NothingPublished: no day has been published.
        StoreUnreachable: the online store, which names the served publication, does not answer.
        RunRefused: the file's name says no format.
    """
    now = _published(workspace)
    if now is None:
        _export_advertisers(workspace, out, count, console)
    else:
        _export_published(workspace, now, out, count=count, console=console)


def _export_published(workspace: Workspace, now: Publication, out: Path, *, count: int, console: Console) -> None:
    """Write items and advertisers of the version and the day that the service serves."""
    tables, landing = workspace.tables, workspace.landing
    keys, embeddings = snapshot_embeddings(
        workspace, item_versions(tables, workspace.home).named(now.model_version), now.day
    )
    index = load_index(workspace.home.root / now.index)
    item_ids = pl.Series("item_id", index.item_ids, dtype=pl.String)
    own = _own_items(workspace, now, keys, item_ids)
    attributes = items_as_of(tables, landing, now.day).select("item_id", "advertiser_id", "availability", "countries")
    items = item_ids.to_frame().join(attributes, on="item_id", how="left", maintain_order="left")
    eligibility, instant = Eligibility.of(items, ads_as_of(tables, now.day)), day_end(now.day, now.time_zone)
    countries = keys.to_frame("user_id").join(
        users_as_of(tables, now.day), on="user_id", how="left", maintain_order="left"
    )
    people = pl.DataFrame({"key": keys, "user_id": external_ids(tables, keys), "country": countries["country"]})
    lists = people.join(_lists(workspace, now), left_on="key", right_on="user_id", how="left", maintain_order="left")
    rows = 0
    with _written(out) as writer, Progress(console=console, transient=True) as progress:
        task = progress.add_task("users", total=len(keys))
        for begin in range(0, len(keys), BATCH_USERS):
            some = lists.slice(begin, BATCH_USERS)
            end = begin + len(some)
            place = UserPlace(embeddings[begin:end], own.slice(begin, end), some["country"])
            found = lists_by_country(index.index, place, eligibility, instant=instant, count=count)
            both = pl.concat([_items(some["user_id"], found, items), _advertisers(some, count)])
            writer.write_table(both.sort("user_id", "kind", "rank").to_arrow().cast(writer.schema))
            rows += both.height
            progress.advance(task, len(some))
    _tell(console, rows, len(keys), version=now.model_version, day=now.day, out=out)


def _export_advertisers(workspace: Workspace, out: Path, count: int, console: Console) -> None:
    """Write the advertisers of a home that has no item model.

    Raises:
        NothingPublished: no day has run, or the home has an item model and has published no day.
    """
    tables = workspace.tables
    days = advertiser_versions(tables, workspace.home).deployment_days()
    version = serving_advertisers(tables, workspace.home, days[-1]) if days else None
    if version is None or not why_advertisers_alone(tables):
        raise NothingPublished(f"{workspace.home.root} has published no day yet. Run `adseq run` first.")
    lists = candidates_snapshot(tables, version.name, days[-1])
    people = lists.with_columns(user_id=external_ids(tables, lists["user_id"])).sort("user_id")
    rows = 0
    with _written(out) as writer:
        for some in people.iter_slices(BATCH_USERS):
            advertisers = _advertisers(some, count)
            writer.write_table(advertisers.to_arrow().cast(writer.schema))
            rows += advertisers.height
    _tell(console, rows, len(people), version=version.name, day=days[-1], out=out)


def _tell(console: Console, rows: int, users: int, *, version: str, day: date, out: Path) -> None:
    console.print(
        f"{rows:,} rows of {users:,} users, {version} as of the end of {day}, in {out}", highlight=False, markup=False
    )


@dataclass(frozen=True)
class UserPlace:
    """Some users, by row: the query embeddings, the items of the histories, and the countries."""

    embeddings: NDArray[np.float32]  # [users, width]
    own: Ragged  # index rows of the items of each user's history
    country: pl.Series  # [users] null where it is not known


@dataclass(frozen=True)
class UserLists:
    """The lists of some users, and the offer of each place."""

    lists: RankedLists
    offers: pl.DataFrame  # [users · depth] OFFER_SCHEMA, list by list; null where the log has no ads, or the list ended


def lists_by_country(
    index: ItemIndex, users: UserPlace, eligibility: Eligibility, *, instant: datetime, count: int
) -> UserLists:
    """Return each user's list of ``count`` items, among the items that may be shown in the user's country."""
    items = np.full((len(users.embeddings), count), NO_ITEM, np.int64)
    scores = np.full((len(users.embeddings), count), -np.inf, np.float32)
    offers = []
    groups = pl.DataFrame({"country": users.country}).with_row_index("row")
    for country, rows in groups.group_by("country").agg("row").iter_rows():
        at = np.array(rows, np.int64)
        allowed = eligibility.mask(country, instant)
        found = search_index(index, users.embeddings[at], count, exclude=users.own.take(at), allowed=allowed)
        items[at], scores[at] = found.items, found.scores
        place = (at[:, None] * count + np.arange(count)).ravel()
        offers.append(eligibility.offers(country, found.items.ravel()).with_columns(place=place))
    return UserLists(RankedLists(items, scores), pl.concat(offers).sort("place").drop("place"))


def _published(workspace: Workspace) -> Publication | None:
    store = open_store(workspace.settings.online.store, workspace.home)
    try:
        return served(store)
    finally:
        store.close()


def _own_items(workspace: Workspace, now: Publication, users: pl.Series, item_ids: pl.Series) -> Ragged:
    """Return the index rows of the items in each user's history; no rows where repeats count."""
    if now.repeats_count:
        return Ragged.from_pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), len(users))
    events = events_as_of(workspace.tables, workspace.landing, now.day, ["user_id", "item_id"])
    pairs = events.drop_nulls().unique()
    user, item = row_numbers(users, pairs["user_id"]), row_numbers(item_ids, pairs["item_id"])
    known: NDArray[np.bool_] = (user >= 0) & (item >= 0)
    return Ragged.from_pairs(user[known], item[known], len(users))


def _lists(workspace: Workspace, now: Publication) -> pl.DataFrame:
    """Return user_id (keys), advertiser_ids and scores; no rows before the first advertiser model."""
    if now.advertiser_version is None:
        lists = {"advertiser_ids": pl.List(pl.String()), "scores": pl.List(pl.Float32())}
        return pl.DataFrame(schema={"user_id": pl.String(), **lists})
    return candidates_snapshot(workspace.tables, now.advertiser_version, now.day)


def _items(users: pl.Series, found: UserLists, items: pl.DataFrame) -> pl.DataFrame:
    """Return one row for each user and listed item; ``items`` is in the order of the index."""
    lists, depth = found.lists, found.lists.depth
    frame = pl.DataFrame(
        {
            "user_id": users.gather(np.repeat(np.arange(len(users)), depth)),
            "rank": np.tile(np.arange(1, depth + 1), len(users)),
            "row": lists.items.ravel(),
            "score": lists.scores.ravel(),
        }
    ).hstack(found.offers)
    frame = frame.filter(pl.col("row") >= 0)
    return _rows(frame.hstack(items.select("item_id", "advertiser_id")[frame["row"].to_numpy()]), "item")


def _advertisers(lists: pl.DataFrame, count: int) -> pl.DataFrame:
    """Return one row for each user and advertiser in the user's list."""
    columns = {"advertiser_id": "advertiser_ids", "score": "scores"}
    best = lists.select("user_id", **{name: pl.col(source).list.head(count) for name, source in columns.items()})
    flat = best.explode("advertiser_id", "score").drop_nulls("advertiser_id")
    rank = pl.int_range(1, pl.len() + 1).over("user_id")
    nothing = {name: pl.lit(None) for name in ("item_id", *OFFER_SCHEMA)}
    return _rows(flat.with_columns(rank=rank, **nothing), "advertiser")


def _rows(frame: pl.DataFrame, kind: str) -> pl.DataFrame:
    return frame.with_columns(kind=pl.lit(kind)).select(SCHEMA.names()).cast(SCHEMA)


@contextmanager
def _written(out: Path) -> Iterator[pq.ParquetWriter]:
    """Yield a writer of a Parquet file beside ``out``, and rename the file when all rows are written.

    A name that ends in .csv makes a CSV file.
    """
    if out.suffix not in FORMATS:
        raise RunRefused(f"--out {out}: name it {' or '.join(FORMATS)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    rows, text = (out.with_name(f".{out.name}.{os.getpid()}.{kind}.tmp") for kind in ("parquet", "csv"))
    try:
        with pq.ParquetWriter(rows, pl.DataFrame(schema=SCHEMA).to_arrow().schema) as writer:
            yield writer
        if out.suffix == ".csv":
            pl.scan_parquet(rows, glob=False).sink_csv(text)
        (text if out.suffix == ".csv" else rows).replace(out)
    finally:
        rows.unlink(missing_ok=True)
        text.unlink(missing_ok=True)
