"""A publication of 100,000 items and a million users, of random states (what a state says changes no time), and how
long it takes to write."""

from __future__ import annotations

import os
import time
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console

from assets.steps.publish import catalogue_frame
from benchmarks.untrained import untrained_model
from ml.models.batched_forward import embed_items
from ml.models.tensors import CatalogueTensors
from ml.models.version_directories import DEPLOYED
from ml.retrieval.index import build_index
from ml.retrieval.index_files import save_index
from settings import Precision, Settings
from warehouse.home import Home
from warehouse.identity import UserKeys
from warehouse.online import LmdbStore
from warehouse.online.publication import SEQUENCES, Publication
from warehouse.online.records import STATE_HEADER, json_rows, stamp_of, state_rows
from warehouse.world.catalogue import build_catalogue
from warehouse.world.settings import WorldSettings

DISK, HALF = 0, -1  # among the counts of states: no state, but as many bytes; everybody's in half precision
HALF_NAMESPACE = "states-half"
BLOCKS_A_COMMIT = 24  # megabytes that 20,000 states are
CHANGED = (10_000, 100_000)  # states written again, as on a day
ITEMS, USERS, LISTED = 100_000, 1_000_000, 100
DAY = date(2026, 3, 1)
ADVERTISERS = "advertisers-1"


def publish(home: Home, console: Console) -> dict[int, float]:
    """Write a publication into ``home``. Returns number of states -> seconds of the write, everybody's first."""
    console.print(f"Building a catalogue of {ITEMS:,} items and its index ...")
    world = WorldSettings(initial_items=ITEMS, new_items_per_day=0, advertisers=5_000)
    items = build_catalogue(world, 0).frame(np.arange(ITEMS), 0)
    random = np.random.default_rng(0)
    people = [f"u{number:07d}" for number in range(2_000)]
    midnight = datetime.combine(DAY, datetime.min.time(), UTC)
    log = pl.DataFrame(
        {
            "user_id": np.repeat(people, 10),
            "event_time": pl.Series(np.sort(random.integers(0, 60 * 86_400, 20_000))).cast(pl.Duration("us"))
            + midnight,
            "event_name": "page_visit",
            "item_id": items["item_id"].gather(random.integers(0, ITEMS, 20_000)),
            "advertiser_id": pl.Series([None] * 20_000, dtype=pl.String),
        }
    ).sort("user_id", "event_time")
    dataset, network = untrained_model(log, items, home.models / "item-1" / DEPLOYED)
    statistics = dataset.statistics.at(dataset.log.end)
    embeddings = embed_items(network, CatalogueTensors(dataset.features), statistics)
    started = time.perf_counter()
    index = build_index(embeddings, Settings().index)
    console.print(f"  {type(index).__name__} in {time.perf_counter() - started:.0f} s")
    save_index(home.indexes / "item-1", index, dataset.features.item_ids.to_list(), model_version="item-1", day=DAY)
    home.served.mkdir(exist_ok=True)
    catalogue_frame(dataset.features.to_frame(statistics), items).write_parquet(home.served / "catalogue.parquet")
    store, publication = LmdbStore(home.online), _publication()
    users = UserKeys.of_home(home).keys(pl.Series([f"u{number:07d}" for number in range(USERS)]))
    width = network.state_width
    written = _fill(store, publication, width, users=users, items=items, midnight=midnight, console=console)
    store.switch(publication.to_bytes())
    store.close()
    return written


def _publication() -> Publication:
    return Publication(
        model_version="item-1",
        day=DAY,
        model=Path("models/item-1/deployed"),
        index=Path("indexes/item-1"),
        catalogue=Path("served/catalogue.parquet"),
        advertiser_version="1",
        precision=Settings().online.precision,
        time_zone="UTC",
        repeats_count=False,
        published_at=datetime.now(UTC),
    )


def _fill(
    store: LmdbStore,
    publication: Publication,
    width: int,
    *,
    users: pl.Series,
    items: pl.DataFrame,
    midnight: datetime,
    console: Console,
) -> dict[int, float]:
    """Fill a store with states of everybody and again of some, and lists and sequences of a tenth.

    Args:
        users: keys of the users, under which the service looks for them.

    Returns the seconds of writing states.
    """
    random, stamp = np.random.default_rng(1), stamp_of(midnight)
    states = pl.DataFrame(
        {
            "user_id": users,
            "stamp": np.full(USERS, stamp),
            "day": pl.Series([DAY]).new_from_index(0, USERS),
            "events": np.full(USERS, 10),
            "last_event_time": pl.Series([midnight], dtype=pl.Datetime("us", "UTC")).new_from_index(0, USERS),
            "state": pl.Series(random.standard_normal((USERS, width), np.float32)).cast(pl.List(pl.Float32)),
        }
    )
    os.sync()  # what was built before is not to be written meanwhile
    seconds = {DISK: _disk_seconds(store.root, USERS * (STATE_HEADER.size + 4 * width))}
    started = time.perf_counter()
    store.put(HALF_NAMESPACE, state_rows(states, Precision.float16))
    seconds[HALF] = time.perf_counter() - started
    store.clear(HALF_NAMESPACE)
    os.sync()
    for count in (USERS, *CHANGED):
        some = states if count == USERS else states.sample(count, seed=count)
        started = time.perf_counter()
        assert store.put(publication.states, state_rows(some, publication.precision)) == count
        seconds[count] = time.perf_counter() - started
    few = states.select("user_id", "stamp").gather_every(10)
    advertisers = items["advertiser_id"].drop_nulls().unique().sort()
    listed = advertisers.gather(random.integers(0, len(advertisers), LISTED * len(few)))
    lists = few.with_columns(
        advertiser_ids=listed.reshape((len(few), LISTED)).cast(pl.List(pl.String)), scores=pl.lit([0.0])
    )
    store.put(ADVERTISERS, json_rows(lists, ("advertiser_ids", "scores")))
    seen = items["item_id"].gather(random.integers(0, ITEMS, 10 * len(few))).reshape((len(few), 10))
    told = {name: seen.cast(pl.List(pl.String)) for name in ("event_id", "item_id", "advertiser_id")}
    history = few.with_columns(event_time=pl.lit([stamp] * 10), event_name=pl.lit(["page_visit"] * 10), **told)
    store.put(SEQUENCES, json_rows(history, ("event_id", "event_time", "event_name", "item_id", "advertiser_id")))
    console.print(f"  {USERS:,} states in {seconds[USERS]:.1f} s")
    return seconds


def _disk_seconds(directory: Path, size: int) -> float:
    """Measure the writing of ``size`` bytes to a file with as many waits for the disk as the store has.

    This is the floor of publishing.
    """
    block, path, started = os.urandom(2**20), directory / "floor", time.perf_counter()
    directory.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for number in range(size // len(block)):
            file.write(block)
            if number % BLOCKS_A_COMMIT == 0:
                file.flush()
                os.fdatasync(file.fileno())
        os.fdatasync(file.fileno())
    path.unlink()
    return time.perf_counter() - started
