"""Event logs, slices of them, and the packed sequences that the encoder reads."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.features.event_log import (
    GAP_BUCKETS,
    EventLog,
    Slices,
    batches_by_length,
    build_event_log,
    event_log_of_sequences,
    newest,
    pack,
    row_numbers,
    to_seconds,
)
from tests.ml.worlds import EVENT_NAMES, Event, event_frame, event_log, instant

CATALOGUE = ["a", "b", "c"]
MINUTE = 1 / 1440  # of a day

rows_of_events = st.lists(
    st.tuples(
        st.sampled_from(["u1", "u2", "u3"]),
        st.integers(0, 6).map(float),  # few distinct days: equal times are the rule
        st.sampled_from([*EVENT_NAMES, "unheard_of"]),
        st.sampled_from([*CATALOGUE, "not in the catalogue", None]),
    ),
    max_size=25,
)


def slow_sequence(rows: list[Event], user: str, before: float, length: int) -> list[Event]:
    """A user's last events before a day, in plain Python."""
    own = sorted((row for row in rows if row[0] == user and row[1] < before), key=lambda row: row[1])
    return own[-length:]


@given(rows=rows_of_events, before=st.integers(0, 7), length=st.integers(1, 5))
def test_packed_sequences_equal_a_slow_reference(rows: list[Event], before: int, length: int) -> None:
    log = event_log(rows, CATALOGUE)
    users = np.arange(log.users)
    slices = newest(log, users, log.known_until(instant(before)), length)
    packed = pack(log, slices)
    begin = 0
    for row, user in enumerate(log.user_ids):
        expected = slow_sequence(rows, user, before, length)
        assert packed.lengths[row] == slices.lengths[row] == len(expected)
        own = slice(begin, begin + len(expected))
        items = [CATALOGUE.index(item) if item in CATALOGUE else -1 for _, _, _, item in expected]
        names = [EVENT_NAMES.index(name) + 1 if name in EVENT_NAMES else 0 for _, _, name, _ in expected]
        assert packed.item[own].tolist() == items
        assert packed.name[own].tolist() == names
        assert packed.recency[own].tolist() == list(range(len(expected)))[::-1]
        gaps = [0] + [1 + int(np.log2(1 + 1440 * (b[1] - a[1]))) for a, b in pairwise(expected)]
        assert packed.gap[own].tolist() == gaps[: len(expected)]
        assert packed.advertiser[own].tolist() == log.advertiser[slices.start[row] : slices.end[row]].tolist()
        begin += len(expected)
    assert len(packed.item) == begin


def test_empty_sequences_pack_to_nothing() -> None:
    log = event_log([("u", day, "checkout", "a") for day in range(9)], CATALOGUE)
    packed = pack(log, Slices(np.array([3, 0, 5]), np.array([3, 2, 5])))
    assert packed.lengths.tolist() == [0, 2, 0]
    assert packed.recency.tolist() == [1, 0]
    assert len(pack(event_log([], CATALOGUE), Slices(np.zeros(2, np.int64), np.zeros(2, np.int64))).item) == 0
    assert pack(log, Slices(np.zeros(0, np.int64), np.zeros(0, np.int64))).lengths.tolist() == []


def test_gaps_depend_on_no_event_outside_the_slice() -> None:
    recent: list[Event] = [("u", 50.0, "checkout", "a"), ("u", 51.0, "checkout", "b")]
    alone = event_log(recent, CATALOGUE)
    with_past = event_log([("u", 1.0, "checkout", "c"), *recent], CATALOGUE)
    short = pack(alone, newest(alone, np.array([0]), alone.offsets[1:], 2))
    cut = pack(with_past, newest(with_past, np.array([0]), with_past.offsets[1:], 2))
    assert short.gap.tolist() == cut.gap.tolist() == [0, 1 + 10]  # log2(1441 minutes) = 10.5


def test_gaps_are_log_buckets_of_minutes_with_a_last_bucket() -> None:
    minutes = [0.0, 0.5, 1.0, 3.0, 60.0, 1440.0 * 365 * 90]
    days = np.concatenate(([0.0], np.cumsum(minutes))) * MINUTE
    log = event_log([("u", float(day), "checkout", "a") for day in days], CATALOGUE)
    gap = pack(log, newest(log, np.array([0]), log.offsets[1:], 100)).gap
    assert gap.tolist() == [0, 1, 1, 2, 3, 6, GAP_BUCKETS - 1]


def test_events_of_equal_time_keep_the_order_of_the_log() -> None:
    rows: list[Event] = [("u", 1.0, "checkout", item) for item in ("c", "a", "b")]
    assert event_log(rows, CATALOGUE).item.tolist() == [2, 0, 1]
    sequence = event_frame(rows).group_by("user_id", maintain_order=True).agg(pl.all())
    assert event_log_of_sequences(
        sequence, pl.Series(CATALOGUE), EVENT_NAMES, advertiser_buckets=64, advertiser_hashes=2
    ).item.tolist() == [2, 0, 1]


@given(st.lists(st.tuples(st.sampled_from("uvw"), st.integers(0, 5), st.sampled_from("abcz")), min_size=1, max_size=30))
def test_the_log_of_sequences_is_the_log_of_their_rows(drawn: list[tuple[str, int, str]]) -> None:
    rows: list[Event] = sorted((user, float(day), "checkout", item) for user, day, item in drawn)
    sequences = event_frame(rows).group_by("user_id", maintain_order=True).agg(pl.all())
    of_rows, of_sequences = (
        event_log(rows, CATALOGUE),
        event_log_of_sequences(
            sequences, pl.Series(CATALOGUE), EVENT_NAMES, advertiser_buckets=64, advertiser_hashes=2
        ),
    )
    assert of_sequences.user_ids.to_list() == of_rows.user_ids.to_list()
    for name in ("offsets", "item", "name", "seconds"):
        assert getattr(of_sequences, name).tolist() == getattr(of_rows, name).tolist()


def test_the_event_at_the_instant_itself_is_not_known() -> None:
    log = event_log([("u", 1.0, "checkout", "a"), ("u", 2.0, "checkout", "b"), ("w", 2.0, "checkout", "a")], CATALOGUE)
    assert log.known_until(instant(2.0)).tolist() == [1, 2]
    assert log.known_until(instant(2.0) + 1e-3).tolist() == [2, 3]


def test_users_are_found_by_id_and_strangers_are_minus_one() -> None:
    log = event_log([("u", 1.0, "checkout", "a"), ("w", 2.0, "checkout", "a")], CATALOGUE)
    assert log.user_rows(pl.Series(["w", "nobody", None, "u"])).tolist() == [1, -1, -1, 0]
    assert log.user_of_event().tolist() == [0, 1]


@given(lengths=st.lists(st.integers(0, 30), max_size=60), events=st.integers(1, 120))
def test_batches_hold_every_row_once_within_the_bound(lengths: list[int], events: int) -> None:
    array = np.array(lengths, np.int64)
    batches = list(batches_by_length(array, events))
    assert sorted(np.concatenate([*batches, np.zeros(0, np.int64)]).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or np.maximum(array[batch], 1).sum() <= events
    shortest_first = np.concatenate([*(array[batch] for batch in batches), np.zeros(0, np.int64)])
    assert (np.diff(shortest_first) >= 0).all()


def test_batches_are_filled() -> None:
    assert [len(batch) for batch in batches_by_length(np.full(10, 4), 12)] == [3, 3, 3, 1]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_seconds_are_those_of_the_instant(zone: str) -> None:
    times = pl.Series(["2024-01-01T00:00:00.5Z", None]).str.to_datetime(time_unit="us", time_zone="UTC")
    assert to_seconds(times.dt.convert_time_zone(zone)).tolist() == [1_704_067_200.5, -np.inf]


def test_row_numbers() -> None:
    assert row_numbers(pl.Series(["x", "y"]), pl.Series(["y", None, "z", "x", "y"])).tolist() == [1, -1, -1, 0, 1]


def test_event_names_are_coded_by_their_place_in_the_vocabulary() -> None:
    frame = event_frame([("u", 1.0, "checkout", "a"), ("u", 2.0, "page_visit", "a")])
    log: EventLog = build_event_log(
        frame, pl.Series(CATALOGUE), ["checkout"], advertiser_buckets=16, advertiser_hashes=1
    )
    assert log.name.tolist() == [1, 0]
