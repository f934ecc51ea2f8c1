"""The labelling queue as the service and the command read it, with the judgements that came in since it was made.

The raters of earlier days are in the queue: ``rater_ids``. Later judgements lie in the landing zone, in the files of
the processes that took them; a reader goes on where the last reading ended, whichever process wrote the lines.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from pydantic import BaseModel, ValidationError

from warehouse.contracts import LandingTable
from warehouse.delta_log import LOG
from warehouse.landing import Landing, day_of_folder
from warehouse.live_rows import LIVE_FILES
from warehouse.tables import Tables

logger = logging.getLogger(__name__)
LABELLING_QUEUE = "labelling_queue"
GUIDELINES = "guidelines-1"
"""The version of the written guidelines that raters have now: ``template`` of their labels."""


class Pair(NamedTuple):
    """What tells a pair of a subject item or a query with a candidate apart."""

    surface: str
    subject_item_id: str | None
    query: str | None
    item_id: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Pair:
        return cls(row["surface"], row.get("subject_item_id"), row.get("query"), row["item_id"])


class Judgement(NamedTuple):
    """The newest label of a rater for a pair. Of an earlier day than the queue only the rater is known: label 0."""

    labelled_at: str
    label: int


class LabelLine(BaseModel):
    """What the queue reads of a line of the landing table."""

    surface: str
    subject_item_id: str | None = None
    query: str | None = None
    item_id: str
    rater_id: str
    label: int
    labelled_at: str

    @property
    def pair(self) -> Pair:
        return Pair(self.surface, self.subject_item_id, self.query, self.item_id)


@dataclass(frozen=True)
class QueuedPair:
    """A pair of the queue, with its row in the table and the judgements by rater."""

    row: dict[str, Any]
    judgements: dict[str, Judgement]

    def lacks(self, rater_id: str, raters_per_pair: int) -> bool:
        """Return whether this rater may judge the pair: not done, and not judged by the rater."""
        return len(self.judgements) < raters_per_pair and rater_id not in self.judgements


@dataclass(frozen=True)
class Queue:
    """The newest queue.

    Attributes:
        day: the day after which the queue was made.
        pairs: in the order in which raters get them.
    """

    day: date
    pairs: dict[Pair, QueuedPair]

    @classmethod
    def of(cls, day: date, rows: pl.DataFrame) -> Queue:
        """Return the queue of the rows of a partition of the table."""
        pairs = {}
        for row in rows.sort("position").iter_rows(named=True):
            pairs[Pair.of(row)] = QueuedPair(row, {rater: Judgement("", 0) for rater in row["rater_ids"]})
        return cls(day, pairs)

    def of_rater(self, rater_id: str, raters_per_pair: int) -> list[QueuedPair]:
        """Return the pairs that a rater gets, in order."""
        return [pair for pair in self.pairs.values() if pair.lacks(rater_id, raters_per_pair)]

    def judged_by(self, rater_id: str) -> int:
        """Return how many pairs of the queue a rater has judged."""
        return sum(rater_id in pair.judgements for pair in self.pairs.values())


@dataclass
class Labelling:
    """The newest queue of a home and its judgements. Both are read again when they have changed.

    ``current`` may be called from several threads; what it returns changes with later calls.
    """

    tables: Tables
    landing: Landing
    _queue: Queue | None = None
    _changed: int = -1
    _ends: dict[Path, tuple[int, int]] = field(default_factory=dict)  # inode, bytes that were read
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def current(self) -> Queue | None:
        """Return the newest queue with all judgements that are on the disk; None where no day has made one with a pair.

        Raises:
            TableDamaged: the log of the table cannot be read.
        """
        with self._reading:
            self._read_queue()
            if self._queue is not None:
                for label in self._new_labels(self._queue.day):
                    _add(self._queue, label)
            return self._queue

    def earlier(self, pair: Pair) -> dict[str, Any] | None:
        """Return the newest row of a pair in the queues of all days; None for a pair that no queue has.

        A rater may have got the pair before a new day made the newest queue.
        """
        if not self.tables.exists(LABELLING_QUEUE):
            return None
        conditions = [pl.col(name).eq_missing(value) for name, value in pair._asdict().items()]
        found = self.tables.scan(LABELLING_QUEUE).filter(*conditions).sort("day").tail(1).collect()
        return found.row(0, named=True) if found.height else None

    def _read_queue(self) -> None:
        try:
            changed = (self.tables.path(LABELLING_QUEUE) / LOG).stat().st_mtime_ns
        except FileNotFoundError:
            self._queue = None
            return
        if changed == self._changed:
            return
        days = self.tables.days(LABELLING_QUEUE, "day")
        self._queue = Queue.of(days[-1], self.tables.read(LABELLING_QUEUE, {"day": days[-1]})) if days else None
        self._changed = changed
        self._ends.clear()

    def _new_labels(self, since: date) -> Iterator[LabelLine]:
        """Yield the labels that came in live on ``since`` or later and were not read before."""
        folders = (self.landing.root / LandingTable.relevance_labels).glob("date=*")
        for folder in sorted(folders):
            day = day_of_folder(folder.name)
            if day is not None and day >= since:
                for path in sorted(folder.glob(LIVE_FILES)):
                    yield from self._new_lines(path)

    def _new_lines(self, path: Path) -> Iterator[LabelLine]:
        """Yield the whole lines behind those that were read before. A file that was replaced is read from its start.

        A damaged line is skipped. The log says how many there are, and nothing of what they hold.
        """
        inode, start = self._ends.get(path, (0, 0))
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                start = start if found.st_ino == inode and found.st_size >= start else 0
                file.seek(start)
                whole, end, _ = file.read().rpartition(b"\n")  # what follows is a line that is being written
        except FileNotFoundError:
            return
        self._ends[path] = found.st_ino, start + len(whole) + len(end)
        damaged = 0
        for line in whole.splitlines():
            try:
                label = LabelLine.model_validate_json(line)
            except ValidationError:
                damaged += 1
            else:
                yield label
        if damaged:
            logger.warning("%s: %d damaged lines are no labels and were skipped", path, damaged)


def _add(queue: Queue, label: LabelLine) -> None:
    """Add a label to its pair, unless a newer one of the rater is there."""
    pair = queue.pairs.get(label.pair)
    judgement = Judgement(label.labelled_at, label.label)
    if pair is not None:
        pair.judgements[label.rater_id] = max(judgement, pair.judgements.get(label.rater_id, judgement))


def why_no_queue(tables: Tables) -> str:
    """Return why a home has no pair to judge, and what to do."""
    if tables.exists(LABELLING_QUEUE):
        return (
            "the labelling queue is empty: a day's queue is made of its logged candidates (impressions or "
            "funnel_sample) beside a subject item or a query, and of the pairs in feedback"
        )
    return "there is no labelling queue yet: run a day (adseq run), which materializes labelling_queue"
