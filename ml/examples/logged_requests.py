"""Examples of real context: requests of the log with a subject item or a search query, and the ads that were shown.

An ad that was shown has survived relevance, ranking and auction. So such an example tells what fits the subject or the
query and what survives, and a log that has enough requests beside an item needs no synthetic context.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.examples.pairs import Examples
from ml.features.dataset import Dataset
from ml.features.event_log import row_numbers, to_seconds
from ml.features.items import DAY

SURVIVED = ("impressed", "clicked", "converted")
SHOWN = 0
"""The code of the event name of a positive that was shown: no event name has it."""
CUTOFF_DAYS = 7
"""The requests of so many days share a cut-off: a batch is drawn from one cut-off, and a day has few requests. Where
the window of conversions is shorter, the days of that window share one."""

REQUEST_COLUMNS = ("request_id", "user_id", "request_time", "subject_item_id", "query", "surface", "item_id")


def shown_in_context(impressions: pl.LazyFrame) -> pl.LazyFrame:
    """Return the impressions beside a subject item or for a search query that a user has seen.

    Returns:
        ``REQUEST_COLUMNS`` and stage, one row a shown item, by time.
    """
    has_context = pl.col("subject_item_id").is_not_null() | pl.col("query").is_not_null()
    is_another_item = pl.col("item_id").ne_missing(pl.col("subject_item_id"))
    return (
        impressions.filter(pl.col("stage").is_in(SURVIVED) & has_context & is_another_item)
        .select(*REQUEST_COLUMNS, "stage")
        .sort("request_time", "request_id", "item_id", "stage")
        .unique(["request_id", "item_id"], keep="first", maintain_order=True)
    )


@dataclass(frozen=True)
class RequestExamples:
    """Examples of shown items, and what their requests carried."""

    examples: Examples
    subject: NDArray[np.int64]  # [examples] catalogue row, -1 for a search
    query: pl.Series  # [examples] what was typed, null beside a subject

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, rows: NDArray[np.int64]) -> RequestExamples:
        return RequestExamples(self.examples.take(rows), self.subject[rows], self.query.gather(rows))


def request_examples(
    requests: pl.DataFrame, dataset: Dataset, end: float, *, step_days: float, maximum: int, seed: int
) -> RequestExamples:
    """Return an example for each shown item.

    The history ends at the midnight before the request, as a stored state does. The requests of ``step_days``
    days share a cut-off, at or before these midnights. A user without a history, and an item or a subject outside the
    catalogue, make no example. A query counts where there is no subject.

    Args:
        requests: ``REQUEST_COLUMNS``, before ``end``. dataset: known at ``end``. end: seconds, the end of a day.
        maximum: at most so many examples, of a seeded sample of the requests.
    """
    log, ids = dataset.log, dataset.features.item_ids
    midnight = day_starts(to_seconds(requests["request_time"]), end)
    user = log.user_rows(requests["user_id"])
    item, subject = row_numbers(ids, requests["item_id"]), row_numbers(ids, requests["subject_item_id"])
    query = requests["query"].set(requests["subject_item_id"].is_not_null(), None)
    history_end = _known_until(dataset, user, midnight)
    in_context = (subject >= 0) | query.is_not_null().to_numpy()
    rows = np.flatnonzero((item >= 0) & in_context & (history_end > log.offsets[user]))
    rows = _some_requests(rows, requests["request_id"], maximum, seed)
    cutoff = end - np.ceil((end - midnight) / (step_days * DAY)) * step_days * DAY
    words = query.rank("dense").fill_null(0).to_numpy()
    rows = rows[np.lexsort((words[rows], subject[rows], item[rows], history_end[rows], user[rows], cutoff[rows]))]
    examples = Examples(
        cutoff=cutoff[rows],
        user=user[rows],
        history_end=history_end[rows],
        item=item[rows],
        weight=np.ones(len(rows), np.float32),
        name=np.full(len(rows), SHOWN),
    )
    return RequestExamples(examples, subject[rows], query.gather(rows))


def repeated(rows: int, wanted: int, seed: int) -> NDArray[np.int64]:
    """Return ``wanted`` of ``rows`` row numbers, each as often as any other, or once more.

    >>> np.bincount(repeated(3, 7, seed=0)).tolist()
    [2, 2, 3]
    """
    remainder = np.random.default_rng(seed).permutation(rows)[: wanted % rows]
    return np.concatenate([np.tile(np.arange(rows), wanted // rows), remainder])


def day_starts(seconds: NDArray[np.float64], end: float) -> NDArray[np.float64]:
    """Return the midnight before each instant, given the end of some day (all days are 24 hours from that end)."""
    return end - np.ceil((end - seconds) / DAY) * DAY


def _known_until(dataset: Dataset, user: NDArray[np.int64], instants: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the flat position behind each user's last event before the instant; 0 for an unknown user (-1)."""
    found = np.zeros(len(user), np.int64)
    for instant in np.unique(instants):
        rows = np.flatnonzero((instants == instant) & (user >= 0))
        found[rows] = dataset.log.known_until(float(instant))[user[rows]]
    return found


def _some_requests(rows: NDArray[np.int64], request_ids: pl.Series, maximum: int, seed: int) -> NDArray[np.int64]:
    """Return the rows of a uniform sample of the requests, with at most ``maximum`` rows."""
    if len(rows) <= maximum:
        return rows
    request = request_ids.gather(rows).rank("dense").to_numpy().astype(np.int64) - 1
    counts = np.bincount(request)
    order = np.random.default_rng(seed).permutation(len(counts))
    kept = np.zeros(len(counts), bool)
    kept[order[np.cumsum(counts[order]) <= maximum]] = True
    return rows[kept[request]]
