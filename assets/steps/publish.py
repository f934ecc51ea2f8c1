"""What the asset ``online_states`` does: bring the online store up to a day.

A model version becomes visible in one step, when all of its namespaces are filled. Within a version a day costs what
its active users cost. A day that is run again writes its users again and never takes the store back to an older day.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.item_features import features_frame
from assets.steps.relevance_versions import relevance_version
from assets.steps.versions import ModelVersion, serving_advertisers
from settings import SequenceSettings
from warehouse.as_of import ads_as_of, spend_as_of, users_as_of
from warehouse.contracts import LandingTable
from warehouse.days import day_end
from warehouse.forget import forgotten_users
from warehouse.home import write_atomically
from warehouse.online import OnlineStore, StoreDamaged, open_store
from warehouse.online.catalogue_ads import with_ads
from warehouse.online.open import record_store
from warehouse.online.publication import FORGOTTEN, SEQUENCES, USERS, Publication, add_tombstones, check, served
from warehouse.online.records import json_in, json_rows, stamp_in, stamp_of, state_rows
from warehouse.online.sequences import COLUMNS, Held, add, events_in
from warehouse.online.spend import put_spend, spend_day
from warehouse.onsite_events import days_with_arrivals
from warehouse.sequences import all_sequences, gathered, of_all_buckets
from warehouse.states import (
    ADVERTISER_CANDIDATES,
    USER_STATES,
    candidate_batches,
    inferred_days,
    newest_of_days,
    snapshot_batches,
)
from warehouse.stored_sequences import sequences_of_day

ATTRIBUTES = ("item_id", "advertiser_id", "title", "content_type", "currency", "availability", "countries")
DEMOGRAPHICS = ("age", "gender", "country")


@dataclass(frozen=True)
class Published:
    """The result of a publication."""

    publication: Publication  # what is served now
    full: bool  # the version was new here, or the store was filled anew: everybody was written
    states: int
    advertiser_lists: int
    seconds: float


@dataclass(frozen=True)
class News:
    """The days with rows that the store lacks: the days after ``since``, and ``day``, which may be run again."""

    since: date | None  # None: it has nothing
    day: date

    def chosen(self, column: str = "day") -> pl.Expr:
        """Whether a row is of one of these days."""
        return pl.lit(True) if self.since is None else (pl.col(column) > self.since) | (pl.col(column) == self.day)

    def includes(self, day: date) -> bool:
        """Whether ``day`` is one of these days."""
        return self.since is None or day > self.since or day == self.day

    def unless(self, same: bool) -> News:
        """Return these days if the store's records are of the same version, else everything."""
        return self if same else replace(self, since=None)


def publish_day(workspace: Workspace, version: ModelVersion, day: date, champion: str | None) -> Published:
    """Publish states, advertiser lists, sequences, demographics, catalogue and index of ``day``; the pointer last.

    If the served version is another one, an earlier day is history and changes nothing. Nor does any day change the
    store unless the version is champion: a day run again with the version that once served the day does not undo a
    rollback. A store that is damaged, or of another format, is filled anew.
    """
    started = time.perf_counter()
    store = open_store(workspace.settings.online.store, workspace.home)
    try:
        before = _current(store)
        same = before is not None and before.model_version == version.name
        if before is not None and not same and (before.day > day or version.name != champion):
            return Published(before, False, 0, 0, time.perf_counter() - started)
        held = before if _is_whole(store, before) else None
        if held is None:
            _clear_all(store)
        publication = _publication(workspace, version, max(day, before.day) if same and before else day)
        add_tombstones(store, forgotten_users(workspace.tables))  # this store may be another one than before
        record_store(workspace.home, workspace.settings.online.store)
        news = News(held.day if held else None, day)
        lists_known = held is not None and held.advertiser_version == publication.advertiser_version
        states = _put_states(workspace, store, publication, news.unless(same))
        lists = _put_advertisers(workspace, store, publication, news.unless(lists_known))
        sequences_fit = held is not None and held.sequence_shape == publication.sequence_shape
        if not sequences_fit and before is not None:  # they become a mixture: a publisher that is killed says so
            store.switch(replace(before, sequence_shape=None).to_bytes())
        _put_sequences(workspace, store, publication, news.unless(sequences_fit))
        _put_demographics(workspace, store, publication, news)
        _put_spend(workspace, store, publication)
        publication = replace(publication, catalogue_sha256=_write_catalogue(workspace, version, publication))
        store.switch(publication.to_bytes())
        _clear_namespaces(store, publication, held)
        return Published(publication, held is None or not same, states, lists, time.perf_counter() - started)
    finally:
        store.close()


def _current(store: OnlineStore) -> Publication | None:
    """Return the publication that the store's pointer names; None where no pointer can be read."""
    try:
        return served(store)
    except StoreDamaged:
        return None


def _is_whole(store: OnlineStore, publication: Publication | None) -> bool:
    """Whether the store holds all records that its pointer promises."""
    if publication is None:
        return False
    try:
        check(store, publication)
    except StoreDamaged:
        return False
    return True


def _clear_all(store: OnlineStore) -> None:
    """Remove all namespaces, because a damaged namespace cannot be added to."""
    for namespace in store.namespaces():
        store.clear(namespace)


def _publication(workspace: Workspace, version: ModelVersion, day: date) -> Publication:
    home, manifest = workspace.home, workspace.landing.manifest
    advertisers, relevance = serving_advertisers(workspace.tables, home, day), relevance_version(workspace, day)
    return Publication(
        model_version=version.name,
        day=day,
        model=version.deployed.relative_to(home.root),
        index=(home.indexes / version.name / day.isoformat()).relative_to(home.root),
        catalogue=(home.served / version.name / f"{day}.parquet").relative_to(home.root),
        advertiser_version=advertisers.name if advertisers else None,
        precision=workspace.settings.online.precision,
        time_zone=manifest.time_zone,
        repeats_count=manifest.repeats_count,
        sequence_shape=workspace.item_model(version.deployed).settings.sequences.name,
        published_at=datetime.now(UTC),
        synthetic=manifest.synthetic,
        relevance=None if relevance is None else relevance.directory.relative_to(home.root),
    )


def _put_states(workspace: Workspace, store: OnlineStore, publication: Publication, news: News) -> int:
    tables, version = workspace.tables, publication.model_version
    if news.since is None:
        batches = snapshot_batches(tables, version, publication.day)
    else:
        batches = iter([newest_of_days(tables, USER_STATES, version, news.chosen())])
    rows = (state_rows(_stamped(states, publication), publication.precision) for states in batches)
    return store.put(publication.states, chain.from_iterable(rows))


def _put_advertisers(workspace: Workspace, store: OnlineStore, publication: Publication, news: News) -> int:
    tables, version = workspace.tables, publication.advertiser_version
    if version is None or publication.advertisers is None:
        return 0
    if news.since is None:
        batches = candidate_batches(tables, version, publication.day)
    else:
        batches = iter([newest_of_days(tables, ADVERTISER_CANDIDATES, version, news.chosen())])
    rows = (json_rows(_stamped(lists, publication), ("advertiser_ids", "scores")) for lists in batches)
    return store.put(publication.advertisers, chain.from_iterable(rows))


def _put_sequences(workspace: Workspace, store: OnlineStore, publication: Publication, news: News) -> None:
    shape = _shape(workspace, publication)
    for sequences in _sequences(workspace, publication, shape, news):
        epochs = pl.col("event_time").list.eval(pl.element().dt.epoch("us"))
        rows = list(json_rows(_stamped(sequences.with_columns(epochs), publication), COLUMNS))
        if store.put(SEQUENCES, rows) < len(rows):
            _merge_into_later(shape, store, publication, rows)


def _sequences(
    workspace: Workspace, publication: Publication, shape: SequenceSettings, news: News
) -> Iterator[pl.DataFrame]:
    """Yield the sequences that the store lacks, with the ``day`` of each, some users at a time."""
    tables, landing, data = workspace.tables, workspace.landing, workspace.settings.data
    if news.since is None:
        inferred = inferred_days(tables, publication.model_version, publication.day)
        everybody = all_sequences(tables, landing, publication.day, settings=shape, data=data)
        for sequences in gathered(of_all_buckets(everybody)):
            yield sequences.join(inferred, on="user_id")
        return
    arrived = days_with_arrivals(tables, landing)
    of_days = [
        sequences_of_day(tables, landing, day, shape=shape, data=data).with_columns(day=day)
        for day in arrived
        if news.includes(day) and day <= publication.day
    ]
    if of_days:
        yield pl.concat(of_days).unique("user_id", keep="last", maintain_order=True)


def _shape(workspace: Workspace, publication: Publication) -> SequenceSettings:
    """Return the shape of the sequences of a publication's model."""
    return workspace.item_model(workspace.home.root / publication.model).settings.sequences


def _merge_into_later(
    shape: SequenceSettings, store: OnlineStore, publication: Publication, rows: list[tuple[bytes, bytes]]
) -> None:
    """Merge the day's events into later sequences that the store has kept.

    A later sequence, which holds a live event since the end of the day, may lack events of the day's files. The state
    is then behind the sequence, and is inferred on demand.
    """
    since = stamp_of(day_end(publication.day, publication.time_zone) - timedelta(days=shape.lookback_days))
    for key, value in rows:
        held = Held.of(store.get(SEQUENCES, key))
        if held.stamp is None or held.stamp > stamp_in(value):
            stamp = stamp_in(value) if held.stamp is None else held.stamp
            add(store, key, events_in(json_in(value)), stamp=stamp, since=since, length=shape.length)


def _put_demographics(workspace: Workspace, store: OnlineStore, publication: Publication, news: News) -> None:
    tables = workspace.tables
    if not tables.exists(LandingTable.users.value):
        return
    people = users_as_of(tables, publication.day).with_columns(day=pl.lit(publication.day))
    if news.since is not None:
        arrivals = tables.scan(LandingTable.users.value).filter(news.chosen("arrival_date"))
        arrived = arrivals.select("user_id").collect()
        people = people.filter(pl.col("user_id").is_in(arrived["user_id"].implode()))
    store.put(USERS, json_rows(_stamped(people, publication), DEMOGRAPHICS))


def _put_spend(workspace: Workspace, store: OnlineStore, publication: Publication) -> None:
    """Raise the counters of the publication's day to what its impressions have cost, should the day not be over yet."""
    end = day_end(publication.day, publication.time_zone)
    spent = spend_as_of(workspace.tables, workspace.landing, end, publication.day)
    if len(spent):
        put_spend(store, publication.day, dict(spent.select("ad_id", "spent").iter_rows()))


def _stamped(frame: pl.DataFrame, publication: Publication) -> pl.DataFrame:
    """Add to each row the moment up to which the row includes events: the end of the row's day."""
    stamps = {day: stamp_of(day_end(day, publication.time_zone)) for day in frame["day"].unique()}
    return frame.with_columns(stamp=pl.col("day").replace_strict(stamps, return_dtype=pl.Int64))


def _write_catalogue(workspace: Workspace, version: ModelVersion, publication: Publication) -> str:
    """Write the catalogue that the service reads; return its SHA-256."""
    features = features_frame(workspace, version, publication.day)
    attributes = workspace.items_as_of(publication.day)
    content = io.BytesIO()
    ads = ads_as_of(workspace.tables, publication.day)
    with_ads(catalogue_frame(features, attributes), ads).write_parquet(content)
    path = workspace.home.root / publication.catalogue
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())
    return hashlib.sha256(content.getvalue()).hexdigest()


def catalogue_frame(features: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Return the catalogue that the service reads, by item_id.

    Columns are features with statistics, and attributes for people and filters.
    """
    attributes = items.select(*ATTRIBUTES, category_path="category", amount="price", stated_interests="interests")
    return features.join(attributes, on="item_id", how="left").sort("item_id")


def _clear_namespaces(store: OnlineStore, publication: Publication, before: Publication | None) -> None:
    """Remove the states and lists of all publications but this one and the one before, and the spend of days before.

    A reader may still use the publication before.
    """
    kept = {SEQUENCES, USERS, FORGOTTEN}
    for each in (publication, before):
        kept |= {each.states, each.advertisers or ""} if each else set()
    for namespace in store.namespaces():
        of_day = spend_day(namespace)
        if namespace not in kept if of_day is None else of_day < publication.day:
            store.clear(namespace)
