"""``adseq export candidates``: everybody's top items and advertisers in a file, for teams that take them in batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console

from assets.common.workspace import Workspace
from assets.steps.encode import HomeFeed
from assets.steps.versions import advertiser_versions, item_versions, serving_advertisers
from ml.features.event_log import row_numbers
from ml.retrieval.index import ItemIndex, search_index
from ml.retrieval.index_files import load_index
from ml.retrieval.lists import NO_ITEM, Ragged, RankedLists
from pipelines.cli.errors import RunRefused
from warehouse.as_of import ads_as_of, items_as_of, scan_events
from warehouse.best_ads import NO_AD, OFFER_SCHEMA
from warehouse.days import day_end
from warehouse.eligibility import Eligibility
from warehouse.identity import external_ids
from warehouse.item_trainings import why_advertisers_alone
from warehouse.online import NothingPublished, open_store
from warehouse.online.publication import Publication, served
from warehouse.states import candidate_batches, candidates_of, snapshot_batches
from warehouse.user_ranges import USERS_AT_ONCE, within

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
_TEXT, _NUMBER = (pa.dictionary(pa.int32(), kind) for kind in (pa.string(), pa.float64()))
_ARROW_KINDS = {pl.String(): _TEXT, pl.Float64(): _NUMBER, pl.Int32(): pa.int32(), pl.Float32(): pa.float32()}
ARROW = pa.schema([(name, _ARROW_KINDS[kind]) for name, kind in SCHEMA.items()])


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
    version = item_versions(tables, workspace.home).named(now.model_version)
    feed, index = HomeFeed.of(workspace, version, now.day), load_index(workspace.home.root / now.index)
    item_ids = pl.Series("item_id", index.item_ids, dtype=pl.String)
    attributes = items_as_of(tables, landing, now.day).select("item_id", "advertiser_id", "availability", "countries")
    items = item_ids.to_frame().join(attributes, on="item_id", how="left", maintain_order="left")
    eligibility, instant = Eligibility.of(items, ads_as_of(tables, now.day)), day_end(now.day, now.time_zone)
    own, listed = _OwnItems.of(workspace, now, item_ids), _listed(workspace, now)
    rows = users = 0
    with _written(out) as write, console.status("0 users") as status:
        for states in snapshot_batches(tables, version.name, now.day, USERS_AT_ONCE):
            people = pl.DataFrame({"key": states["user_id"], "user_id": external_ids(tables, states["user_id"])}).join(
                feed.people.select(key="user_id", country="country"), on="key", how="left", maintain_order="left"
            )
            place = UserPlace(feed.embeddings(states), own.rows_of(people["key"]), people["country"])
            found = lists_by_country(index.index, place, eligibility, instant=instant, count=count)
            rows += write(_items(people["user_id"], found, items, eligibility.offers))
            rows += write(_advertisers(people.join(listed(people["key"]), on="key", maintain_order="left"), count))
            users += len(people)
            status.update(f"{users:,} users")
    _tell(console, rows, users, version=version.name, day=now.day, out=out)


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
    rows = users = 0
    with _written(out) as write:
        for lists in candidate_batches(tables, version.name, days[-1], USERS_AT_ONCE):
            people = lists.with_columns(user_id=external_ids(tables, lists["user_id"]))
            rows += write(_advertisers(people, count))
            users += len(people)
    _tell(console, rows, users, version=version.name, day=days[-1], out=out)


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
    """The lists of some users, and the ad of each place."""

    lists: RankedLists
    ads: NDArray[np.int32]  # [users, depth] rows of ``Eligibility.offers``; -1 without ads, or where the list ended


def lists_by_country(
    index: ItemIndex, users: UserPlace, eligibility: Eligibility, *, instant: datetime, count: int
) -> UserLists:
    """Return each user's list of ``count`` items, among the items that may be shown in the user's country.

    Users of countries with the same items are searched for together.
    """
    items = np.full((len(users.embeddings), count), NO_ITEM, np.int64)
    scores = np.full((len(users.embeddings), count), -np.inf, np.float32)
    ads = np.full(items.shape, NO_AD, np.int32)
    alike: dict[bytes, list[int]] = {}
    groups = pl.DataFrame({"country": users.country}).with_row_index("row").group_by("country").agg("row").rows()
    for country, rows in groups:
        alike.setdefault(np.packbits(eligibility.mask(country, instant)).tobytes(), []).extend(rows)
    for bits, rows in alike.items():
        allowed = np.unpackbits(np.frombuffer(bits, np.uint8), count=len(index)).astype(bool)
        at = np.array(rows, np.int64)
        found = search_index(index, users.embeddings[at], count, exclude=users.own.take(at), allowed=allowed)
        items[at], scores[at] = found.items, found.scores
    for country, rows in groups:
        ads[rows] = eligibility.ad_rows(country, items[rows])
    return UserLists(RankedLists(items, scores), ads)


def _published(workspace: Workspace) -> Publication | None:
    store = open_store(workspace.settings.online.store, workspace.home)
    try:
        return served(store)
    finally:
        store.close()


@dataclass(frozen=True)
class _OwnItems:
    """The items in the histories of users; none where repeats count."""

    pairs: pl.LazyFrame | None  # user_id, item_id
    item_ids: pl.Series

    @classmethod
    def of(cls, workspace: Workspace, now: Publication, item_ids: pl.Series) -> _OwnItems:
        if now.repeats_count:
            return cls(None, item_ids)
        events = scan_events(workspace.tables, workspace.landing, now.day)
        return cls(events.select("user_id", "item_id").drop_nulls(), item_ids)

    def rows_of(self, users: pl.Series) -> Ragged:
        """Return the index rows of the items in each user's history; ``users`` are sorted."""
        if self.pairs is None:
            return Ragged.from_pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), len(users))
        pairs = self.pairs.filter(within(users)).unique().collect(engine="streaming")
        user, item = row_numbers(users, pairs["user_id"]), row_numbers(self.item_ids, pairs["item_id"])
        known: NDArray[np.bool_] = (user >= 0) & (item >= 0)
        return Ragged.from_pairs(user[known], item[known], len(users))


def _listed(workspace: Workspace, now: Publication) -> Callable[[pl.Series], pl.DataFrame]:
    """Return what gives the advertisers of users (sorted): key, advertiser_ids and scores.

    There are no rows before the first advertiser model.
    """
    version = now.advertiser_version
    if version is None:
        lists = {"advertiser_ids": pl.List(pl.String()), "scores": pl.List(pl.Float32())}
        return lambda _: pl.DataFrame(schema={"key": pl.String(), **lists})
    return lambda users: candidates_of(workspace.tables, version, now.day, users).rename({"user_id": "key"})


def _items(users: pl.Series, found: UserLists, items: pl.DataFrame, offers: pl.DataFrame) -> pa.Table:
    """Return one row for each user and listed item; ``items`` is in the order of the index."""
    user, place = np.nonzero(found.lists.items >= 0)
    row, ad = found.lists.items[user, place], found.ads[user, place]
    columns = {
        "user_id": _chosen(users, user),
        "kind": _chosen(pl.Series(["item"]), np.zeros(len(row), np.int64)),
        "rank": pa.array(place + 1, pa.int32()),
        "item_id": _chosen(items["item_id"], row),
        "advertiser_id": _chosen(items["advertiser_id"], row),
        "score": pa.array(found.lists.scores[user, place]),
        **{name: _chosen(offers[name], ad) for name in OFFER_SCHEMA},
    }
    return pa.table(columns, schema=ARROW)


def _advertisers(lists: pl.DataFrame, count: int) -> pa.Table:
    """Return one row for each user and advertiser in the user's list."""
    columns = {"advertiser_id": "advertiser_ids", "score": "scores"}
    best = lists.select(**{name: pl.col(source).list.head(count) for name, source in columns.items()})
    lengths = best["score"].list.len().fill_null(0).to_numpy().astype(np.int64)
    flat = best.filter(pl.Series(lengths > 0)).explode("advertiser_id", "score")
    user = np.repeat(np.arange(len(lists)), lengths)
    rank = np.arange(len(user)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    nobody = np.full(len(user), -1)
    columns_of_items = {name: _chosen(pl.Series([], dtype=SCHEMA[name]), nobody) for name in ("item_id", *OFFER_SCHEMA)}
    named = flat["advertiser_id"].to_arrow().cast(pa.string()).dictionary_encode()
    found = {
        "user_id": _chosen(lists["user_id"], user),
        "kind": _chosen(pl.Series(["advertiser"]), np.zeros(len(user), np.int64)),
        "rank": pa.array(rank + 1, pa.int32()),
        "advertiser_id": named,
        "score": flat["score"].to_arrow(),
        **columns_of_items,
    }
    return pa.table(found, schema=ARROW)


def _chosen(values: pl.Series, rows: NDArray[np.integer[Any]]) -> pa.DictionaryArray:
    """Return the values of rows as references into ``values``, which no row copies; null for the row -1.

    A null value is a null reference: Parquet has no null among the values that are referred to.
    """
    known = np.append(values.is_not_null().to_numpy(), False)  # the last stands for the row -1
    places = np.cumsum(known, dtype=np.int32) - 1
    references = pa.array(places[rows], pa.int32(), mask=~known[rows])
    kind = _ARROW_KINDS[values.dtype].value_type
    return pa.DictionaryArray.from_arrays(references, values.drop_nulls().to_arrow().cast(kind))


@contextmanager
def _written(out: Path) -> Iterator[Callable[[pa.Table], int]]:
    """Yield a function that appends rows to a Parquet file beside ``out``, and rename the file at the end.

    The function returns the number of rows. A name that ends in .csv makes a CSV file.
    """
    if out.suffix not in FORMATS:
        raise RunRefused(f"--out {out}: name it {' or '.join(FORMATS)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    rows, text = (out.with_name(f".{out.name}.{os.getpid()}.{kind}.tmp") for kind in ("parquet", "csv"))
    coded = [field.name for field in ARROW if pa.types.is_dictionary(field.type)]
    try:
        # Without Arrow's own schema a reader finds text, and does not see that the rows were written as references.
        with pq.ParquetWriter(
            rows, ARROW, use_dictionary=coded, store_schema=False, dictionary_pagesize_limit=2**27
        ) as writer:

            def write(table: pa.Table) -> int:
                writer.write_table(table)
                return int(table.num_rows)

            yield write
        if out.suffix == ".csv":
            pl.scan_parquet(rows, glob=False).sink_csv(text)
        (text if out.suffix == ".csv" else rows).replace(out)
    finally:
        rows.unlink(missing_ok=True)
        text.unlink(missing_ok=True)
