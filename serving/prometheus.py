"""What the service counts and times, for Prometheus.

Several processes that share a port keep their figures in files of one directory (``PROMETHEUS_MULTIPROC_DIR``, which
the library reads when it is imported), so that whichever answers a scrape answers for all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

BOUNDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0)
AGES = (3600, 6 * 3600, 86_400, 2 * 86_400, 7 * 86_400, 30 * 86_400)


class Stage(StrEnum):
    """The parts of a request."""

    store = "store"  # reading the user
    encoder = "encoder"  # only where events have come in that the state does not know
    head = "head"  # context layer and head
    filters = "filters"
    search = "search"  # the generators
    trim = "trim"  # relevance of the candidates
    response = "response"


class GeneratorFault(StrEnum):
    """Why an answer lacks items of a generator."""

    raised = "raised"  # an error
    late = "late"  # the time of the request was over
    skipped = "skipped"  # it was late before, and is not asked for a while
    wrong_items = "wrong_items"  # items that the request does not allow, or without a score


class ServiceMetrics:
    """One service's figures."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "adseq_request_seconds", "Whole requests", ["path", "status"], buckets=BOUNDS, registry=self.registry
        )
        self.stages = Histogram(
            "adseq_stage_seconds",
            "Parts of a request for candidates",
            ["stage"],
            buckets=BOUNDS,
            registry=self.registry,
        )
        self.seconds_of = {stage: self.stages.labels(stage.value) for stage in Stage}
        self.answers = Counter(
            "adseq_answers", "Answers by the source of the user's state", ["basis", "surface"], registry=self.registry
        )
        self.short = Counter(
            "adseq_short_answers", "Answers with fewer candidates than were asked for", registry=self.registry
        )
        self.untrimmed = Counter(
            "adseq_untrimmed_answers", "Answers whose relevance could not be computed", registry=self.registry
        )
        self.lost_samples = Counter(
            "adseq_lost_samples", "Samples of candidates that could not be written", registry=self.registry
        )
        self.store_faults = Counter(
            "adseq_store_faults",
            "Damaged records that counted as missing, by namespace, and states that the store did not take (unwritten)",
            ["kind"],
            registry=self.registry,
        )
        self.generator_faults = Counter(
            "adseq_generator_faults",
            "Answers that lack items of a generator, by kind of fault",
            ["generator", "kind"],
            registry=self.registry,
        )
        self.labels = Counter(
            "adseq_labels", "Judgements of raters: accepted, corrected, known", ["outcome"], registry=self.registry
        )
        self.feedback = Counter("adseq_feedback", "New reports of dissatisfaction", ["surface"], registry=self.registry)
        self.state_age = Histogram(
            "adseq_state_age_seconds", "Age of the states answered from", buckets=AGES, registry=self.registry
        )
        self.served = Gauge(
            "adseq_served",
            "Processes that answer from the publication",
            ["model_version", "day"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )

        self.behind = Gauge(
            "adseq_publication_unreadable",
            "Processes that cannot load the newest publication: an earlier one answers, or none",
            registry=self.registry,
            multiprocess_mode="livesum",
        )

    def serve(self, model_version: str, day: str) -> None:
        """Note the publication that answers from now on."""
        for metric in self.served.collect():
            for sample in metric.samples:
                self.served.labels(**sample.labels).set(0)
        self.served.labels(model_version, day).set(1)

    def note_damaged(self, namespaces: Iterable[str]) -> None:
        """Count records that cannot be read."""
        for namespace in namespaces:
            self.store_faults.labels(namespace).inc()

    def note_unwritten(self, unwritten: bool) -> None:
        """Count a state that the store did not take."""
        if unwritten:
            self.store_faults.labels("unwritten").inc()

    def note_generator(self, source: str, fault: GeneratorFault) -> None:
        """Count an answer that lacks items of a generator."""
        self.generator_faults.labels(source, fault.value).inc()

    def note_labels(self, new: int, known: int, corrected: int) -> None:
        """Count judgements of raters."""
        for outcome, number in {"accepted": new, "known": known, "corrected": corrected}.items():
            self.labels.labels(outcome).inc(number)

    def text(self) -> bytes:
        """Return all figures, in Prometheus' format."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        _forget_the_dead(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def _forget_the_dead(directory: Path) -> None:
    """Remove the live gauges of processes that have ended; counts of ended processes stay."""
    for path in directory.glob("gauge_live*_*.db"):
        if not psutil.pid_exists(int(path.stem.rpartition("_")[2])):
            path.unlink(missing_ok=True)


class Stopwatch:
    """Times the stages of one request."""

    def __init__(self, metrics: ServiceMetrics) -> None:
        self.metrics = metrics

    def stage(self, stage: Stage) -> _Timed:
        """Return a block that times the stage."""
        return _Timed(self.metrics.seconds_of[stage])


class _Timed:
    """A block whose seconds a histogram gets. There are seven a request: a generator would take longer to enter."""

    __slots__ = ("_histogram", "_started")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._histogram.observe(time.perf_counter() - self._started)
