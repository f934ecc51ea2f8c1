"""How does the cost of a day grow with its active users, with the catalogue and with the history?

One of the three grows at a time, the others stay; each step of the day is the function that its asset calls, on a log
of ``benchmarks.events``, under untrained models (weights change no time). Every user of the history has a state. The
steps of relevance are left out: they grow with a day's requests and with the labels of raters, of which this log has
none.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console

from assets.common.workspace import Workspace
from assets.steps.daily_recall import prequential
from assets.steps.encode import encode_day, index_day, write_item_embeddings
from assets.steps.item_features import features_of_day
from assets.steps.predict_advertisers import predict_day, write_embeddings
from assets.steps.publish import publish_day
from assets.steps.versions import (
    ModelKind,
    ModelVersion,
    advertiser_versions,
    item_versions,
    record_promotion,
    sequence_shape,
)
from benchmarks.events import DAY, EVENTS_A_USER, NOON, write_log
from benchmarks.report import Table
from benchmarks.stages import rows_at_hand
from benchmarks.untrained import untrained_advertiser_model, untrained_model
from settings import Settings
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.ingest.arrival import ingest
from warehouse.quality import figures_by_day, shared_event_ids
from warehouse.states import write_states
from warehouse.stored_sequences import write_sequences
from warehouse.tables import Tables, vector_column
from warehouse.world.catalogue import build_catalogue
from warehouse.world.settings import WorldSettings

STEPS = (
    "ingest",
    "quality",
    "sequences",
    "features",
    "states",
    "embeddings",
    "index",
    "advertisers",
    "publication",
    "recall",
)
ROUNDS = 3
DAY_BEFORE = DAY - timedelta(days=1)
FAR = {"active": 5_000_000, "items": 1_000_000, "history": 2_000_000_000}  # of a shop with 100 million users


@dataclass(frozen=True)
class Shape:
    """The size of a day."""

    active: int = 1_000
    items: int = 10_000
    history: int = 1_000_000  # events before the day, twenty a user


SIZES = {
    "active": (Shape(), Shape(active=4_000), Shape(active=16_000)),
    "items": (Shape(), Shape(items=30_000), Shape(items=90_000)),
    "history": (Shape(), Shape(history=3_000_000), Shape(history=9_000_000)),
}


@dataclass(frozen=True)
class Line:
    """seconds = constant + slope × size, by least squares of relative errors."""

    constant: float
    slope: float

    def at(self, size: float) -> float:
        return self.constant + self.slope * size


def run(console: Console) -> tuple[dict[Shape, dict[str, float]], Table]:
    """Measure and print."""
    costs: dict[Shape, dict[str, float]] = {}
    for shape in dict.fromkeys(shape for shapes in SIZES.values() for shape in shapes):
        console.print(f"{shape} ...", highlight=False)
        costs[shape] = measure(shape)
        console.print(f"  {', '.join(f'{step} {cost:.2f}' for step, cost in costs[shape].items())} s", highlight=False)
    table = table_of(costs)
    table.show(console)
    return costs, table


def measure(shape: Shape) -> dict[str, float]:
    """Return the seconds of each step, the median of some rounds."""
    with tempfile.TemporaryDirectory(prefix="adseq-benchmark-") as directory:
        home = Home(Path(directory)).create()
        os.environ["ADSEQ_HOME"] = str(home.root)
        workspace = Workspace.from_environment()
        version = prepare(workspace, shape)
        advertisers = live_until_the_day(workspace, version)
        rounds = []
        for _ in range(ROUNDS):  # each with a workspace of its own, as each run
            steps = steps_of_day(Workspace.from_environment(), version, advertisers)
            rounds.append([timed(step) for step in steps])
        return dict(zip(STEPS, np.median(rounds, axis=0).tolist(), strict=True))


def prepare(workspace: Workspace, shape: Shape) -> ModelVersion:
    """Ingest the history and the catalogue, land and ingest the day, and write a version of the item model to disk."""
    home, landing, tables = workspace.home, workspace.landing, workspace.tables
    world = WorldSettings(initial_items=shape.items, new_items_per_day=0, advertisers=500)
    items = build_catalogue(world, 0).frame(np.arange(shape.items), 0)
    write_log(home.landing, shape.history, items["item_id"], parts=max(1, shape.history // 4_000_000))
    landing.write(LandingTable.items, None, items)
    landing.write(LandingTable.events, DAY, events_of_day(shape, items["item_id"]))
    for table in LandingTable:
        ingest(landing, tables, table, day=None, settings=Settings().data)
        ingest(landing, tables, table, day=DAY, settings=Settings().data)
    sample = tables.scan("events").head(20_000).collect().sort("user_id", "event_time")
    version = ModelVersion(ModelKind.item, "item-1", DAY_BEFORE, "", home.models / "item-1")
    untrained_model(sample, items, version.deployed)
    return version


def live_until_the_day(workspace: Workspace, version: ModelVersion) -> ModelVersion:
    """Make the tables of the day before. Returns a version of the advertiser model."""
    advertisers = record_versions(workspace, version)
    record_promotion(workspace.tables, version.name)
    return advertisers


def record_versions(workspace: Workspace, version: ModelVersion) -> ModelVersion:
    """Put ``version`` and a new version of the advertiser model on record, with states and items of the day before.

    Returns:
        The version of the advertiser model.
    """
    home, tables = workspace.home, workspace.tables
    advertisers = ModelVersion(ModelKind.advertiser, "advertiser-1", DAY_BEFORE, "", home.models / "advertiser-1")
    untrained_advertiser_model(workspace.item_model(version.deployed), advertisers.deployed)
    for records, each in (
        (item_versions(tables, home), version),
        (advertiser_versions(tables, home), advertisers),
    ):
        records.add(each.name, DAY_BEFORE, "")
        for day in (DAY_BEFORE, DAY):
            records.record_deployment(day, each)
    _write_features(workspace, version, DAY_BEFORE)
    width = workspace.item_model(version.deployed).network.state_width
    write_states(tables, version.name, DAY_BEFORE, rows_at_hand([random_states(tables, DAY_BEFORE, width)]))
    write_item_embeddings(workspace, version, DAY_BEFORE)
    return advertisers


def random_states(tables: Tables, day: date, width: int) -> pl.DataFrame:
    """Return a state of each user with an event by ``day``: what a state says changes no time."""
    arrived = tables.scan("events").filter(pl.col("arrival_date") <= day)
    users = arrived.group_by("user_id").agg(pl.len().alias("events"), last_event_time=pl.col("event_time").max())
    frame = users.sort("user_id").collect(engine="streaming")
    states = np.random.default_rng(1).standard_normal((len(frame), width), np.float32)
    return frame.with_columns(vector_column("state", states))


def _write_features(workspace: Workspace, version: ModelVersion, day: date) -> None:
    features, statistics = features_of_day(workspace, version, day)
    frame = features.to_frame(statistics)
    workspace.tables.write("item_features", frame, {"model_version": version.name, "day": day})


def events_of_day(shape: Shape, item_ids: pl.Series) -> pl.DataFrame:
    """Return three events of each active user; each is a user of the history."""
    random = np.random.default_rng(7)
    users = np.repeat(np.arange(shape.active) % max(shape.history // EVENTS_A_USER, 10), 3)
    return pl.DataFrame(
        {
            "event_id": [f"day-{number}" for number in range(len(users))],
            "user_id": pl.Series(users).cast(pl.String),
            "event_time": pl.Series([NOON]).new_from_index(0, len(users)),
            "event_name": "page_visit",
            "item_id": item_ids.gather(random.integers(0, len(item_ids), len(users))),
        }
    ).with_columns(user_id=pl.format("user-{}", "user_id"))


def steps_of_day(
    workspace: Workspace, version: ModelVersion, advertisers: ModelVersion
) -> tuple[Callable[[], object], ...]:
    """Return the work of a day's assets, in the order of ``STEPS``."""
    landing, tables, memory_gib = workspace.landing, workspace.tables, workspace.settings.data.memory_gib

    def quality() -> None:
        figures_by_day(tables, landing, DAY, memory_gib)
        shared_event_ids(tables, DAY, memory_gib)

    def of_advertisers() -> None:
        write_embeddings(workspace, advertisers, DAY)
        predict_day(workspace, advertisers, DAY)

    return (
        lambda: ingest(landing, tables, LandingTable.events, day=DAY, settings=workspace.settings.data),
        quality,
        lambda: write_sequences(
            tables,
            landing,
            DAY,
            shape=sequence_shape(workspace, DAY),
            data=workspace.settings.data,
            engine=workspace.engine,
        ),
        lambda: _write_features(workspace, version, DAY),
        lambda: encode_day(workspace, version, DAY),
        lambda: write_item_embeddings(workspace, version, DAY),
        lambda: index_day(workspace, version, DAY),
        of_advertisers,
        lambda: publish_day(workspace, version, DAY, version.name),
        lambda: prequential(workspace, DAY, {}),
    )


def timed(work: Callable[[], object]) -> float:
    """Return the seconds of ``work``."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def fitted(sizes: list[float], seconds: list[float]) -> Line:
    """Return the line through the points.

    Each point is weighted by its cost, so small sizes count as much as large ones.
    """
    weights = 1 / np.maximum(seconds, 1e-3)
    slope, constant = np.polyfit(sizes, seconds, deg=1, w=weights)
    return Line(float(constant), float(slope))


def table_of(costs: dict[Shape, dict[str, float]]) -> Table:
    """Return one row a size, the line of each dimension, and the estimate for a hundred million users."""
    rows, far = [], dict(costs[Shape()])
    for name, shapes in SIZES.items():
        for shape in shapes:
            seconds = [costs[shape][step] for step in STEPS]
            rows.append(_row(f"{getattr(shape, name):,} {_LABELS[name]}", seconds))
        sizes = [float(getattr(shape, name)) for shape in shapes]
        lines = {step: fitted(sizes, [costs[shape][step] for shape in shapes]) for step in STEPS}
        rows.append(_row(f"… by the line: a million {_LABELS[name]} more", [lines[step].slope * 1e6 for step in STEPS]))
        for step in STEPS:
            far[step] += max(0.0, lines[step].slope) * (FAR[name] - getattr(Shape(), name))
    features = fitted(
        [float(shape.history) for shape in SIZES["history"]], [costs[shape]["features"] for shape in SIZES["history"]]
    )
    rows.append(_row("100 M users, by the lines", list(far.values())))
    given = ", ".join(f"{size:,} {_LABELS[name]}" for name, size in FAR.items())
    return Table(
        "What a day costs, in seconds",
        ("", *STEPS, "together"),
        tuple(rows),
        (
            f"Unless a row says otherwise: {_described(Shape())}. Median of {ROUNDS} rounds of the same day; lines by "
            "least squares of the relative errors.",
            f"100 M users: {given}; that is twenty events a user, one in twenty active. Slopes below "
            "zero count as zero.",
            "Every user of the history has a state. Advertisers: their embeddings, and the lists of active users. The "
            "first round fills the online store; the median is that of a day that adds to it.",
        ),
        {"item features of a day, seconds a million events of history": f"{features.slope * 1e6:.2f}"},
    )


def _row(label: str, seconds: list[float]) -> tuple[str, ...]:
    return (label, *(f"{each:,.2f}" for each in seconds), f"{sum(seconds):,.2f}")


_LABELS = {"active": "active users", "items": "items", "history": "events before the day"}


def _described(shape: Shape) -> str:
    return ", ".join(f"{getattr(shape, name):,} {label}" for name, label in _LABELS.items())
