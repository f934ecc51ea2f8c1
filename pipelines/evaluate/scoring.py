"""What a fixed split's answers are worth, by the rules of the scoring folder's ``score.py``, which must agree."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.intervals import Interval, paired_difference
from ml.evaluation.item_report import advertiser_codes
from ml.evaluation.metrics import Metrics, evaluate
from ml.evaluation.queries import EvaluationSet, positions
from ml.examples.period import TrainingPeriod
from ml.features.event_log import row_numbers
from ml.retrieval.lists import Ragged, RankedLists
from pipelines.cli.errors import RunRefused
from pipelines.evaluate.split import Split

KS = (10, 50, 100)
SCORED_DEPTH = max(KS)


class Catalogue(StrEnum):
    """Which of the split's items are candidates."""

    warm = "warm"  # seen in training
    full = "full"


@dataclass(frozen=True)
class Scoring:
    """The split's side of every figure; items are rows of its candidates."""

    positives: Ragged
    advertisers: NDArray[np.int64]  # [candidates] code, -1 = unknown
    warm: NDArray[np.bool_]  # [candidates]

    @classmethod
    def of(cls, split: Split, asked: EvaluationSet, period: TrainingPeriod, minimum_train_events: int) -> Scoring:
        """Return the scoring of the targets with at least ``minimum_train_events`` events in the split's training part.

        Raises:
            RunRefused: no target has that many events.
        """
        queries = asked.queries
        item_ids = asked.dataset.features.item_ids.gather(queries.candidates)
        warm = np.zeros(len(item_ids), bool)
        warm[row_numbers(item_ids, split.catalogue["item_id"])] = split.catalogue["warm"].to_numpy()
        events = np.bincount(_rows(item_ids, split.train["item_id"]), minlength=len(item_ids))
        wanted = queries.positives.items
        positives = queries.positives.where((wanted >= 0) & (events[np.maximum(wanted, 0)] >= minimum_train_events))
        if not len(positives.items):
            raise RunRefused(
                f"--min-train-events {minimum_train_events}: no target of {split.name} has that many training events."
            )
        return cls(positives, advertiser_codes(period.items)[queries.candidates], warm)

    def kept(self, catalogue: Catalogue) -> NDArray[np.bool_]:
        """Return which candidates [candidates] are in a catalogue."""
        return self.warm if catalogue is Catalogue.warm else np.ones_like(self.warm)

    def is_too_short(self, lists: RankedLists, depth: int) -> bool:
        """Whether a list that was cut at ``depth`` holds fewer warm items than are scored.

        With every cold item and as many warm ones as are scored no list is too short.
        """
        if depth >= SCORED_DEPTH + int((~self.warm).sum()):
            return False
        cut = (lists.items >= 0).sum(axis=1) >= depth
        warm = (self.warm[np.maximum(lists.items, 0)] & (lists.items >= 0)).sum(axis=1)
        return bool((cut & (warm < min(SCORED_DEPTH, int(self.warm.sum())))).any())

    def measure(self, lists: RankedLists, catalogue: Catalogue) -> Metrics:
        """Return every figure of one model's lists."""
        kept = self.kept(catalogue)
        scored, wanted = within(lists, self.positives, kept, SCORED_DEPTH)
        return evaluate(
            scored, wanted, int(kept.sum()), advertisers=self.advertisers[kept], ks=KS
        )  # the protocol's, however few items

    def difference(self, first: RankedLists, second: RankedLists, k: int, samples: int) -> Interval:
        """Return Recall@K of ``first`` minus Recall@K of ``second``, with a paired bootstrap over queries.

        The catalogue is the warm one.
        """
        one, wanted = within(first, self.positives, self.warm, SCORED_DEPTH)
        other, _ = within(second, self.positives, self.warm, SCORED_DEPTH)
        return paired_difference(one, other, wanted, k=k, samples=samples)


def within(lists: RankedLists, positives: Ragged, kept: NDArray[np.bool_], depth: int) -> tuple[RankedLists, Ragged]:
    """Return lists and positives restricted to a part of the catalogue, in the row numbers of that part.

    Items outside ``kept`` [items] leave the lists and the rest moves up, before the lists are cut at ``depth``;
    positives outside ``kept`` are left out.

    Without item 1, item 2 becomes row 1:

    >>> lists = RankedLists.from_rows([[1, 2, 0]], depth=3)
    >>> kept = np.array([True, False, True])
    >>> moved, wanted = within(lists, Ragged.from_pairs([0, 0], [1, 2], queries=1), kept, depth=2)
    >>> moved.items.tolist(), wanted.items.tolist()
    ([[1, 0]], [1])
    """
    position = positions(np.flatnonzero(kept), len(kept))
    inside = (lists.items >= 0) & kept[np.maximum(lists.items, 0)]
    order = np.argsort(~inside, axis=1, kind="stable")[:, :depth]
    moved = np.take_along_axis(np.where(inside, position[np.maximum(lists.items, 0)], -1), order, axis=1)
    scores = np.where(moved >= 0, np.take_along_axis(lists.scores, order, axis=1), -np.inf).astype(np.float32)
    wanted = Ragged(positives.offsets, np.where(positives.items >= 0, position[np.maximum(positives.items, 0)], -1))
    return RankedLists(moved, scores), wanted.where(wanted.items >= 0)


def _rows(item_ids: pl.Series, wanted: pl.Series) -> NDArray[np.int64]:
    """Return the rows of the wanted items that are candidates."""
    rows = row_numbers(item_ids, wanted)
    return rows[rows >= 0]
