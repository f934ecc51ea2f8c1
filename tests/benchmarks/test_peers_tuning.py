"""What a peer learns from and is tuned on, by hand; the course of tuning with a stand-in for a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from benchmarks.peers.tasks import BOTH, CONTEXT, HISTORY, Log, PeerSplit, Queries, Task, validation
from benchmarks.peers.tuning import DEPTH, Fitted, answer, refit_and_answer, tune

Row = tuple[int, int, int, float]


def task(rows: list[Row], has_context: bool = False, candidates: Sequence[int] = range(6)) -> Task:
    """rows: user, session, item, day; the period ends with day 10, a window is 2 days."""
    user, session, item, day = map(np.array, zip(*rows, strict=True))
    log = Log(user, session, item, day * 86_400.0, 6)
    queries = Queries([np.array([0])], np.array([1 if has_context else -1]), has_context)
    return Task(log, 10 * 86_400.0, 2 * 86_400.0, np.array(candidates), queries)


@dataclass(frozen=True)
class Always:
    """Prefers the items in its order, whatever it is asked."""

    order: tuple[int, ...]

    def scores(self, sequences: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        scores = np.full((len(sequences), 6), -np.inf, np.float32)
        scores[:, self.order] = -np.arange(len(self.order))
        return scores


@dataclass
class Epochs:
    """A peer whose setting is a number; setting n shows item ``shown[n]`` only."""

    shown: tuple[int, ...]
    patience: int | None
    title: str = "stand-in"
    note: str = ""

    def __post_init__(self) -> None:
        self.asked: list[list[int]] = []
        self.events: list[int] = []

    @property
    def settings(self) -> Sequence[int]:
        return range(len(self.shown))

    def fitted(self, task: Task, wanted: Sequence[int], seed: int) -> Iterator[Fitted[int]]:
        self.asked.append([])
        self.events.append(len(task.log))
        for setting in wanted:
            self.asked[-1].append(setting)
            yield Fitted(setting, Always((self.shown[setting],)), 1.0)

    def words(self, setting: int) -> str:
        return str(setting)


def test_the_validation_slice_asks_users_for_what_is_new_to_them() -> None:
    whole = task([(7, 0, 0, 1), (7, 0, 1, 2), (8, 1, 2, 3), (7, 2, 2, 8), (7, 2, 1, 9), (7, 3, 2, 9), (9, 4, 0, 9)])
    held_out = validation(whole, seed=0)
    assert [each.tolist() for each in held_out.task.queries.history] == [[0, 1]]  # 8 was not there, 9 is new
    assert list(zip(held_out.target_query, held_out.target_item, strict=True)) == [(0, 2)]  # 1 is known, 2 once
    assert len(held_out.task.log) == 3
    assert held_out.task.end == whole.end - whole.window


def test_a_target_that_nobody_had_touched_before_is_no_target() -> None:
    with pytest.raises(ValueError, match="nothing to tune on"):
        validation(task([(7, 0, 0, 1), (7, 1, 5, 9)]), seed=0)


def test_a_period_of_one_window_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        validation(task([(7, 0, 0, 9), (7, 0, 1, 9)]), seed=0)


def test_with_context_the_slice_asks_sessions_by_their_first_item() -> None:
    before: list[Row] = [(7, 0, 0, 1), (8, 1, 1, 2), (8, 1, 2, 2), (8, 1, 3, 3)]
    inside: list[Row] = [(7, 2, 1, 8), (7, 2, 2, 8), (7, 2, 0, 8), (7, 3, 3, 9), (9, 4, 5, 9), (9, 4, 1, 9)]
    held_out = validation(task(before + inside, has_context=True), seed=0)
    queries = held_out.task.queries
    # Session 3 has one item. Item 5, the context of session 4, was not there before; 0 is in the history of session 2.
    assert queries.context.tolist() == [1, -1]
    assert [each.tolist() for each in queries.history] == [[0], []]
    assert list(zip(held_out.target_query, held_out.target_item, strict=True)) == [(0, 2), (1, 1)]
    assert [each.tolist() for each in queries.sequences(BOTH)] == [[0, 1], []]


def test_where_the_catalogue_is_of_the_moment_so_are_the_candidates_of_the_slice() -> None:
    rows: list[Row] = [(7, 0, 0, 1), (7, 0, 1, 1), (8, 1, 2, 7), (8, 1, 3, 1), (7, 2, 3, 9), (8, 3, 1, 9)]
    assert validation(task(rows), seed=0).task.candidates.tolist() == [0, 1, 2, 3]
    assert validation(task(rows, candidates=[2, 3]), seed=0).task.candidates.tolist() == [1, 2, 3]


def test_lists_hold_candidates_only_and_never_the_history_or_the_context() -> None:
    whole = replace(task([(7, 0, 0, 1), (7, 0, 5, 9)], has_context=True), candidates=np.array([0, 1, 2, 3, 5]))
    lists = answer(Always((4, 3, 1, 0, 2)), whole, HISTORY)
    assert lists.shape == (1, DEPTH)
    assert lists[0, :3].tolist() == [3, 2, -1]  # 4 is no candidate, 1 the context item, 0 the history


def test_a_query_that_the_peer_knows_nothing_of_gets_what_is_popular_now() -> None:
    rows: list[Row] = [*([(7, 0, 0, 1)] * 5), *[(7, 0, 3, 9), (8, 1, 3, 9), (7, 0, 2, 9), (7, 0, 4, 1)]]
    whole = task(rows)
    asked = replace(whole, queries=Queries([np.zeros(0, np.int64), np.array([2])], np.array([-1, -1]), False))
    assert answer(Always((1,)), asked, HISTORY)[:, :4].tolist() == [[3, 2, 0, 4], [1, -1, -1, -1]]
    assert answer(Always(()), asked, HISTORY)[1, :3].tolist() == [3, 0, 4]  # without its own 2


def test_tuning_waits_as_long_as_it_is_patient_and_the_best_is_fitted_on_everything() -> None:
    whole = task([(7, 0, 0, 1), *((8, 0, item, 1) for item in range(6)), (7, 2, 2, 9)])
    held_out = validation(whole, seed=0)  # user 7 wants item 2
    peer = Epochs((1, 3, 2, 4, 5, 1, 2), patience=3)
    best, tried = tune(peer, held_out, seed=0)
    assert (best[HISTORY].setting, tried) == (2, 6)
    assert best[HISTORY].recall_at_10 == 1
    (answered,) = refit_and_answer(peer, whole, best, seed=0)
    assert peer.asked[1] == [2]
    assert peer.events == [7, 8]
    assert answered.lists[0, :2].tolist() == [2, -1]
    assert tune(Epochs((1, 3, 2, 4, 5, 1, 2), patience=None), held_out, seed=0)[1] == 7


def test_each_way_to_ask_chooses_for_itself() -> None:
    """User 7 has no history, so what is popular answers, and the first setting will do; with the context item it takes
    the second."""
    rows: list[Row] = [(8, 1, 3, 1), *((8, 1, item, 1) for item in range(5)), (7, 2, 0, 9), (7, 2, 3, 9)]
    whole = task(rows, has_context=True)
    best, _ = tune(Epochs((1, 3, 4), patience=None), validation(whole, seed=0), seed=0)
    assert set(best) == {HISTORY, CONTEXT, BOTH}
    assert (best[HISTORY].setting, best[CONTEXT].setting) == (0, 1)


@pytest.mark.parametrize("number", [True, False])
def test_a_split_is_read_with_ids_of_either_type(tmp_path: Path, number: bool) -> None:
    def ids(*values: int) -> list[int] | list[str]:
        return list(values) if number else [f"i{value}" for value in values]

    frames = {
        "train": {"user_id": ids(1, 2, 1), "item_id": ids(12, 11, 11), "ts": [5, 9, 1], "ord": [1, 2, 0]},
        "queries": {"query_id": [5, 6], "user_id": ids(1, 9), "context_item": [*ids(12), None]},
        "history": {"query_id": [5, 5, 5], "item_id": ids(12, 11, 99), "ord": [1, 0, 2]},
        "catalogue": {"item_id": ids(12, 99)},
    }
    for name, frame in frames.items():
        pl.DataFrame(frame).write_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "meta.json").write_text(json.dumps({"cutoff": "1970-01-02 00:00:00", "window_days": 0.5}))
    split = PeerSplit.read(tmp_path)
    assert split.query_ids.tolist() == ["5", "6"]
    assert split.item_ids.tolist() == [str(each) for each in ids(11, 12)]
    assert split.task.log.item.tolist() == [0, 1, 0]  # in the order of ord
    assert split.task.candidates.tolist() == [1]  # 99 is cold
    assert (split.task.end, split.task.window) == (86_400, 43_200)
    queries = split.task.queries
    assert [each.tolist() for each in queries.history] == [[0, 1], []]
    assert queries.context.tolist() == [1, -1]
    assert queries.has_context
