"""What raters get next, and what becomes of their judgements: new, corrections, or known already."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from serving.label_contracts import (
    Label,
    LabelsRequest,
    LabelsResponse,
    NextPairRequest,
    NextPairResponse,
    QueuedCandidate,
    ShownItem,
)
from warehouse.contracts import LandingTable
from warehouse.live_rows import LiveRows
from warehouse.queued_pairs import Labelling, Pair, Queue, QueuedPair, why_no_queue

HELD_SECONDS = 300.0
"""A rater who has had a pair for longer has gone."""

MAXIMUM_HELD = 10_000


class NoQueue(LookupError):
    """There is no pair to judge; the message says what to do."""


class NotQueued(ValueError):
    """A judgement is of a pair that no queue has.

    Attributes:
        number: of the judgement in its request.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True)
class RatersDesk:
    """Hands out pairs and takes labels, for one process.

    A pair that was handed out counts as judged by its rater for ``HELD_SECONDS``, so that raters who work at the same
    time get different pairs. Two processes, which do not know what the other has handed out, may hand one pair to more
    raters than it needs. Each label is kept all the same.
    """

    labelling: Labelling
    live: LiveRows
    raters_per_pair: int
    _held: dict[Pair, dict[str, datetime]] = field(default_factory=dict)  # since when, by rater
    _taking: threading.Lock = field(default_factory=threading.Lock)

    def next_pair(self, request: NextPairRequest, now: datetime) -> NextPairResponse:
        """Return the first pair that lacks raters and that the rater has neither judged nor skipped.

        Pairs that enough others have on their screens come last.

        Raises:
            NoQueue: no day has made a queue, or every queue is empty.
        """
        with self._taking:
            queue = self._queue()
            pairs = queue.of_rater(request.rater_id, self.raters_per_pair)
            skipped = set(request.skipped) if request.skipped_of == queue.day else set()
            waiting = [pair for pair in pairs if pair.row["position"] not in skipped]
            free = (pair for pair in waiting if self._raters_of(pair, request.rater_id, now) < self.raters_per_pair)
            chosen = next(free, waiting[0]) if waiting else None
            if chosen is not None:
                self._hold(chosen, request.rater_id, now)
            return NextPairResponse(
                pair=None if chosen is None else _shown(chosen),
                day=queue.day,
                judged=queue.judged_by(request.rater_id),
                left=len(pairs),
            )

    def take(self, request: LabelsRequest, now: datetime) -> LabelsResponse:
        """Write the judgements of a request to the landing zone, all or none.

        A label that the rater has given to the pair before is known. Another label for the pair is a correction: the
        newest label of a rater counts.

        Raises:
            NoQueue: no day has made a queue, or every queue is empty.
            NotQueued: no queue has the pair of a judgement.
            OSError, ManifestError: as ``LiveRows.append``.
        """
        wanted = {Pair.of(label.model_dump(mode="json")): number for number, label in enumerate(request.labels)}
        rows: list[dict[str, Any]] = []
        known = corrected = 0
        with self._taking:
            queue = self._queue()
            for pair, number in wanted.items():
                label, queued = request.labels[number], queue.pairs.get(pair)
                before = queued.judgements.get(request.rater_id) if queued is not None else None
                if before is not None and before.label == label.label:
                    known += 1
                    continue
                logged = queued.row if queued is not None else self.labelling.earlier(pair)
                if logged is None:
                    raise NotQueued(number)
                corrected += before is not None
                rows.append(_row(request, label, logged, now))
            appended = self.live.append(LandingTable.relevance_labels, rows, now)
        return LabelsResponse(accepted=appended.written, known=known, corrected=corrected, arrival_day=appended.day)

    def _raters_of(self, pair: QueuedPair, rater_id: str, now: datetime) -> int:
        """Return how many others have judged a pair, or have it on their screens."""
        return len((self._holders(pair, now).keys() | pair.judgements.keys()) - {rater_id})

    def _holders(self, pair: QueuedPair, now: datetime) -> dict[str, datetime]:
        """Return who has a pair on the screen, and since when."""
        held = self._held.get(Pair.of(pair.row), {})
        return {rater: since for rater, since in held.items() if (now - since).total_seconds() < HELD_SECONDS}

    def _hold(self, pair: QueuedPair, rater_id: str, now: datetime) -> None:
        """Note that a rater has a pair on the screen; the newest ``MAXIMUM_HELD`` pairs are remembered."""
        holders = self._holders(pair, now) | {rater_id: now}
        self._held.pop(Pair.of(pair.row), None)
        self._held[Pair.of(pair.row)] = holders
        if len(self._held) > MAXIMUM_HELD:
            del self._held[next(iter(self._held))]

    def _queue(self) -> Queue:
        queue = self.labelling.current()
        if queue is None:
            raise NoQueue(why_no_queue(self.labelling.tables))
        return queue


def _row(request: LabelsRequest, label: Label, logged: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return the row of the landing table."""
    return {
        **label.model_dump(mode="json"),
        "rater_id": request.rater_id,
        "template": request.template,
        "labelled_at": now.isoformat(),
        "stage": logged["stage"],
        "inclusion_probability": logged["inclusion_probability"],
    }


def _shown(pair: QueuedPair) -> QueuedCandidate:
    row = pair.row
    subject = None
    if row["subject_item_id"] is not None:
        described = {name: row[f"subject_{name}"] for name in ("title", "category", "price", "currency")}
        subject = ShownItem(item_id=row["subject_item_id"], **described)
    candidate = ShownItem(**{name: row[name] for name in ShownItem.model_fields})
    return QueuedCandidate(
        position=row["position"],
        surface=row["surface"],
        subject=subject,
        query=row["query"],
        candidate=candidate,
    )
