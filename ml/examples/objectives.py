"""Objectives: the examples of a cut-off ask for the next, for all, or for random ones of the positives to come.

After Pancha et al., 2022, "PinnerFormer: Sequence Modeling for User Representation at Pinterest":

    next_action        each user's first positive of the K days after the cut-off
    all_action         every distinct positive item of the K days after the cut-off
    dense_all_action   besides the cut-off itself, random events of each user until the next cut-off; for each of these
                       points one of the distinct positive items of the K days after the point, drawn at random

PinnerFormer reads its causal transformer at random positions of one sequence. The encoder here is bidirectional, so
each position is a history of its own, which ends at the position and is encoded by itself. A position belongs to the
newest cut-off at or before the position. So the as-of features of a batch are never newer than the position, though up
to one step between cut-offs older. There are no positions after the last cut-off, because their windows of K days would
leave the period. Events with equal timestamps have no defined order, so neither a position nor a cut-off ever falls
between two of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.examples.pairs import Examples, LabelRule, examples_at, positive_names, ranges, together
from ml.features.event_log import EventLog
from ml.features.items import DAY
from settings import ExampleSettings, Objective


@dataclass(frozen=True)
class Points:
    """Points at which a prediction is made: users, each with a history that is not empty."""

    user: NDArray[np.int64]  # [points] row of the event log
    history_end: NDArray[np.int64]  # [points] flat position behind the last event of the history
    instant: NDArray[np.float64]  # [points] seconds; all of the history is before it or, at an event, at it

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Labels:
    """The positive events of a log."""

    rule: LabelRule
    flat: NDArray[np.int64]  # [positives] flat positions, ascending
    first: NDArray[np.int64]  # [positives] flat position of the user's first event with the same item
    weights: NDArray[np.float32]  # [codes of event names]

    @staticmethod
    def of(log: EventLog, rule: LabelRule, event_names: list[str]) -> Labels:
        names, weights = positive_names(rule, event_names)
        events = pl.DataFrame({"user": log.user_of_event(), "item": log.offsite.item, "flat": np.arange(log.events)})
        first = events.select(pl.col("flat").min().over("user", "item"))["flat"].to_numpy()
        flat = np.flatnonzero(np.isin(log.name, names) & (log.item >= 0))
        return Labels(rule, flat, first[flat], weights)

    def after(self, log: EventLog, points: Points) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the positives of the K days after each point: flat positions, and for each the row of ``points``.

        The positives are in order of point, then time. Where repeats do not count, items of the point's own history are
        left out.
        """
        window = self.rule.window_days * DAY
        latest = log.known_until(float(points.instant.max(initial=-np.inf)) + window)[points.user]
        rows, owner = ranges(np.searchsorted(self.flat, points.history_end), np.searchsorted(self.flat, latest))
        kept = log.seconds[self.flat[rows]] < points.instant[owner] + window
        if not self.rule.repeats_count:
            kept &= self.first[rows] >= points.history_end[owner]
        return self.flat[rows[kept]], owner[kept]

    def come_after(self, log: EventLog, points: Points) -> NDArray[np.bool_]:
        """Return whether a positive event, a repeat or not, follows each point within K days [points]."""
        following = np.searchsorted(self.flat, points.history_end)
        event = np.append(self.flat, log.events)[following]
        seconds = np.append(log.seconds, np.inf)[event]
        return (event < log.offsets[points.user + 1]) & (seconds < points.instant + self.rule.window_days * DAY)


def build_examples(
    log: EventLog,
    cutoffs: NDArray[np.float64],
    rule: LabelRule,
    *,
    event_names: list[str],
    settings: ExampleSettings,
    seed: int,
) -> Examples:
    """Build examples at all cut-offs (ascending) under the settings' objective; see ``ml.examples.pairs.together``."""
    if settings.objective is Objective.all_action:
        parts = [examples_at(log, float(cutoff), rule, event_names) for cutoff in cutoffs]
        return together(parts, settings.maximum_examples, seed)
    labels = Labels.of(log, rule, event_names)
    if settings.objective is Objective.next_action:
        parts = [next_action_at(log, float(cutoff), labels) for cutoff in cutoffs]
    else:
        ends = [*cutoffs[1:], cutoffs[-1]]
        parts = [
            dense_all_action_at(
                log,
                float(cutoff),
                float(end),
                labels=labels,
                positions=settings.dense_positions,
                random=np.random.default_rng([seed, number]),
            )
            for number, (cutoff, end) in enumerate(zip(cutoffs, ends, strict=True))
        ]
    return together(parts, settings.maximum_examples, seed)


def next_action_at(log: EventLog, cutoff: float, labels: Labels) -> Examples:
    """Return each user's first positive of the K days after the cut-off, with the weight of that event.

    If several positives happen at that instant, the first in the order of the log is taken.

    A user visits item 0 at second 0 and buys item 1 at second 10 and item 2 at second 20; the cut-off is at second 5:

    >>> one, zeros = pl.Series(["ann"]), np.zeros((3, 1), int)
    >>> log = EventLog(one, np.array([0, 3]), np.arange(3), np.array([1, 2, 2]), zeros, np.array([0.0, 10, 20]))
    >>> rule = LabelRule(("checkout",), window_days=1, repeats_count=False, weights={"checkout": 3.0})
    >>> examples = next_action_at(log, 5.0, Labels.of(log, rule, ["page_visit", "checkout"]))
    >>> examples.item.tolist(), examples.history_end.tolist(), examples.weight.tolist()
    ([1], [1], [3.0])
    """
    points = _at_cutoff(log, cutoff)
    flat, owner = labels.after(log, points)
    owner, first = np.unique(owner, return_index=True)
    return _examples(log, cutoff, points, owner=owner, flat=flat[first], labels=labels)


def dense_all_action_at(
    log: EventLog, cutoff: float, end: float, *, labels: Labels, positions: int, random: np.random.Generator
) -> Examples:
    """Draw one positive item for each user at the cut-off, and one at each of some events in [cutoff, end).

    The events are up to ``positions`` random ones of each user. If an item has several positive events, the event of
    the largest weight counts, as in all-action.
    """
    between = _positions(log, cutoff, end)
    between = _take(between, np.flatnonzero(labels.come_after(log, between)))
    between = _take(between, _sample(between.user, positions, random))
    at = _at_cutoff(log, cutoff)
    points = Points(
        np.concatenate([at.user, between.user]),
        np.concatenate([at.history_end, between.history_end]),
        np.concatenate([at.instant, between.instant]),
    )
    flat, owner = labels.after(log, points)
    items = (
        pl.DataFrame({"point": owner, "item": log.item[flat], "weight": labels.weights[log.name[flat]], "flat": flat})
        .sort("point", "item", "weight", "flat", descending=[False, False, True, False])
        .unique(["point", "item"], keep="first", maintain_order=True)
    )
    flat, owner = items["flat"].to_numpy(), items["point"].to_numpy()
    owner, first, counts = np.unique(owner, return_index=True, return_counts=True)
    drawn = flat[first + (random.random(len(first)) * counts).astype(np.int64)]
    order = np.lexsort((points.history_end[owner], log.item[drawn], points.user[owner]))
    return _examples(log, cutoff, points, owner=owner[order], flat=drawn[order], labels=labels)


def instants(log: EventLog, examples: Examples) -> NDArray[np.float64]:
    """Return the instant of each example's prediction [examples].

    The instant is the cut-off, or the newest event of the history where the history reaches beyond the cut-off.
    """
    newest = np.where(examples.history_end > log.offsets[examples.user], log.seconds[examples.history_end - 1], -np.inf)
    return np.maximum(examples.cutoff, newest)


def window_positives(log: EventLog, examples: Examples, end: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return users and items of all positives from the cut-off up to ``end``.

    The users are those of the examples, which are of one cut-off. An objective that takes only some of a user's
    positives must not make negatives of the others. The event names of the examples are the positive ones.
    """
    in_window = (log.seconds >= examples.cutoff.min()) & (log.seconds < end) & (log.item >= 0)
    flat = np.flatnonzero(in_window & np.isin(log.name, np.unique(examples.name)))
    user = np.searchsorted(log.offsets, flat, side="right") - 1
    pairs = pl.DataFrame({"user": user, "item": log.item[flat]}).unique().sort("user", "item")
    pairs = pairs.filter(pl.Series(np.isin(pairs["user"].to_numpy(), examples.user)))
    return pairs["user"].to_numpy(), pairs["item"].to_numpy()


def _examples(
    log: EventLog,
    cutoff: float,
    points: Points,
    *,
    owner: NDArray[np.int64],
    flat: NDArray[np.int64],
    labels: Labels,
) -> Examples:
    """Build the examples of the points ``owner`` with the positives at ``flat`` [examples]."""
    return Examples(
        cutoff=np.full(len(owner), cutoff),
        user=points.user[owner],
        history_end=points.history_end[owner],
        item=log.item[flat],
        weight=labels.weights[log.name[flat]],
        name=log.name[flat],
    )


def _at_cutoff(log: EventLog, cutoff: float) -> Points:
    """Return a point for every user who was known before the cut-off."""
    known_until = log.known_until(cutoff)
    users = np.flatnonzero(known_until > log.offsets[:-1])
    return Points(users, known_until[users], np.full(len(users), cutoff))


def _positions(log: EventLog, start: float, end: float) -> Points:
    """Return a point for every event in [start, end) that is the last event of its user at its instant."""
    flat = np.flatnonzero((log.seconds >= start) & (log.seconds < end))
    user = np.searchsorted(log.offsets, flat, side="right") - 1
    last = flat + 1 == log.offsets[user + 1]
    later = np.append(log.seconds, np.inf)[flat + 1] > log.seconds[flat]
    kept = last | later
    return Points(user[kept], flat[kept] + 1, log.seconds[flat[kept]])


def _sample(user: NDArray[np.int64], maximum: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw up to ``maximum`` random rows of each user, ascending. ``user``: [rows], ascending."""
    order = np.lexsort((random.random(len(user)), user))
    place = np.arange(len(user)) - np.searchsorted(user, user)
    return np.sort(order[place < maximum])


def _take(points: Points, rows: NDArray[np.int64]) -> Points:
    return Points(points.user[rows], points.history_end[rows], points.instant[rows])
