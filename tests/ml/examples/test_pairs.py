"""Which pairs a log teaches, on hand-worked logs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.examples.pairs import Examples, LabelRule, examples_at, ranges, together, training_cutoffs
from ml.features.items import DAY
from tests.ml.worlds import EVENT_NAMES, Event, event_log, instant, rule

CATALOGUE = ["a", "b", "c", "d"]
CUTOFF = 10.0
HISTORY: list[Event] = [("u", 1.0, "page_visit", "a")]


def pairs(rows: list[Event], label_rule: LabelRule, cutoff: float = CUTOFF) -> list[tuple[str, str, str, float]]:
    """The examples in words: user, item, event name, weight."""
    log = event_log(rows, CATALOGUE)
    found = examples_at(log, instant(cutoff), label_rule, EVENT_NAMES)
    assert (found.cutoff == instant(cutoff)).all()
    assert found.history_end.tolist() == log.known_until(instant(cutoff))[found.user].tolist()
    return [
        (log.user_ids[int(user)], CATALOGUE[item], EVENT_NAMES[name - 1], float(weight))
        for user, item, name, weight in zip(found.user, found.item, found.name, found.weight, strict=True)
    ]


def test_the_window_includes_its_start_and_excludes_its_end() -> None:
    edges: list[Event] = [
        ("u", 10.0, "checkout", "b"),
        ("u", 15.0 - 1e-6, "checkout", "c"),
        ("u", 15.0, "checkout", "d"),
    ]
    assert pairs(HISTORY + edges, rule(5.0)) == [("u", "b", "checkout", 1.0), ("u", "c", "checkout", 1.0)]
    before: list[Event] = [("u", 10.0 - 1e-6, "checkout", "d")]
    assert pairs(HISTORY + before, rule(5.0)) == []


def test_every_distinct_item_is_one_example_with_its_largest_weight() -> None:
    window: list[Event] = [
        ("u", 11.0, "checkout", "b"),
        ("u", 12.0, "add_to_cart", "c"),
        ("u", 13.0, "checkout", "c"),
        ("u", 14.0, "add_to_cart", "c"),
        ("u", 15.0, "checkout", "b"),
    ]
    found = pairs(HISTORY + window, rule(add_to_cart=0.5, checkout=2.0))
    assert found == [("u", "b", "checkout", 2.0), ("u", "c", "checkout", 2.0)]
    found = pairs(HISTORY + window, rule(add_to_cart=3.0, checkout=2.0))
    assert found == [("u", "b", "checkout", 2.0), ("u", "c", "add_to_cart", 3.0)]


def test_only_positive_events_on_items_of_the_catalogue_count() -> None:
    window: list[Event] = [
        ("u", 11.0, "page_visit", "b"),
        ("u", 12.0, "checkout", "elsewhere"),
        ("u", 13.0, "checkout", None),
        ("u", 14.0, "add_to_cart", "c"),
    ]
    assert pairs(HISTORY + window, rule()) == [("u", "c", "add_to_cart", 1.0)]


def test_items_of_the_own_history_are_no_positives_where_repeats_do_not_count() -> None:
    rows: list[Event] = [
        *HISTORY,
        ("u", 11.0, "checkout", "a"),
        ("u", 11.0, "checkout", "b"),
        ("w", 2.0, "page_visit", "b"),
        ("w", 11.0, "checkout", "a"),
        ("w", 12.0, "checkout", "b"),
    ]
    repeated = pairs(rows, rule(repeats_count=True))
    assert [pair[:2] for pair in repeated] == [("u", "a"), ("u", "b"), ("w", "a"), ("w", "b")]
    new = pairs(rows, rule(repeats_count=False))
    assert [pair[:2] for pair in new] == [("u", "b"), ("w", "a")]


def test_history_after_the_cutoff_hides_nothing() -> None:
    """Only items from before the cut-off are filtered: a page visit in the window is no history."""
    rows: list[Event] = [*HISTORY, ("u", 11.0, "page_visit", "b"), ("u", 12.0, "checkout", "b")]
    assert [pair[:2] for pair in pairs(rows, rule(repeats_count=False))] == [("u", "b")]


def test_users_without_history_are_left_out() -> None:
    rows: list[Event] = [
        *HISTORY,
        ("new", 10.0, "page_visit", "a"),
        ("new", 11.0, "checkout", "b"),
        ("u", 11.0, "checkout", "c"),
    ]
    assert [pair[:2] for pair in pairs(rows, rule())] == [("u", "c")]


def test_no_positive_gives_no_example() -> None:
    assert pairs(HISTORY, rule()) == []
    assert pairs(HISTORY, rule(repeats_count=False)) == []
    assert pairs([], rule()) == []


@given(length=st.floats(1, 400), span=st.integers(1, 365), window=st.floats(0.5, 60), count=st.integers(1, 9))
def test_windows_of_training_cutoffs_end_within_the_period(length: float, span: int, window: float, count: int) -> None:
    first, end = instant(0), instant(length)
    cutoffs = training_cutoffs(end, first, span, window_days=window, count=count)
    assert (cutoffs + window * DAY <= end + 1e-3).all()
    assert cutoffs[-1] == pytest.approx(end - window * DAY, abs=1e-3)
    assert (np.diff(cutoffs) > 0).all()
    assert (cutoffs >= end - max(span, window) * DAY - 1e-3).all()
    if length > 1.25 * window:
        assert (cutoffs >= first).all()


def test_cutoffs_are_evenly_spaced() -> None:
    cutoffs = training_cutoffs(instant(100), instant(0), span_days=50, window_days=10, count=5)
    np.testing.assert_allclose(cutoffs, [instant(day) for day in (50, 60, 70, 80, 90)], rtol=0, atol=1e-3)


def test_all_cutoffs_together_and_a_sample_of_them() -> None:
    rows: list[Event] = [("u", float(day), "checkout", CATALOGUE[day % 4]) for day in range(40)]
    log = event_log(rows, CATALOGUE)
    cutoffs = np.array([instant(10), instant(20)])
    parts = [examples_at(log, float(cutoff), rule(), EVENT_NAMES) for cutoff in cutoffs]
    every = together(parts, 100, 0)
    assert len(every) == 8
    assert every.cutoff.tolist() == [instant(10)] * 4 + [instant(20)] * 4
    assert every.history_end.tolist() == [10] * 4 + [20] * 4

    def keys(examples: Examples) -> list[tuple[float, int]]:
        return list(zip(examples.cutoff.tolist(), examples.item.tolist(), strict=True))

    # Room for five: one user at a cut-off with all four positives, because the loss must know every one of them.
    samples = [together(parts, 5, seed) for seed in range(8)]
    assert all(keys(sample) in (keys(every)[:4], keys(every)[4:]) for sample in samples)
    assert len({sample.cutoff[0] for sample in samples}) == 2
    assert keys(together(parts, 5, 0)) == keys(samples[0])


def test_ranges() -> None:
    positions, owner = ranges(np.array([3, 7, 0]), np.array([5, 7, 3]))
    assert positions.tolist() == [3, 4, 0, 1, 2]
    assert owner.tolist() == [0, 0, 2, 2, 2]
