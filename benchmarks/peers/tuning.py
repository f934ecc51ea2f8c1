"""The course of every peer: choose a setting on the validation slice, fit it on the whole training period, answer.

Settings are compared by the geometric mean of recall@10 and recall@100, the two columns of the table. Each way to ask
(of the context protocol) chooses for itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.tasks import Codes, Task, Validation

DEPTH = 300  # a scorer drops what is outside the chosen catalogue and moves the rest up, before it cuts at 100
BATCH = 256
NO_ITEM = -1
Setting = TypeVar("Setting")
Choice = TypeVar("Choice", covariant=True)


class Model(Protocol):
    """A fitted peer."""

    def scores(self, sequences: list[Codes]) -> NDArray[np.float32]:
        """Return [queries, items] for the items of each query, oldest first; -inf: no opinion on that item.

        No sequence is empty.
        """
        ...


@dataclass(frozen=True)
class Fitted(Generic[Choice]):
    """A model, the setting it was fitted with, and the seconds that took from nothing."""

    setting: Choice
    model: Model
    seconds: float


class Peer(Protocol[Setting]):
    """A family of models over its settings."""

    @property
    def title(self) -> str:
        """Return the name for people."""
        ...

    @property
    def note(self) -> str:
        """Return a sentence or two on the treatment of the peer."""
        ...

    @property
    def settings(self) -> Sequence[Setting]:
        """Return the settings, in the order in which they are tried."""
        ...

    @property
    def patience(self) -> int | None:
        """Return the number of settings without a better one after which tuning stops; None: tuning tries all."""
        ...

    def fitted(self, task: Task, wanted: Sequence[Setting], seed: int) -> Iterator[Fitted[Setting]]:
        """Yield a model of each wanted setting, in order."""
        ...

    def words(self, setting: Setting) -> str:
        """Return the setting, for people."""
        ...


@dataclass(frozen=True)
class Trial(Generic[Choice]):
    """A setting's recall on the validation slice."""

    setting: Choice
    recall_at_10: float
    recall_at_100: float

    @property
    def value(self) -> float:
        return math.sqrt(self.recall_at_10 * self.recall_at_100)


@dataclass(frozen=True)
class Answered:
    """Lists of one way to ask, and the cost of the lists."""

    asked: str
    setting: str
    lists: NDArray[np.int64]  # [queries, DEPTH]; NO_ITEM where a list has ended
    fit_seconds: float
    answer_seconds: float


def tune(peer: Peer[Setting], held_out: Validation, seed: int) -> tuple[dict[str, Trial[Setting]], int]:
    """Return the best trial by way to ask, and the number of settings tried."""
    best: dict[str, Trial[Setting]] = {}
    tried = last_better = 0
    for fitted in peer.fitted(held_out.task, peer.settings, seed):
        tried += 1
        for way in held_out.task.queries.ways():
            lists = answer(fitted.model, held_out.task, way)
            trial = Trial(fitted.setting, *(_recall(lists, held_out, k) for k in (10, 100)))
            better = way not in best or trial.value > best[way].value
            print(
                f"  {peer.words(fitted.setting)}, {way}: recall@10 {trial.recall_at_10:.4f}, "
                f"recall@100 {trial.recall_at_100:.4f}, {fitted.seconds:.1f} s{'; best so far' if better else ''}",
                flush=True,
            )
            if better:
                best[way], last_better = trial, tried
        if peer.patience is not None and tried - last_better >= peer.patience:
            break
    return best, tried


def refit_and_answer(
    peer: Peer[Setting], whole: Task, chosen: dict[str, Trial[Setting]], seed: int
) -> Iterator[Answered]:
    """Yield each way's lists by its chosen setting, fitted on the whole training period."""
    settings = [trial.setting for trial in chosen.values()]
    wanted = [setting for setting in peer.settings if setting in settings]
    for fitted in peer.fitted(whole, wanted, seed):
        for way, trial in chosen.items():
            if trial.setting == fitted.setting:
                started = time.perf_counter()
                lists = answer(fitted.model, whole, way)
                seconds = time.perf_counter() - started
                yield Answered(way, peer.words(fitted.setting), lists, fitted.seconds, seconds)


def answer(model: Model, task: Task, way: str) -> NDArray[np.int64]:
    """Return [queries, DEPTH] items, best first, -1 at the end of short lists.

    A query without an opinion of the model (no known item, no neighbour) gets the most popular items of the newest
    window, as an operator of such a model would do.
    """
    queries, candidates = task.queries, task.candidates
    sequences, excluded = queries.sequences(way), queries.excluded()
    popular = _popularity(task)
    place = np.full(task.log.items, NO_ITEM)
    place[candidates] = np.arange(len(candidates))
    parts = [np.zeros((0, DEPTH), np.int64)]
    for start in range(0, len(queries), BATCH):
        rows = range(start, min(start + BATCH, len(queries)))
        scores = np.full((len(rows), len(candidates)), -np.inf, np.float32)
        asked = [number for number, row in enumerate(rows) if len(sequences[row])]
        if asked:
            scores[asked] = model.scores([sequences[rows[number]] for number in asked])[:, candidates]
        scores[~np.isfinite(scores).any(axis=1)] = popular
        best = _best(scores, [place[excluded[row]] for row in rows])
        parts.append(np.where(best == NO_ITEM, NO_ITEM, candidates[best]))
    return np.concatenate(parts)


def _popularity(task: Task) -> NDArray[np.float32]:
    """Return [candidates] events in the newest window; events of all time break ties."""
    recent = np.bincount(task.recent().item, minlength=task.log.items)
    ever = np.bincount(task.log.item, minlength=task.log.items)
    return (recent + ever / (ever.max() + 1))[task.candidates].astype(np.float32)


def _best(scores: NDArray[np.float32], excluded: list[Codes]) -> NDArray[np.int64]:
    """Return [rows, DEPTH] the columns of the best finite scores, without the excluded columns (-1 is none).

    Of equal scores the lower column comes first.
    """
    row, column = np.repeat(np.arange(len(excluded)), [len(each) for each in excluded]), np.concatenate(excluded)
    scores[row[column != NO_ITEM], column[column != NO_ITEM]] = -np.inf
    lists = np.full((len(scores), DEPTH), NO_ITEM, np.int64)
    kept = min(DEPTH, scores.shape[1])
    # The score of the last place decides who is in; sorting the whole row would be the slow way.
    threshold = np.partition(scores, scores.shape[1] - kept, axis=1)[:, scores.shape[1] - kept]
    for number, least in enumerate(threshold):
        inside = np.flatnonzero((scores[number] >= least) & np.isfinite(scores[number]))
        best = inside[np.argsort(-scores[number, inside], kind="stable")][:DEPTH]
        lists[number, : len(best)] = best
    return lists


def _recall(lists: NDArray[np.int64], held_out: Validation, k: int) -> float:
    shown = lists[held_out.target_query, :k]
    return float((shown == held_out.target_item[:, None]).any(axis=1).mean())
