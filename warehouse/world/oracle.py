"""The oracle: the true probability of every item to be among a user's positives, given the latent state at the cut-off.

Futures are simulated from the state by the very step that made the world. Only the course of the intents is sampled;
the choice of items within a session is integrated exactly (Rao-Blackwell), so that some hundred futures suffice.

A click on an ad may open an intent. The clicks until the cut-off are in the state; later ones are not in the
futures, so what they lead to is missing from the probabilities.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from math import ceil
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.world.dynamics import Sessions, State, World, step
from warehouse.world.generate import read_settings
from warehouse.world.settings import WorldSettings
from warehouse.world.simulation import build_world, live

USERS_A_BLOCK = 200  # some blocks for each thread
CELLS_A_BLOCK = 10_000_000  # futures of users times items that each thread simulates together: more leave the caches
# Breaks ties between items that no future reached, by popularity; far below one visit in any number of futures.
PRIOR = 1e-9


@dataclass(frozen=True)
class Knowledge:
    """The oracle's knowledge at the cut-off: the latent state of some users, and the items of their earlier events."""

    world: World
    state: State
    seen: NDArray[np.bool_]  # (users, items)
    day: int


def oracle_ranking(
    landing_root: Path,
    as_of: date,
    user_ids: list[str],
    *,
    item_ids: list[str],
    window_days: float,
    futures: int,
    depth: int,
) -> pl.DataFrame:
    """Return items by the true probability that they become positives of the user within the window, best first.

    A positive is an add_to_cart or checkout of an item that the user has not engaged with by the cut-off (the world's
    manifest says ``repeats_count = false``), so items with earlier engagement are left out.

    Args:
        landing_root: a landing zone that ``write_world`` wrote.
        as_of: the last known day; the cut-off is its end.
        item_ids: candidates. An item that appears only after the cut-off may be among them.
        window_days: length of the window after the cut-off.
        futures: simulated futures a user.
        depth: length of the lists.

    Returns:
        ``user_id``, ``rank`` (from 1), ``item_id``; users in the given order.

    Raises:
        FileNotFoundError: the landing zone holds no synthetic world.
        ValueError: an unknown user or item, or a cut-off before the world began.
    """
    knowledge = know(read_settings(landing_root), as_of, user_ids, window_days)
    candidates = item_indices(item_ids, knowledge.world)
    length = min(depth, len(candidates))

    def lists_of_block(first: int) -> list[NDArray[np.int64]]:
        rows = np.arange(first, min(first + USERS_A_BLOCK, len(user_ids)))
        probability = positive_probabilities(knowledge, rows, window_days, futures=futures)
        value = (probability + _prior(knowledge))[:, candidates]
        value[knowledge.seen[rows][:, candidates]] = -1.0
        return best_columns(value, length)

    with worker_threads() as workers:
        blocks = workers.map(lists_of_block, range(0, len(user_ids), USERS_A_BLOCK))
        lists = [columns for block in blocks for columns in block]
    names = pl.Series(item_ids, dtype=pl.String)
    counts = [len(best) for best in lists]
    chosen = np.concatenate([np.zeros(0, dtype=np.int64), *lists])
    return pl.DataFrame(
        {
            "user_id": pl.Series(user_ids, dtype=pl.String).gather(np.repeat(np.arange(len(user_ids)), counts)),
            "rank": np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(1, count + 1) for count in counts)]),
            "item_id": names.gather(chosen),
        }
    )


def worker_threads() -> ThreadPoolExecutor:
    """Return as many threads as there are cores for this process.

    numpy releases the interpreter in its loops. Each block of users or requests has random numbers of its own, so the
    lists do not depend on the number of threads.
    """
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())


def know(settings: WorldSettings, as_of: date, user_ids: Sequence[str], window_days: float) -> Knowledge:
    """Replay the world up to the end of ``as_of``.

    Raises:
        ValueError: an unknown user, a cut-off before the world began, or an empty window.
    """
    day = settings.day_number(as_of)
    if day < 0:
        raise ValueError(f"as_of is {as_of}, but the world begins on {settings.start}.")
    if window_days <= 0:
        raise ValueError(f"window_days is {window_days}; it must be above 0.")
    world = build_world(settings, day + ceil(window_days))
    person = _indices(user_ids, world.population.ids, "user")
    rows_of = np.full(world.population.count, -1)
    rows_of[person] = np.arange(len(person))
    seen = np.zeros((len(person), world.catalogue.items.count + 1), dtype=bool)
    latest = State.empty(np.arange(0))
    for lived in live(world, day):
        sessions, latest = lived.sessions, lived.state
        row = rows_of[sessions.rows]
        ours = row >= 0
        seen[row[ours][:, None], sessions.visited[ours]] = True
        bought = ours & (sessions.bought >= 0)
        seen[row[bought], sessions.bought[bought]] = True
    missing = State.empty(np.arange(len(latest.person), world.population.count))  # who joins after the cut-off
    return Knowledge(world, latest.join(missing).take(person), seen[:, :-1], day)


def positive_probabilities(
    knowledge: Knowledge, rows: NDArray[np.int64], window_days: float, *, futures: int, first_future: int = 0
) -> NDArray[np.float64]:
    """Return the probability of a first add_to_cart of each item within the window (users, items).

    Items engaged with before are included. Every checkout follows an add_to_cart, so these add_to_carts are the
    positives. Within one future the rates of an item add up over sessions; the probability is ``1 - exp(-rate)``,
    averaged over the futures.

    Args:
        rows: users, as rows of ``knowledge.state``.
        first_future: number of the first future; disjoint ranges are independent estimates.
    """
    world = knowledge.world
    total = np.zeros((len(rows), world.catalogue.items.count + 1))
    at_once = max(1, min(futures, CELLS_A_BLOCK // max(1, len(rows) * total.shape[1])))
    for done in range(0, futures, at_once):
        count = min(at_once, futures - done)
        state = knowledge.state.take(np.tile(rows, count))
        # Keyed by the first user as well, so that two blocks of users never share their luck.
        stream = ((first_future + done) << 20) + int(rows[0]) if len(rows) else 0
        generator = world.settings.generator("futures", knowledge.day, stream)
        days = range(ceil(window_days))
        sessions = [step(world, state, knowledge.day + 1 + offset, generator) for offset in days]
        shares = [min(1.0, window_days - offset) for offset in days]
        _add_probabilities(world, sessions, shares, total)
    return total[:, :-1] / futures


def _add_probabilities(
    world: World, sessions: Sequence[Sessions], shares: Sequence[float], total: NDArray[np.float64]
) -> None:
    """Add to ``total`` (users, items + 1) the probability of each item in each of the futures of the users.

    Args:
        sessions: of each day of the window; walker w is a future of user ``w % users``.
        shares: of each day that is within the window.

    A walker's sessions are in a few leaves of the catalogue, and an item is in one leaf. So the rates are added by
    walker and leaf; all other items have none.
    """
    catalogue = world.catalogue
    leaves = len(catalogue.leaf_items)
    row, leaf = (np.concatenate([getattr(day, name) for day in sessions]) for name in ("rows", "leaf"))
    carted = np.concatenate([np.array(world.settings.cart_probabilities)[day.stage] for day in sessions])
    visits = np.concatenate([share * day.visits for day, share in zip(sessions, shares, strict=True)])
    chosen = np.concatenate([day.choice.probability for day in sessions])
    walk = row * leaves + leaf
    order = np.argsort(walk, kind="stable")
    for places, width in catalogue.by_width(leaf[order]):
        these = order[places]
        hit = np.minimum(chosen[these, :width] * carted[these, None], 1 - 1e-9)
        rate = -visits[these, None] * np.log1p(-hit)  # -log P(item not carted)
        of_walk, first = np.unique(walk[these], return_index=True)
        probability = -np.expm1(-np.add.reduceat(rate, first, axis=0))
        user, items = of_walk // leaves % len(total), catalogue.leaf_items[of_walk % leaves, :width]
        np.add.at(total, (user[:, None], items), probability)


def _prior(knowledge: Knowledge) -> NDArray[np.float64]:
    """Return a vanishing preference for popular items on the day of the cut-off (items,)."""
    catalogue = knowledge.world.catalogue
    weight = np.exp(catalogue.log_popularity(knowledge.day)) * catalogue.leaves.weight[catalogue.items.leaf]
    prior: NDArray[np.float64] = PRIOR * weight / weight.sum()
    return prior


def best_columns(value: NDArray[np.float64], length: int) -> list[NDArray[np.int64]]:
    """Return the columns of the highest values of each row, best first, ties by column; never of a negative value."""
    order = np.argsort(-value, axis=1, kind="stable")[:, :length]
    return [columns[values[columns] >= 0] for columns, values in zip(order, value, strict=True)]


def item_indices(names: Sequence[str] | pl.Series, world: World) -> NDArray[np.int64]:
    """Return the indices of the named items.

    Raises:
        ValueError: an item that the world does not have.
    """
    return _indices(names, world.catalogue.items.ids, "item")


def _indices(names: Sequence[str] | pl.Series, known: pl.Series, kind: str) -> NDArray[np.int64]:
    """Return the rows of the named users or items.

    Raises:
        ValueError: a name that the world does not have by the end of the window.
    """
    positions = pl.DataFrame({"name": known, "index": np.arange(len(known))})
    found = pl.DataFrame({"name": pl.Series(list(names), dtype=pl.String)}).join(
        positions, on="name", how="left", maintain_order="left"
    )
    unknown = found.filter(pl.col("index").is_null())["name"]
    if len(unknown):
        raise ValueError(
            f"{len(unknown)} {kind} ids are not of this world by the end of the window, for instance {unknown[0]!r}. "
            "Pass ids of the landing zone that world.json lies in."
        )
    return found["index"].to_numpy().astype(np.int64)
