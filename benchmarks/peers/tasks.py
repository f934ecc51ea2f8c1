"""A split as a peer sees it: the events it may learn from, and what it is asked; the same for a validation slice.

Runs in the peers' environment: numpy, pandas and pyarrow. Items are numbered by their place among the training period's
items; an item that is not among them is unknown to every peer and left out of what is asked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from numpy.typing import NDArray

UNKNOWN = -1
DAY_SECONDS = 86_400.0
VALIDATION_QUERIES = 5_000  # drawn when the slice has more: tuning asks them once for each setting

HISTORY, CONTEXT, BOTH = "history", "context item", "history + context item"

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Log:
    """Events in time order; users, sessions (of one user) and items as codes."""

    user: Codes
    session: Codes
    item: Codes
    seconds: NDArray[np.float64]
    items: int  # in the numbering, with or without events

    def __len__(self) -> int:
        return len(self.item)

    def where(self, keep: NDArray[np.bool_]) -> Log:
        return Log(self.user[keep], self.session[keep], self.item[keep], self.seconds[keep], self.items)


@dataclass(frozen=True)
class Queries:
    """Query q knows the items ``history[q]`` (oldest first) and, in the context protocol, looks at ``context[q]``
    (-1: at nothing, or at an item nobody had touched in training)."""

    history: list[Codes]
    context: Codes
    has_context: bool

    def __len__(self) -> int:
        return len(self.history)

    def ways(self) -> tuple[str, ...]:
        """Return the ways to ask, named by the parts of a query."""
        return (HISTORY, CONTEXT, BOTH) if self.has_context else (HISTORY,)

    def sequences(self, way: str) -> list[Codes]:
        """Return the input of the peer for each query: items, oldest first; the context item comes last."""
        contexts = [self.context[q : q + 1][self.context[q : q + 1] != UNKNOWN] for q in range(len(self))]
        if way == HISTORY:
            return self.history
        if way == CONTEXT:
            return contexts
        return [np.concatenate(pair) for pair in zip(self.history, contexts, strict=True)]

    def excluded(self) -> list[Codes]:
        """Return the items that a list must not hold, whatever the way: the history and the context item."""
        return self.sequences(BOTH)

    def take(self, rows: Codes) -> Queries:
        return Queries([self.history[row] for row in rows], self.context[rows], self.has_context)


@dataclass(frozen=True)
class Task:
    """Learn from ``log``, which ends at ``end``; rank ``candidates`` for ``queries``."""

    log: Log
    end: float  # seconds
    window: float  # seconds: what is predicted, and what counts as recent
    candidates: Codes
    queries: Queries

    def recent(self) -> Log:
        """Return the events of the newest window."""
        return self.log.where(self.log.seconds >= self.end - self.window)


@dataclass(frozen=True)
class Validation:
    """A task inside the training period whose outcome is known: (query row, item) pairs, distinct."""

    task: Task
    target_query: Codes
    target_item: Codes


@dataclass(frozen=True)
class PeerSplit:
    """The split's files as a task, and the ids to write the answers with."""

    task: Task
    query_ids: NDArray[np.object_]
    item_ids: NDArray[np.object_]

    @classmethod
    def read(cls, directory: Path) -> PeerSplit:
        """Read all files of the split but the targets."""
        meta = json.loads((directory / "meta.json").read_text())
        train = _read(directory, "train").sort_values("ord", kind="stable")
        queries, history = _read(directory, "queries"), _read(directory, "history")
        items = pd.Index(train["item_id"].unique()).sort_values()
        ids = pd.Index(queries["query_id"])
        history = history.sort_values("ord", kind="stable")
        log = Log(
            user=pd.factorize(train["user_id"])[0].astype(np.int64),
            session=_sessions(train),
            item=items.get_indexer(train["item_id"]).astype(np.int64),
            seconds=train["ts"].to_numpy(np.float64),
            items=len(items),
        )
        context = items.get_indexer(queries["context_item"]).astype(np.int64)
        candidates = items.get_indexer(_read(directory, "catalogue")["item_id"])
        task = Task(
            log=log,
            end=datetime.fromisoformat(meta["cutoff"]).replace(tzinfo=UTC).timestamp(),
            window=float(meta["window_days"]) * DAY_SECONDS,
            candidates=np.sort(candidates[candidates != UNKNOWN]).astype(np.int64),
            queries=Queries(
                history=_grouped(
                    ids.get_indexer(history["query_id"]), items.get_indexer(history["item_id"]), len(queries)
                ),
                context=context,
                has_context=bool(queries["context_item"].notna().any()),
            ),
        )
        return cls(task, ids.to_numpy(object), items.to_numpy(object))


def validation(whole: Task, seed: int) -> Validation:
    """Return the newest window of the training period, asked as the split asks.

    Each user is asked at the window's start (temporal); or each session of the window is a query, whose first item is
    the context and whose other items are the targets (context).

    Raises:
        ValueError: the window, or the time before the window, is empty.
    """
    start = whole.end - whole.window
    before, inside = whole.log.where(whole.log.seconds < start), whole.recent()
    if not len(before) or not len(inside):
        raise ValueError("the training period is too short to hold a validation window: there is nothing to tune on")
    asked = _by_session(before, inside) if whole.queries.has_context else _by_user(before, inside)
    queries, target_query, target_item = asked
    candidates = _candidates(whole, before, inside)
    keep = np.isin(target_item, candidates)
    target_query, target_item = target_query[keep], target_item[keep]
    answerable = np.unique(target_query)
    if not len(answerable):
        raise ValueError("no target of the validation window was seen before it: there is nothing to tune on")
    if len(answerable) > VALIDATION_QUERIES:
        draw = np.random.default_rng(seed).choice(answerable, VALIDATION_QUERIES, replace=False)
        answerable = np.sort(draw)
    row = np.full(len(queries), UNKNOWN)
    row[answerable] = np.arange(len(answerable))
    kept = row[target_query] != UNKNOWN
    task = Task(before, start, whole.window, candidates, queries.take(answerable))
    return Validation(task, row[target_query[kept]], target_item[kept])


def _candidates(whole: Task, before: Log, inside: Log) -> Codes:
    """Return the items that were seen before the window.

    Where the split's catalogue leaves out items of its training period (news), only items also seen in the window or
    within one window before count: such a catalogue is made that way.
    """
    seen = np.unique(before.item)
    if len(whole.candidates) == whole.log.items:
        return seen
    newest = before.item[before.seconds >= before.seconds.max() - whole.window]
    return np.intersect1d(seen, np.concatenate([newest, inside.item]))


def _by_user(before: Log, inside: Log) -> tuple[Queries, Codes, Codes]:
    """Return a query for each user known before; targets are the distinct window items that are new to the user."""
    users = np.intersect1d(before.user, inside.user)
    history = _grouped(_rows(users, before.user), before.item, len(users))
    query = _rows(users, inside.user)
    targets = _new_pairs(query, inside.item, history)
    return Queries(history, np.full(len(users), UNKNOWN), False), *targets


def _by_session(before: Log, inside: Log) -> tuple[Queries, Codes, Codes]:
    """Return a query for each session of two items or more; the history is the user's events before the session."""
    sessions, first, query = np.unique(inside.session, return_index=True, return_inverse=True)
    context, user, start = inside.item[first], inside.user[first], inside.seconds[first]
    items = np.concatenate([before.item, inside.item])
    seconds = np.concatenate([before.seconds, inside.seconds])
    of_user = pd.Series(np.arange(len(items))).groupby(np.concatenate([before.user, inside.user])).indices
    history = []
    for row in range(len(sessions)):
        events = of_user[user[row]]  # in time order, as the logs are
        history.append(items[events[seconds[events] < start[row]]])
    seen = [np.append(history[row], context[row]) for row in range(len(sessions))]
    targets = _new_pairs(query, inside.item, seen)
    known = np.where(np.isin(context, before.item), context, UNKNOWN)
    return Queries(history, known, True), *targets


def _new_pairs(query: Codes, item: Codes, seen: list[Codes]) -> tuple[Codes, Codes]:
    """Return the distinct (query, item) pairs without those in ``seen``; query -1 is dropped."""
    pairs = pd.DataFrame({"query": query, "item": item})[query != UNKNOWN].drop_duplicates()
    known = pd.DataFrame({"query": np.repeat(np.arange(len(seen)), [len(each) for each in seen])})
    known["item"] = np.concatenate([*seen, np.zeros(0, np.int64)])
    merged = pairs.merge(known.drop_duplicates(), how="left", on=["query", "item"], indicator=True)
    new = merged[merged["_merge"] == "left_only"]
    return new["query"].to_numpy(np.int64), new["item"].to_numpy(np.int64)


def _rows(values: Codes, wanted: Codes) -> Codes:
    return pd.Index(values).get_indexer(wanted).astype(np.int64)


def _grouped(query: Codes, item: Codes, queries: int) -> list[Codes]:
    """Return the items by query, in order; unknown items and queries are dropped."""
    known = (query != UNKNOWN) & (item != UNKNOWN)
    query, item = query[known], item[known]
    order = np.argsort(query, kind="stable")
    return np.split(item[order].astype(np.int64), np.cumsum(np.bincount(query, minlength=queries))[:-1])


def _sessions(train: pd.DataFrame) -> Codes:
    """Return the codes of (user, session); a user's UTC day is a session where the split names none."""
    session = train["session_id"] if "session_id" in train else train["ts"] // DAY_SECONDS
    return train.assign(session=session).groupby(["user_id", "session"], sort=False).ngroup().to_numpy(np.int64)


def _read(directory: Path, name: str) -> pd.DataFrame:
    """Return a file of the split with ids as text, whatever the type of the file."""
    frame = pd.read_parquet(directory / f"{name}.parquet")
    for column in ("query_id", "user_id", "item_id", "context_item"):
        if column in frame:
            values = frame[column]
            if pd.api.types.is_float_dtype(values):  # a nullable integer column of pandas
                values = values.astype("Int64")
            frame[column] = values.astype("string").astype(object)
    return frame
