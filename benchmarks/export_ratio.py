"""Everybody's lists in a file against FAISS alone, which searches the same embeddings with as many threads."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import faiss
import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console

from assets.common.workspace import Workspace
from assets.steps.encode import HomeFeed, read_item_embeddings, write_item_embeddings
from assets.steps.item_features import features_of_day
from assets.steps.versions import ModelVersion, item_versions
from benchmarks.events import DAY, EVENTS_A_USER, NOON
from benchmarks.growth import Shape, prepare
from benchmarks.report import Table, at_most
from benchmarks.stages import rows_at_hand
from ml.retrieval.index import build_index
from ml.retrieval.index_files import save_index
from pipelines.cli.export import export_candidates
from settings import IndexKind, IndexSettings, Settings
from warehouse.home import Home
from warehouse.online import LmdbStore
from warehouse.online.publication import Publication
from warehouse.states import snapshot_batches, write_states
from warehouse.tables import vector_column

ITEMS, USERS, COUNT, ROUNDS = 100_000, 50_000, 100, 3
BATCH_USERS = 10_000


@dataclass(frozen=True)
class Cost:
    """Seconds of a piece of work, on the clock and of all threads."""

    seconds: float
    cpu: float


def run(console: Console) -> tuple[list[tuple[Cost, Cost]], Table]:
    """Measure and print. Each round has the costs of the search alone and of the export."""
    with tempfile.TemporaryDirectory(prefix="adseq-benchmark-") as directory:
        home = Home(Path(directory) / "home").create()
        os.environ["ADSEQ_HOME"] = str(home.root)
        workspace = Workspace.from_environment()
        console.print(f"A home of {USERS:,} users and {ITEMS:,} items ...", highlight=False)
        version = publish(workspace)
        users, items = embeddings_of(workspace, version)
        rounds = []
        for _ in range(ROUNDS):
            searched = cost(lambda: search_alone(users, items))
            exported = cost(
                lambda: export_candidates(workspace, Path(directory) / "lists.parquet", COUNT, Console(quiet=True))
            )
            rounds.append((searched, exported))
            console.print(f"  search {searched}, export {exported}", highlight=False)
    table = table_of(rounds)
    table.show(console)
    return rounds, table


def publish(workspace: Workspace) -> ModelVersion:
    """Fill the home with a log, an untrained version, states of everybody and an exact index; switch to the version."""
    home, tables = workspace.home, workspace.tables
    version = prepare(workspace, Shape(items=ITEMS, history=USERS * EVENTS_A_USER))
    item_versions(tables, home).add(version.name, version.trained_day, version.run_id)
    people = tables.scan("events").select("user_id").unique().sort("user_id").collect()
    width = workspace.item_model(version.deployed).network.state_width
    write_states(tables, version.name, DAY, rows_at_hand(random_states(people, width)))
    features, statistics = features_of_day(workspace, version, DAY)
    tables.write("item_features", features.to_frame(statistics), {"model_version": version.name, "day": DAY})
    write_item_embeddings(workspace, version, DAY)
    ids, embeddings = read_item_embeddings(tables, version, DAY)
    index = home.indexes / version.name / DAY.isoformat()
    built = build_index(embeddings, IndexSettings(kind=IndexKind.exact))
    save_index(index, built, ids.to_list(), model_version=version.name, day=DAY)
    point_to(home, version, DAY)
    return version


def point_to(home: Home, version: ModelVersion, day: date, advertisers: str | None = None) -> None:
    """Name a version as of a day as the one that the service serves."""
    publication = Publication(
        model_version=version.name,
        day=day,
        model=version.deployed.relative_to(home.root),
        index=(home.indexes / version.name / day.isoformat()).relative_to(home.root),
        catalogue=Path("served/catalogue.parquet"),
        advertiser_version=advertisers,
        precision=Settings().online.precision,
        time_zone="UTC",
        repeats_count=False,
        published_at=datetime.now(UTC),
    )
    store = LmdbStore(home.online)
    store.switch(publication.to_bytes())
    store.close()


def random_states(people: pl.DataFrame, width: int) -> list[pl.DataFrame]:
    """Return states of no meaning, for the users of ``people``."""
    random = np.random.default_rng(0)
    return [
        some.with_columns(
            vector_column("state", random.standard_normal((len(some), width), np.float32)),
            events=pl.lit(EVENTS_A_USER, pl.Int64),
            last_event_time=pl.lit(NOON),
        )
        for some in people.iter_slices(BATCH_USERS)
    ]


def embeddings_of(workspace: Workspace, version: ModelVersion) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the embeddings of all users [users, width] and of all items [items, width]."""
    feed = HomeFeed.of(workspace, version, DAY)
    states = snapshot_batches(workspace.tables, version.name, DAY)
    users = np.concatenate([feed.embeddings(each) for each in states])
    return users, read_item_embeddings(workspace.tables, version, DAY)[1]


def search_alone(users: NDArray[np.float32], items: NDArray[np.float32]) -> None:
    """Search as a FAISS user does."""
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    for begin in range(0, len(users), BATCH_USERS):
        index.search(users[begin : begin + BATCH_USERS], COUNT)


def cost(work: Callable[[], object]) -> Cost:
    """Return the cost of a piece of work."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - clock, time.process_time() - cpu)


def table_of(rounds: list[tuple[Cost, Cost]]) -> Table:
    """Return the medians, and the export over the search."""
    searched, exported = (
        Cost(*(float(np.median([getattr(each[side], name) for each in rounds])) for name in ("seconds", "cpu")))
        for side in (0, 1)
    )
    return Table(
        f"The {COUNT} best items of {USERS:,} users among {ITEMS:,}",
        ("what", "seconds", "CPU seconds", "target"),
        (
            ("`faiss.IndexFlatIP.search` alone", f"{searched.seconds:.1f}", f"{searched.cpu:.1f}", ""),
            ("`adseq export candidates`", f"{exported.seconds:.1f}", f"{exported.cpu:.1f}", ""),
            (
                "the export over the search",
                f"{exported.seconds / searched.seconds:.2f} ×",
                f"{exported.cpu / searched.cpu:.2f} ×",
                at_most(exported.seconds / searched.seconds, 1.3, " ×"),
            ),
        ),
        (
            "The export reads states, runs the head, leaves out the items of each history, and writes "
            f"{USERS * COUNT:,} rows to a Parquet file. Median of {ROUNDS} rounds that alternate; random states.",
        ),
        {"export of all users' lists, of FAISS alone": f"{exported.seconds / searched.seconds:.2f} ×"},
    )
