"""Asks the generators of the settings, and blends their items; a generator that fails or is late costs its items.

The generators of the service are asked in the thread of the request. A generator of another package is asked in a
thread of its own, at the same time, and the request waits for it until ``serving.generator_seconds`` have passed. A
generator that was late is asked again when it has returned and ``PAUSE_SECONDS`` have passed, so that it slows few
requests down.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

from threadpoolctl import threadpool_limits

from serving.blend import blend
from serving.generator_plugins import generators_of, is_built_in
from serving.generators import Generator, Query, Scored
from serving.prometheus import GeneratorFault, ServiceMetrics
from serving.publication import Served
from settings import ServingSettings

logger = logging.getLogger(__name__)
PAUSE_SECONDS = 1.0
LINE_SECONDS = 60.0  # between two lines of the log about one generator
Clock = Callable[[], float]  # seconds


class Proposers:
    """The generators of one process, each with its share of an answer."""

    def __init__(
        self, generators: Sequence[tuple[Generator, float]], seconds: float, clock: Clock = time.monotonic
    ) -> None:
        self._members: list[_Member] = [
            _InRequest(each) if is_built_in(each.source) else _InThread(each, seconds, clock) for each, _ in generators
        ]
        self._shares = [share for _, share in generators]
        self._clock = clock
        self._next_line: dict[str, float] = {}

    @classmethod
    def of(cls, settings: ServingSettings) -> Proposers:
        """Make the generators that the settings name.

        Raises:
            GeneratorRefused: a generator cannot be used.
        """
        return cls(generators_of(settings), settings.generator_seconds)

    def close(self) -> None:
        """End the threads; a generator that is still at work keeps its thread until it returns."""
        for each in self._members:
            each.close()

    def propose(
        self, served: Served, query: Query, wanted: int, *, metrics: ServiceMetrics
    ) -> list[list[Scored]] | None:
        """Return what each generator proposes; None if every generator has failed, is late or rests."""
        asked = [each.ask(served, query, wanted) for each in self._members]
        found = [
            self._answer_of(each.source, waiting, metrics) for each, waiting in zip(self._members, asked, strict=True)
        ]
        if all(each is None for each in found):
            return None
        return [each or [] for each in found]

    def blend(self, lists: Sequence[Sequence[Scored]], wanted: int) -> list[Scored]:
        """Return the lists of ``propose`` merged, each generator with its share."""
        return blend(lists, self._shares, wanted)

    def _answer_of(self, source: str, waiting: Answer, metrics: ServiceMetrics) -> list[Scored] | None:
        """Return what one generator proposes; None, counted, if there is nothing."""
        try:
            proposal = waiting()
        except _Skipped:
            metrics.note_generator(source, GeneratorFault.skipped)
        except _Late:
            self._note(source, GeneratorFault.late, metrics)
        except Exception as error:  # whatever a generator raises: the others answer
            self._note(source, GeneratorFault.raised, metrics, error)
        else:
            if proposal.wrong:
                self._note(source, GeneratorFault.wrong_items, metrics)
            return proposal.items
        return None

    def _note(
        self, source: str, fault: GeneratorFault, metrics: ServiceMetrics, error: Exception | None = None
    ) -> None:
        """Count a fault, and log it unless a line about the generator is less than ``LINE_SECONDS`` old."""
        metrics.note_generator(source, fault)
        now = self._clock()
        if now >= self._next_line.get(source, now):
            self._next_line[source] = now + LINE_SECONDS
            logger.error("the generator %s: %s; the answer has the items of the others", source, fault, exc_info=error)


@dataclass(frozen=True)
class _Proposal:
    """The items that a generator may propose, and how many others it has proposed."""

    items: list[Scored]
    wrong: int = 0


Answer = Callable[[], _Proposal]
"""Waits for what a generator proposes; raises what the generator raises, ``_Late`` or ``_Skipped``."""


class _Late(Exception):
    """The generator has not answered in time."""


class _Skipped(Exception):
    """The generator was not asked, because it was late before."""


class _Member(Protocol):
    @property
    def source(self) -> str: ...

    def ask(self, served: Served, query: Query, wanted: int) -> Answer: ...

    def close(self) -> None: ...


class _InRequest:
    """A generator of the service, asked in the thread of the request when the answer is taken."""

    def __init__(self, generator: Generator) -> None:
        self.source = generator.source
        self._generator = generator

    def ask(self, served: Served, query: Query, wanted: int) -> Answer:
        return lambda: _Proposal(self._generator.generate(served, query, wanted))

    def close(self) -> None:
        """Do nothing: there is no thread."""


@dataclass(frozen=True)
class _Job:
    served: Served
    query: Query
    wanted: int
    proposal: Future[_Proposal]


class _InThread:
    """A generator of another package, asked in a thread of its own, one request at a time."""

    def __init__(self, generator: Generator, seconds: float, clock: Clock) -> None:
        self.source = generator.source
        self._generator, self._seconds, self._clock = generator, seconds, clock
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._latest: Future[_Proposal] | None = None
        self._rests_until = -math.inf
        threading.Thread(target=self._work, name=f"generator {self.source}", daemon=True).start()

    def ask(self, served: Served, query: Query, wanted: int) -> Answer:
        now = self._clock()
        if now < self._rests_until or (self._latest is not None and not self._latest.done()):
            return self._skip
        proposal = self._latest = Future[_Proposal]()
        self._jobs.put(_Job(served, query.read_only(), wanted, proposal))
        return lambda: self._wait(proposal, now + self._seconds)

    def close(self) -> None:
        """End the thread when the generator has returned."""
        self._jobs.put(None)

    def _skip(self) -> _Proposal:
        raise _Skipped

    def _wait(self, proposal: Future[_Proposal], until: float) -> _Proposal:
        try:
            return proposal.result(max(0.0, until - self._clock()))
        except TimeoutError:
            if proposal.done():  # the error is of the generator itself, or it has answered at the last moment
                return proposal.result()
            self._rests_until = self._clock() + PAUSE_SECONDS
            raise _Late from None

    def _work(self) -> None:
        threadpool_limits(1)  # as in the thread of the requests
        while (job := self._jobs.get()) is not None:
            try:
                job.proposal.set_result(_allowed(self._generator.generate(job.served, job.query, job.wanted), job))
            except Exception as error:
                job.proposal.set_exception(error)
            except BaseException as error:
                # A SystemExit that was raised again in the thread of the request would end the service.
                job.proposal.set_exception(RuntimeError(repr(error)))


def _allowed(proposed: list[Scored], job: _Job) -> _Proposal:
    """Drop the items that the query does not allow, and those without a finite score."""
    allowed, items = job.query.allowed, []
    for each in proposed[: job.wanted]:
        row, score = int(each.row), float(each.score)
        if 0 <= row < len(allowed) and allowed[row] and math.isfinite(score):
            items.append(Scored(row, score, each.source))
    return _Proposal(items, len(proposed[: job.wanted]) - len(items))
