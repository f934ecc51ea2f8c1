"""Follows the store's pointer: loads what is newly published beside what answers, then answers from the new."""

from __future__ import annotations

import gc
import logging
import threading
from datetime import UTC, datetime
from pathlib import Path

from ml.file_integrity import Unreadable, first_line
from serving.count_spend import SpendCounters
from serving.prometheus import ServiceMetrics
from serving.publication import Served
from warehouse.online import OnlineStore, StoreDamaged, StoreUnreachable
from warehouse.online.publication import Publication, check
from warehouse.online.store import StoreError

log = logging.getLogger(__name__)


def _loaded(home: Path, publication: Publication) -> Served:
    """Load a publication into memory, out of the garbage collector's sight.

    While the collector walks over the objects of a large catalogue, none of which is garbage, nothing is answered.
    """
    gc.disable()
    try:
        return Served.load(home, publication)
    finally:
        gc.freeze()
        gc.enable()


class Follower:
    """The holder of the publication that answers.

    A request takes ``current`` once and keeps to that publication: an answer is of one version, also while another
    publication takes over.
    """

    def __init__(self, home: Path, store: OnlineStore, metrics: ServiceMetrics, every_seconds: float) -> None:
        self.home, self.store, self.metrics, self.every_seconds = home, store, metrics, every_seconds
        self.current: Served | None = None
        self.problem: str | None = None  # why the newest publication does not answer; None while it does
        self._pointer: bytes | None = None
        self._spend = SpendCounters(store)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow publications", daemon=True)

    def start(self) -> None:
        """Load the present publication, if there is one, and follow the pointer from then on."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def look(self) -> None:
        """Load the publication that the pointer names, if the publication is not the loaded one.

        A publication that cannot be loaded leaves the one before in place and is tried again at each look. ``problem``,
        the metrics and, once, the log name the failure.

        One that cannot be loaded leaves the one before, is tried again at each look, and is told in ``problem``, in the
        metrics and, once, in the log.
        """
        try:
            pointer = self.store.current()
            if pointer is None or pointer == self._pointer:
                self._tell(None)
                return
            publication = Publication.from_bytes(pointer)
            check(self.store, publication)
            loaded = _loaded(self.home, publication)
            self._count_spend(loaded)
        except Exception as error:
            self._tell(self._described(error))
            return
        self.current, self._pointer = loaded, pointer
        self._tell(None)
        self.metrics.serve(publication.model_version, publication.day.isoformat())
        log.info("serving %s as of %s", publication.model_version, publication.day)

    def look_at_spend(self) -> None:
        """Count what the ads have spent by now. Where the store does not answer, the counts of before stay."""
        try:
            if self.current is not None:
                self._count_spend(self.current)
        except StoreError as error:
            log.error("the spend of ads cannot be read, that of before counts: %s", error)

    def _count_spend(self, served: Served) -> None:
        publication, ads = served.publication, served.catalogue.eligibility.ads
        damaged = self._spend.read(ads, publication.instant(datetime.now(UTC)), publication.time_zone)
        self.metrics.note_damaged(["spend"] * damaged)

    def _described(self, error: Exception) -> str:
        """Return the text of an error, with paths relative to the home.

        The error of the store may name the place of the store, so the text leaves that error out.
        """
        if isinstance(error, StoreUnreachable) and not isinstance(error, StoreDamaged):
            return "the online store does not answer; the log of the service says why"
        known = isinstance(error, Unreadable | StoreDamaged)
        return first_line(error).replace(f"{self.home}/", "") if known else repr(error)

    def _tell(self, problem: str | None) -> None:
        self.metrics.behind.set(int(problem is not None))
        if problem is not None and problem != self.problem:
            goes_on = "the one before keeps answering" if self.current else "nothing answers"
            log.error("the publication cannot be loaded, %s: %s", goes_on, problem, exc_info=True)
        self.problem = problem

    def _follow(self) -> None:
        while not self._stop.wait(self.every_seconds):
            self.look()
            self.look_at_spend()
