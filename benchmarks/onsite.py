"""Do clicks and conversions of ads in the sequences help users of whom little else is known?

``python -m benchmarks.onsite --world 0 --seed 0`` writes the synthetic world, trains two models until its newest window
under the settings of the demo, on sequences with onsite events and without them, and asks both for the same users: all
with an event of either kind before the window. Where a user has no event for a model, popularity answers, as it does in
the service. Two measures of Recall@10:

* ``converted``: on the conversions of the window.
* ``expected``: on the conversions that the world's truth expects of the window: each item counts with the probability
  that the user converts with it, over simulated futures. Few users with few events convert within a window, and all of
  them have an expectation.

Target: users with fewer than five offsite events gain 10 %, and the others lose nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console

from assets.common.workspace import Workspace
from assets.steps.period import training_day, training_period
from benchmarks.report import Table
from benchmarks.world import INGESTED
from ml.evaluation.intervals import confidence_interval, paired_difference
from ml.evaluation.model_lists import baseline_lists, trained_lists
from ml.evaluation.model_names import ModelName
from ml.evaluation.queries import EvaluationSet, Queries, positions, seen_items, with_log
from ml.examples.context import no_context
from ml.examples.pairs import examples_at
from ml.examples.period import TrainingPeriod, prepare, whole_log
from ml.features.dataset import Dataset
from ml.features.event_log import EventLog, row_numbers
from ml.features.items import MAXIMUM_INTERESTS
from ml.retrieval.lists import Ragged, RankedLists
from ml.training.fit import fit
from ml.training.item_task import ItemTask
from pipelines.cli.demo import DEMO_SETTINGS
from settings import Settings
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.identity import external_ids
from warehouse.ingest.arrival import ingest
from warehouse.world import WorldSettings, write_world
from warehouse.world.oracle import know, positive_probabilities

FEW = 5
K = 10
USERS_A_BLOCK = 200
SAMPLES = 400


@dataclass(frozen=True)
class People:
    """The users with an event of either kind before the window: numbers of their events, and their conversions in it.

    Attributes:
        expected: [users, catalogue] probability that the user converts with the item in the window.
    """

    user_ids: pl.Series
    offsite: NDArray[np.int64]
    onsite: NDArray[np.int64]
    converted: tuple[NDArray[np.int64], NDArray[np.int64]]  # pairs (user, catalogue row)
    expected: NDArray[np.float32]

    @property
    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """Return who is in each row of the table [users]."""
        few, clicked = self.offsite < FEW, self.onsite > 0
        return {
            f"fewer than {FEW}": few,
            "of these, with clicks": few & clicked,
            "of these, with nothing else": self.offsite == 0,
            "of these, without clicks": few & ~clicked,
            f"{FEW} or more": ~few,
            "of these with clicks": ~few & clicked,
            "of these without clicks": ~few & ~clicked,
        }


@contextmanager
def written(seed: int) -> Iterator[Workspace]:
    """Write and ingest a world in a temporary home, which is removed afterwards; settings are those of the demo."""
    for name in [name for name in os.environ if name.startswith("ADSEQ_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="adseq-benchmark-") as directory:
        home = Home(Path(directory)).create()
        os.environ |= {"ADSEQ_HOME": str(home.root), **DEMO_SETTINGS}
        workspace = Workspace(Settings())
        write_world(workspace.landing, WorldSettings(seed=seed), days=1)
        for table in (*INGESTED, LandingTable.impressions):
            ingest(workspace.landing, workspace.tables, table, day=None, settings=workspace.settings.data)
        yield workspace


def period_of(workspace: Workspace, onsite: bool) -> TrainingPeriod:
    """Return the training period with onsite events or without them."""
    landing = workspace.landing
    landing.write_manifest(landing.manifest.model_copy(update={"onsite_events": onsite}))
    return training_period(workspace, training_day(workspace.tables))


def people_of(workspace: Workspace, period: TrainingPeriod, world: WorldSettings, futures: int) -> People:
    """Return the users of a period with onsite events, as of the beginning of its last window."""
    log, cutoff = whole_log(period, workspace.settings), period.end - period.window
    until = log.known_until(cutoff)
    users = np.flatnonzero(until > log.offsets[:-1])
    onsite = np.zeros(log.events, bool) if log.onsite is None else log.onsite
    before = np.concatenate(([0], np.cumsum(onsite)))
    clicks = (before[until] - before[log.offsets[:-1]])[users]
    found = examples_at(log, cutoff, period.rule, period.event_names)
    last = training_day(workspace.tables) - timedelta(days=int(period.rule.window_days))
    ids = log.user_ids.gather(users)
    return People(
        user_ids=ids,
        offsite=(until - log.offsets[:-1])[users] - clicks,
        onsite=clicks,
        converted=(np.searchsorted(users, found.user), found.item),
        expected=_expected(workspace, world, last, users=ids, items=period.items["item_id"].sort(), futures=futures),
    )


def _expected(
    workspace: Workspace, world: WorldSettings, last: date, *, users: pl.Series, items: pl.Series, futures: int
) -> NDArray[np.float32]:
    days = workspace.landing.manifest.prediction_window_days
    knowledge = know(world, last, external_ids(workspace.tables, users).to_list(), days)
    column = row_numbers(knowledge.world.catalogue.items.ids, items)
    blocks = []
    for first in range(0, len(users), USERS_A_BLOCK):
        rows = np.arange(first, min(first + USERS_A_BLOCK, len(users)))
        probability = positive_probabilities(knowledge, rows, days, futures=futures)
        probability[knowledge.seen[rows]] = 0  # repeats do not count
        blocks.append(probability[:, column].astype(np.float32))
    return np.concatenate(blocks)


def asked_of(people: People, known: Dataset, log: EventLog, *, cutoff: float, recent_days: float) -> EvaluationSet:
    """Ask for all people on the home feed. ``log`` reaches beyond the data that the model has learnt from."""
    row = log.user_rows(people.user_ids)
    end = np.where(row >= 0, log.known_until(cutoff)[row], 0)
    row = np.where(end > log.offsets[row], row, -1)
    with_history = np.flatnonzero(row >= 0)
    candidates = np.flatnonzero(known.statistics.listed(cutoff))
    position = positions(candidates, len(known.features))
    own = seen_items(log, row[with_history], end[with_history], position)
    user, item = people.converted
    queries = Queries(
        user=row,
        history_end=end,
        context=no_context(len(row), MAXIMUM_INTERESTS),
        positives=Ragged.from_pairs(user[position[item] >= 0], position[item][position[item] >= 0], len(row)),
        exclude=Ragged.from_pairs(with_history[own.query_rows], own.items, len(row)),
        candidates=candidates,
        as_of=cutoff,
    )
    return EvaluationSet(with_log(known, log), queries, known.log, recent_days)


def answers(people: People, period: TrainingPeriod, settings: Settings) -> tuple[EvaluationSet, RankedLists]:
    """Train until the last window, and answer for all people: by popularity where the model has no event."""
    cutoff = period.end - period.window
    earlier = period.until(cutoff)
    prepared = prepare(earlier, settings)
    with tempfile.TemporaryDirectory(prefix="adseq-benchmark-") as directory:
        fitted = fit(ItemTask.of(earlier, prepared, settings), settings.training.epochs, Path(directory))
    log = whole_log(period, settings)
    asked = asked_of(people, prepared.dataset, log, cutoff=cutoff, recent_days=period.rule.window_days)
    ranked = trained_lists(fitted.network, asked, settings, K)
    popular = baseline_lists(ModelName.recent_popularity, asked, K)
    unknown = (asked.queries.user < 0)[:, None]
    return asked, RankedLists(
        np.where(unknown, popular.items, ranked.items), np.where(unknown, popular.scores, ranked.scores)
    )


def table_of(
    people: People, without: tuple[EvaluationSet, RankedLists], within: tuple[EvaluationSet, RankedLists]
) -> Table:
    """Return a row a group of users: both models by both measures."""
    queries = without[0].queries
    gained = [_expected_hits(people, queries, lists) for _, lists in (without, within)]
    possible = people.expected[:, queries.candidates].sum(axis=1)
    rows = []
    for name, group in people.groups.items():
        chosen = np.flatnonzero(group)
        first, second = (RankedLists(each.items[chosen], each.scores[chosen]) for _, each in (without, within))
        positives = queries.positives.take(chosen)
        hits, converted = np.array([each[chosen] for each in gained]), ("", "", "")
        if len(positives.items):
            recalls = [confidence_interval(each, positives, K, samples=0).estimate for each in (first, second)]
            gain = paired_difference(second, first, positives, k=K)
            converted = (
                f"{len(positives.items):,}",
                f"{recalls[0]:.4f} → {recalls[1]:.4f}",
                f"{gain.estimate:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]",
            )
        before, after = hits.sum(axis=1) / possible[chosen].sum()
        low, high = _ratio_bounds(hits)
        rows.append(
            (
                name,
                f"{len(chosen):,}",
                *converted,
                f"{before:.4f} → {after:.4f}",
                f"{after / before - 1:+.1%} [{low - 1:+.1%}, {high - 1:+.1%}]",
            )
        )
    columns = ("offsite events", "users", "conversions", "converted", "difference", "expected", "gain")
    return Table(f"Recall@{K} without onsite events → with them", columns, tuple(rows), ())


def _expected_hits(people: People, queries: Queries, lists: RankedLists) -> NDArray[np.float64]:
    """Return how many of the first ``K`` items each user is expected to convert with [users]."""
    items = lists.items[:, :K]
    column = queries.candidates[np.maximum(items, 0)]
    probability = np.take_along_axis(people.expected, column, axis=1).astype(np.float64)
    hits: NDArray[np.float64] = np.where(items >= 0, probability, 0.0).sum(axis=1)
    return hits


def _ratio_bounds(hits: NDArray[np.float64]) -> tuple[float, float]:
    """Return bounds of the second model's hits over the first's: a bootstrap over users [2, users]."""
    random, users = np.random.default_rng(0), hits.shape[1]
    drawn = [hits[:, random.integers(0, users, users)].sum(axis=1) for _ in range(SAMPLES)]
    low, high = np.quantile([after / before for before, after in drawn], [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=int, default=0, help="seed of the world")
    parser.add_argument("--seed", type=int, default=0, help="seed of the trainings")
    parser.add_argument("--futures", type=int, default=200)
    given = parser.parse_args()
    with written(given.world) as workspace:
        settings = workspace.settings.with_value("training.seed", given.seed)
        within = period_of(workspace, onsite=True)
        people = people_of(workspace, within, WorldSettings(seed=given.world), given.futures)
        found = [answers(people, period, settings) for period in (period_of(workspace, onsite=False), within)]
    table = table_of(people, *found)
    replace(table, title=f"{table.title}, world {given.world}, seed {given.seed}").show(Console(width=170))


if __name__ == "__main__":
    main()
