"""Training examples: users at cut-offs, and the items that they convert with in the K days after.

The objective of this module is all-action: every distinct positive item of the window is one example, with a weight by
its event name. The other objectives are in ``ml.examples.objectives``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.features.event_log import EventLog
from ml.features.items import DAY


@dataclass(frozen=True)
class LabelRule:
    """The rule that says which events are positives."""

    event_names: tuple[str, ...]
    window_days: float
    repeats_count: bool  # whether an item of the user's own history may be a positive again
    weights: dict[str, float]


@dataclass(frozen=True)
class Examples:
    """Pairs (user at a cut-off, positive item), grouped by cut-off, then user."""

    cutoff: NDArray[np.float64]  # [examples] seconds
    user: NDArray[np.int64]  # [examples] row of the event log
    history_end: NDArray[np.int64]  # [examples] flat position behind the last event of the history
    item: NDArray[np.int64]  # [examples] catalogue row of the positive
    weight: NDArray[np.float32]  # [examples]
    name: NDArray[np.int64]  # [examples] code of the positive's event name

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: NDArray[np.int64]) -> Examples:
        return Examples(
            self.cutoff[rows],
            self.user[rows],
            self.history_end[rows],
            self.item[rows],
            self.weight[rows],
            self.name[rows],
        )


def training_cutoffs(
    end: float, first: float, span_days: float, *, window_days: float, count: int
) -> NDArray[np.float64]:
    """Return ``count`` instants, in seconds, evenly spaced over the span.

    The last instant is one window before ``end``; none is before ``first``. Where the log is too short for several
    instants, only the last one is returned.

    >>> days = training_cutoffs(end=100 * DAY, first=0.0, span_days=60, window_days=20, count=3) / DAY
    >>> days.tolist()
    [40.0, 60.0, 80.0]
    """
    last = end - window_days * DAY
    earliest = max(end - span_days * DAY, first + window_days * DAY / 4)
    return np.linspace(last, earliest, count)[::-1] if earliest < last else np.array([last])


def examples_at(log: EventLog, cutoff: float, rule: LabelRule, event_names: list[str]) -> Examples:
    """Return every (user, positive item) of the window [cutoff, cutoff + K), for users known before the cut-off.

    A pair occurs once, with the largest weight among its events; items outside the catalogue make no example.
    """
    names, weights = positive_names(rule, event_names)
    known_until = log.known_until(cutoff)
    in_window = (log.seconds >= cutoff) & (log.seconds < cutoff + rule.window_days * DAY) & (log.item >= 0)
    flat = np.flatnonzero(in_window & np.isin(log.name, names))
    user = np.searchsorted(log.offsets, flat, side="right") - 1
    has_history = known_until[user] > log.offsets[user]
    flat, user = flat[has_history], user[has_history]
    pairs = (
        pl.DataFrame({"user": user, "item": log.item[flat], "name": log.name[flat], "weight": weights[log.name[flat]]})
        .sort("user", "item", "weight", "name", descending=[False, False, True, False])
        .unique(["user", "item"], keep="first", maintain_order=True)
    )
    if not rule.repeats_count:
        pairs = pairs.join(_history_pairs(log, pairs["user"].unique(), known_until), on=["user", "item"], how="anti")
        pairs = pairs.sort("user", "item")
    users = pairs["user"].to_numpy()
    return Examples(
        cutoff=np.full(len(pairs), cutoff),
        user=users,
        history_end=known_until[users],
        item=pairs["item"].to_numpy(),
        weight=pairs["weight"].to_numpy(),
        name=pairs["name"].to_numpy(),
    )


def positive_names(rule: LabelRule, event_names: list[str]) -> tuple[list[int], NDArray[np.float32]]:
    """Return the codes of the positive event names, and the weight of a positive by its code [codes]."""
    names = [event_names.index(name) + 1 for name in rule.event_names if name in event_names]
    weights = np.ones(len(event_names) + 1, np.float32)
    for name, weight in rule.weights.items():
        if name in event_names:
            weights[event_names.index(name) + 1] = weight
    return names, weights


def together(parts: list[Examples], maximum: int, seed: int) -> Examples:
    """Join the examples of all cut-offs; above ``maximum``, keep a uniform sample of the users at cut-offs.

    A sampled user keeps all of their positives: the loss has to know them, or it would count one of them as a negative.
    """
    every = joined(parts)
    if len(every) <= maximum:
        return every
    begins = np.flatnonzero((np.diff(every.cutoff, prepend=-1) != 0) | (np.diff(every.user, prepend=-1) != 0))
    counts = np.diff(begins, append=len(every))
    order = np.random.default_rng(seed).permutation(len(counts))
    kept = np.zeros(len(counts), bool)
    kept[order[np.cumsum(counts[order]) <= maximum]] = True
    return every.take(np.flatnonzero(np.repeat(kept, counts)))


def joined(parts: list[Examples]) -> Examples:
    """Return the examples of all parts, one part after the other."""
    return Examples(*(np.concatenate([getattr(part, field) for part in parts]) for field in Examples.__annotations__))


def _history_pairs(log: EventLog, users: pl.Series, known_until: NDArray[np.int64]) -> pl.DataFrame:
    """Return the distinct pairs (user, item) that ``users`` had before the cut-off."""
    rows = users.to_numpy()
    positions, owner = ranges(log.offsets[rows], known_until[rows])
    return pl.DataFrame({"user": rows[owner], "item": log.offsite.item[positions]}).unique()


def ranges(start: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Join the ranges start..end into one array, and return for each position the number of its range.

    >>> position, owner = ranges(np.array([4, 0]), np.array([6, 3]))
    >>> position.tolist(), owner.tolist()
    ([4, 5, 0, 1, 2], [0, 0, 1, 1, 1])
    """
    lengths = end - start
    owner = np.repeat(np.arange(len(start)), lengths)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return start[owner] + within, owner
