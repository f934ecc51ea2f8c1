"""The pairs of each objective on a hand-worked log, and what holds of them on any log."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml.examples.objectives import build_examples, instants
from ml.examples.pairs import Examples
from ml.examples.period import Prepared, TrainingPeriod, examples_of_frame, examples_to_frame, prepare
from ml.features.event_log import EventLog, newest
from ml.features.items import DAY
from ml.models.tensors import CatalogueTensors
from ml.training.item_task import ItemTask
from ml.training.loss import accidental_hits
from settings import ExampleSettings, Objective, Settings
from tests.ml.conftest import TRAINED_UNTIL
from tests.ml.worlds import EVENT_NAMES, Event, event_log, instant, newest_content, rule, small_settings

CATALOGUE = ["a", "b", "c", "d", "e"]
CUTOFFS = np.array([instant(day) for day in (10, 14, 20)])
LOG: list[Event] = [
    ("u", 1.0, "page_visit", "a"),
    ("u", 11.0, "page_visit", "a"),
    ("u", 12.0, "checkout", "b"),  # at one instant with the next
    ("u", 12.0, "add_to_cart", "c"),
    ("u", 13.0, "page_visit", "d"),
    ("u", 19.0, "checkout", "c"),
    ("u", 22.5, "checkout", "d"),
    ("u", 23.5, "add_to_cart", "e"),
    ("w", 11.0, "page_visit", "a"),  # not known at the first cut-off, but from their first event on
    ("w", 13.0, "checkout", "b"),
    ("z", 2.0, "checkout", "b"),  # no positive to come
]
K = 10.0
WEIGHTS = {"checkout": 1.0, "add_to_cart": 0.5}

Point = tuple[float, str, int]  # cut-off (day), user, events in the history
NEXT: dict[Point, str] = {(10, "u", 1): "b", (14, "u", 5): "c", (20, "u", 6): "d"}
ALL: dict[Point, str] = {(10, "u", 1): "bc", (14, "u", 5): "cde", (20, "u", 6): "de"}
DENSE: dict[Point, str] = {
    **ALL,
    (10, "u", 2): "bc",  # day 11, until day 21
    (10, "u", 4): "c",  # day 12, behind both events of the instant, until day 22
    (10, "u", 5): "cd",  # day 13, until day 23
    (10, "w", 1): "b",  # day 11
    (14, "u", 6): "de",  # day 19, until day 29
}  # nothing at day 22.5: it is after the last cut-off
# Where repeats do not count: b and c are in the history from day 12 on, d from day 13 on.
NEXT_NEW: dict[Point, str] = {(10, "u", 1): "b", (14, "u", 5): "e", (20, "u", 6): "e"}
ALL_NEW: dict[Point, str] = {(10, "u", 1): "bc", (14, "u", 5): "e", (20, "u", 6): "e"}
DENSE_NEW: dict[Point, str] = {**ALL_NEW, (10, "u", 2): "bc", (10, "w", 1): "b", (14, "u", 6): "e"}
assert (10, "u", 4) not in DENSE_NEW  # c alone would be left, and is in the history
assert (10, "u", 5) not in DENSE_NEW


@lru_cache(maxsize=1)
def log_of(rows: tuple[Event, ...]) -> EventLog:
    return event_log(list(rows), CATALOGUE)


def built(rows: list[Event], objective: Objective, repeats: bool = True, positions: int = 8, seed: int = 0) -> Examples:
    settings = ExampleSettings(objective=objective, dense_positions=positions)
    return build_examples(
        log_of(tuple(rows)), CUTOFFS, rule(K, repeats, **WEIGHTS), event_names=EVENT_NAMES, settings=settings, seed=seed
    )


def in_words(rows: list[Event], examples: Examples) -> list[tuple[Point, str]]:
    log = log_of(tuple(rows))
    histories = examples.history_end - log.offsets[examples.user]
    return [
        ((round((cutoff - instant(0)) / DAY), log.user_ids[int(user)], int(history)), CATALOGUE[item])
        for cutoff, user, history, item in zip(examples.cutoff, examples.user, histories, examples.item, strict=True)
    ]


@pytest.mark.parametrize(("repeats", "expected"), [(True, NEXT), (False, NEXT_NEW)])
def test_next_action_is_the_first_positive_after_each_cutoff(repeats: bool, expected: dict[Point, str]) -> None:
    assert in_words(LOG, built(LOG, Objective.next_action, repeats)) == list(expected.items())


@pytest.mark.parametrize(("repeats", "expected"), [(True, ALL), (False, ALL_NEW)])
def test_all_action_is_every_distinct_item(repeats: bool, expected: dict[Point, str]) -> None:
    pairs = [(point, item) for point, items in expected.items() for item in items]
    assert in_words(LOG, built(LOG, Objective.all_action, repeats)) == pairs


@pytest.mark.parametrize(("repeats", "expected"), [(True, DENSE), (False, DENSE_NEW)])
def test_dense_all_action_draws_one_of_each_points_positives(repeats: bool, expected: dict[Point, str]) -> None:
    drawn: dict[Point, Counter[str]] = {point: Counter() for point in expected}
    for seed in range(300):
        pairs = in_words(LOG, built(LOG, Objective.dense_all_action, repeats, seed=seed))
        assert {point for point, _ in pairs} == set(expected)
        assert len(pairs) == len(expected)
        for point, item in pairs:
            drawn[point][item] += 1
    for point, items in expected.items():
        assert set(drawn[point]) == set(items)
        assert min(drawn[point].values()) > 0.7 * 300 / len(items)  # each as likely as the others


def test_positions_are_drawn_up_to_their_number() -> None:
    between = set(DENSE) - set(ALL)
    of_u = {point for point in between if point[:2] == (10, "u")}
    found: Counter[Point] = Counter()
    for seed in range(200):
        points = {point for point, _ in in_words(LOG, built(LOG, Objective.dense_all_action, True, 1, seed))}
        assert points >= set(ALL) | (between - of_u)
        assert len(points & of_u) == 1
        found.update(points & of_u)
    assert set(found) == of_u
    assert min(found.values()) > 0.7 * 200 / 3
    none = in_words(LOG, built(LOG, Objective.dense_all_action, True, 0))
    assert {point for point, _ in none} == set(ALL)


def test_the_weight_is_that_of_the_event_or_of_the_items_best_event() -> None:
    """Of c there is a cart before and a checkout after; e is only ever put into the cart."""
    rows: list[Event] = [
        ("u", 1.0, "page_visit", "a"),
        ("u", 11.0, "add_to_cart", "c"),
        ("u", 12.0, "checkout", "c"),
    ]
    for objective, weight in ((Objective.next_action, 0.5), (Objective.all_action, 1), (Objective.dense_all_action, 1)):
        assert built(rows, objective, positions=0).weight[0] == weight
    assert in_words(rows, built(rows, Objective.dense_all_action))[1] == ((10, "u", 2), "c")


def test_positives_at_one_instant_keep_the_order_of_the_log() -> None:
    for first, second in ("bc", "cb"):
        rows: list[Event] = [
            ("u", 1.0, "page_visit", "a"),
            ("u", 12.0, "checkout", first),
            ("u", 12.0, "checkout", second),
        ]
        assert in_words(rows, built(rows, Objective.next_action)) == [((10, "u", 1), first)]


@pytest.mark.parametrize("objective", Objective)
def test_a_log_without_examples(objective: Objective) -> None:
    assert len(built([], objective)) == 0
    assert len(built([("u", 1.0, "page_visit", "a"), ("u", 12.0, "page_visit", "b")], objective)) == 0


EVENTS = st.tuples(
    st.sampled_from(["u", "v", "w"]),
    st.integers(0, 120).map(lambda quarter: quarter / 4),  # quarter days: many events of one instant
    st.sampled_from(EVENT_NAMES),
    st.sampled_from([*CATALOGUE, None]),
)


@given(rows=st.lists(EVENTS, max_size=60), repeats=st.booleans(), positions=st.integers(0, 3), seed=st.integers(0, 9))
def test_dense_pairs_are_those_that_a_plain_search_allows(
    rows: list[Event], repeats: bool, positions: int, seed: int
) -> None:
    log = log_of(tuple(rows))
    found = built(rows, Objective.dense_all_action, repeats, positions, seed)
    assert_equal(found, built(rows, Objective.dense_all_action, repeats, positions, seed))
    when = instants(log, found)
    for number in range(len(found)):
        assert found.item[number] in allowed(log, found, number, float(when[number]), repeats)
    last = found.cutoff == CUTOFFS[-1]
    assert (when[last] == CUTOFFS[-1]).all()
    assert (when[~last] < CUTOFFS[np.searchsorted(CUTOFFS, found.cutoff[~last]) + 1]).all()
    assert (when >= found.cutoff).all()
    between = when > found.cutoff
    points = Counter(zip(found.cutoff[between].tolist(), found.user[between].tolist(), strict=True))
    assert max(points.values(), default=0) <= positions
    assert len(np.unique(found.history_end + found.cutoff * 1e3)) == len(found)  # one positive a point


def allowed(log: EventLog, examples: Examples, number: int, when: float, repeats: bool) -> set[int]:
    """The items of positive events behind the history, after its newest event and within K days of ``when``."""
    start, user = int(examples.history_end[number]), int(examples.user[number])
    own, rest = slice(log.offsets[user], start), slice(start, log.offsets[user + 1])
    assert (log.seconds[rest] >= when).all()
    assert (log.seconds[rest] > log.seconds[start - 1]).all()  # an instant is not parted
    positive = np.isin(log.name[rest], [2, 3]) & (log.seconds[rest] < when + K * DAY)
    items = set(log.item[rest][positive].tolist()) - {-1}
    return items if repeats else items - set(log.item[own].tolist())


def assert_equal(one: Examples, other: Examples) -> None:
    for name in Examples.__annotations__:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=0, atol=2e-6, err_msg=name)


def with_objective(objective: Objective) -> Settings:
    return small_settings(
        examples={"cutoffs": 4, "objective": objective, "dense_positions": 3},
        training={"batch_size": 64, "corpus_negatives": 32},
        context={"dropout": 0.0},
        model={"content_dropout": 0.0, "width": 16, "heads": 2},
    )


@pytest.fixture(scope="module", params=list(Objective))
def prepared_for(request: pytest.FixtureRequest, period: TrainingPeriod) -> tuple[Prepared, Settings]:
    settings = with_objective(request.param)
    return prepare(period.until(instant(TRAINED_UNTIL)), settings), settings


def test_examples_survive_the_table_under_every_objective(
    period: TrainingPeriod, prepared_for: tuple[Prepared, Settings]
) -> None:
    prepared, settings = prepared_for
    frame = examples_to_frame(prepared, EVENT_NAMES).sample(fraction=1, shuffle=True, seed=0)
    again = examples_of_frame(period.until(instant(TRAINED_UNTIL)), frame, settings)
    np.testing.assert_array_equal(again.subjects, prepared.subjects)
    assert_equal(again.examples, prepared.examples)


def fold_content(prepared: Prepared) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    return list(zip(prepared.folds.content, prepared.folds.cold_content, strict=True))


def test_a_batch_encodes_each_history_once_and_knows_all_positives(prepared_for: tuple[Prepared, Settings]) -> None:
    prepared, settings = prepared_for
    numbered = replace(prepared.examples, weight=np.arange(len(prepared.examples), dtype=np.float32))
    log, items = prepared.dataset.log, len(prepared.dataset.features)
    batches = ItemTask(replace(prepared, examples=numbered), settings, 15.0).batches()
    content_of_fold = [
        CatalogueTensors(prepared.dataset.features).under(*each).content for each in fold_content(prepared)
    ]
    several = 0
    for batch in batches:
        example = numbered.take(batch.weight.numpy().astype(int))
        lengths = batch.events.lengths
        histories = set(zip(example.user.tolist(), example.history_end.tolist(), strict=True))
        assert len(lengths) == len(histories)
        several += len(histories) - len(np.unique(example.user))
        slices = newest(log, example.user, example.history_end, 12)
        assert lengths[batch.state_of_row].tolist() == slices.lengths.tolist()
        content = newest_content(batch.events)
        fold = np.unique(prepared.folds.fold_of_user[example.user])
        assert len(fold) == 1
        expected = content_of_fold[fold[0]][log.item[example.history_end - 1]]
        torch.testing.assert_close(content[batch.state_of_row], expected)
        hits = accidental_hits(torch.arange(items), batch.group, batch.positive_keys, items).numpy()
        end = float(instants(log, example).max()) + 15 * DAY
        for row in range(len(example)):
            events = slice(log.offsets[example.user[row]], log.offsets[example.user[row] + 1])
            after = (log.seconds[events] >= example.cutoff[row]) & (log.seconds[events] < end)
            own = log.item[events][after & (log.name[events] > 1)]
            assert hits[row, own].all()
            assert set(np.flatnonzero(hits[row])) <= set(log.item[events].tolist())
    assert (several > 0) == (settings.examples.objective is Objective.dense_all_action)


def test_every_positive_is_among_the_items_that_negatives_are_drawn_from(
    prepared_for: tuple[Prepared, Settings],
) -> None:
    prepared, settings = prepared_for
    for cell in ItemTask(prepared, settings, 15.0).batches().cells:
        assert set(prepared.examples.item[cell.rows]) <= set(cell.pool.tolist())
        assert cell.share.sum() == pytest.approx(1)
