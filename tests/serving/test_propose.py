"""Generators that fail, hang or propose what they may not: the answer has the items of the others."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
import pytest

from serving import propose
from serving.contracts import Demographics
from serving.generators import Generator, Query, Scored
from serving.prometheus import ServiceMetrics
from serving.propose import Proposers
from serving.publication import Served
from serving.users import KnownUser, StoredSequence

SERVED = cast(Served, None)  # no generator of this file reads it
ITEMS = 20


def query() -> Query:
    allowed = np.ones(ITEMS, np.bool_)
    allowed[7] = False
    return Query(KnownUser(None, False, [], StoredSequence(), Demographics()), np.zeros(4, np.float32), allowed)


class Fake:
    """Proposes its rows, after whatever ``before`` does."""

    def __init__(self, source: str, rows: list[int], before: Callable[[Query], None] = lambda _: None) -> None:
        self.source, self.rows, self.before = source, rows, before
        self.asked = 0

    def generate(self, served: Served, query: Query, wanted: int) -> list[Scored]:
        self.asked += 1
        self.before(query)
        return [Scored(row, 0.5, self.source) for row in self.rows]


class Ran:
    """Proposers of some generators, and what they count."""

    def __init__(self, generators: Sequence[Generator], seconds: float, clock: Callable[[], float]) -> None:
        share = 1 / len(generators)
        self.proposers = Proposers([(each, share) for each in generators], seconds, clock)
        self.metrics = ServiceMetrics()

    def rows(self, asked: Query | None = None, wanted: int = 10) -> list[int] | None:
        lists = self.proposers.propose(SERVED, asked or query(), wanted, metrics=self.metrics)
        found = None if lists is None else self.proposers.blend(lists, wanted)
        return None if found is None else [each.row for each in found]

    @property
    def faults(self) -> dict[tuple[str, str], int]:
        samples = [each for metric in self.metrics.generator_faults.collect() for each in metric.samples]
        return {
            (each.labels["generator"], each.labels["kind"]): int(each.value)
            for each in samples
            if each.name.endswith("_total")
        }


Make = Callable[..., Ran]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make proposers, whose threads end with the test."""
    made: list[Ran] = []

    def one(*generators: Generator, seconds: float = 5.0, clock: Callable[[], float] = time.monotonic) -> Ran:
        made.append(Ran(generators, seconds, clock))
        return made[-1]

    yield one
    for each in made:
        each.proposers.close()
    until = time.monotonic() + 10
    while any(each.name.startswith("generator ") for each in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)


def fail(_: Query) -> None:
    raise KeyError("no such thing")


def test_generators_of_the_service_and_of_packages_are_blended(make: Make) -> None:
    ran = make(Fake("item_neighbours", [0, 1]), Fake("mine", [10, 11]))
    assert ran.rows() == [0, 10, 1, 11]
    assert ran.faults == {}


@pytest.mark.parametrize("source", ["mine", "advertiser_lists"])
def test_one_that_raises_costs_its_items_and_is_counted_and_logged_once(
    make: Make, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    ran = make(Fake("item_neighbours", [0, 1]), Fake(source, [10], fail))
    with caplog.at_level(logging.ERROR):
        assert [ran.rows() for _ in range(3)] == [[0, 1]] * 3
    assert ran.faults == {(source, "raised"): 3}
    (record,) = caplog.records
    assert f"the generator {source}: raised" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


def test_a_fault_is_logged_again_after_a_minute(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    times = [0.0, 59.0, 60.0, 61.0, 121.0]
    ran = make(Fake("item_neighbours", [0]), Fake("advertiser_lists", [10], fail), clock=iter(times).__next__)
    for _ in times:
        ran.rows()
    assert len(caplog.records) == 3


def test_one_that_ends_its_thread_does_not_end_the_service(make: Make) -> None:
    ran = make(Fake("item_neighbours", [0]), Fake("mine", [10], lambda _: sys.exit(1)))
    assert ran.rows() == [0]
    assert ran.rows() == [0]
    assert ran.faults == {("mine", "raised"): 2}


def test_one_that_hangs_delays_one_answer_by_its_time_and_is_left_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propose, "PAUSE_SECONDS", 0.0)
    released = threading.Event()
    slow = Fake("mine", [10], lambda _: cast(None, released.wait(30)))
    ran = make(Fake("item_neighbours", [0]), slow, seconds=0.05)
    try:
        began = time.perf_counter()
        assert ran.rows() == [0]
        assert 0.05 <= time.perf_counter() - began < 5
        began = time.perf_counter()
        assert all(ran.rows() == [0] for _ in range(100))
        assert time.perf_counter() - began < 2.5  # a wait each would take 5 seconds
        assert slow.asked == 1
        assert ran.faults == {("mine", "late"): 1, ("mine", "skipped"): 100}
    finally:
        released.set()
    until = time.monotonic() + 10
    while ran.rows() != [0, 10] and time.monotonic() < until:
        time.sleep(0.01)
    assert ran.rows() == [0, 10]  # it has returned, and what it found for an earlier request is in no answer


def test_one_that_was_late_rests(make: Make) -> None:
    released = threading.Event()
    slow = Fake("mine", [10], lambda _: cast(None, released.wait(30)))
    now = 0.0
    ran = make(Fake("item_neighbours", [0]), slow, seconds=0.5, clock=lambda: now)
    assert ran.rows() == [0]
    released.set()
    time.sleep(0.2)  # until it has returned
    now = 0.9
    assert ran.rows() == [0]
    now = 1.1
    assert ran.rows() == [0, 10]


def test_an_error_about_time_of_the_generator_itself_is_an_error(make: Make) -> None:
    def times_out(_: Query) -> None:
        raise TimeoutError("its own server")

    ran = make(Fake("item_neighbours", [0]), Fake("mine", [10], times_out))
    assert ran.rows() == [0]
    assert ran.rows() == [0]
    assert ran.faults == {("mine", "raised"): 2}


def test_items_that_a_request_does_not_allow_are_in_no_answer(make: Make) -> None:
    class Wrong(Fake):
        def generate(self, served: Served, query: Query, wanted: int) -> list[Scored]:
            scored = [(7, 0.5), (-1, 0.5), (ITEMS, 0.5), (3, float("nan")), (4, float("inf")), (5, 0.5)]
            return [Scored(row, score, self.source) for row, score in scored]

    ran = make(Fake("item_neighbours", [0]), Wrong("mine", []))
    assert ran.rows() == [0, 5]
    assert ran.faults == {("mine", "wrong_items"): 1}


def test_a_generator_that_proposes_no_list_is_one_that_raises(make: Make) -> None:
    class Nothing(Fake):
        def generate(self, served: Served, query: Query, wanted: int) -> list[Scored]:
            return cast(list[Scored], None)

    ran = make(Fake("item_neighbours", [0]), Nothing("mine", []))
    assert ran.rows() == [0]
    assert ran.faults == {("mine", "raised"): 1}


def test_no_generator_can_change_what_the_others_are_asked(make: Make) -> None:
    def allow_everything(query: Query) -> None:
        query.allowed[:] = True

    asked = query()
    ran = make(Fake("item_neighbours", [0]), Fake("mine", [10], allow_everything))
    assert ran.rows(asked) == [0]
    assert not asked.allowed[7]
    assert ran.faults == {("mine", "raised"): 1}


def test_nothing_is_known_where_every_generator_has_failed(make: Make) -> None:
    ran = make(Fake("item_neighbours", [0], fail), Fake("mine", [10], fail))
    assert ran.rows() is None
    assert make(Fake("item_neighbours", [], lambda _: None), Fake("mine", [10], fail)).rows() == []


def test_all_packages_are_asked_at_the_same_time(make: Make) -> None:
    """Each waits until the other one has been asked."""
    both = threading.Barrier(2, timeout=10)

    def meet(_: Query) -> None:
        both.wait()

    ran = make(Fake("item_neighbours", [0]), Fake("mine", [10], meet), Fake("yours", [11], meet), seconds=10)
    assert ran.rows() == [0, 10, 11]
