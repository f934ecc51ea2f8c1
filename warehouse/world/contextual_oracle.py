"""The contextual oracle: the true probability of every item to be seen on a request, given subject, user and funnel.

Each request is led through the funnel many times, with other luck each time, from the latent state of its day. The item
that reached an impression most often comes first. What does not change between the times is computed once a request:
the choice within each leaf, the relevance and the affinity of every item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.world.dynamics import State, World
from warehouse.world.funnel import (
    AUCTIONED,
    IMPRESSED,
    RANKED,
    Requests,
    affinity_of,
    draw_leaves,
    draw_requests,
    send_through,
    true_relevance_of,
)
from warehouse.world.generate import read_settings
from warehouse.world.names import STYLE_DIMENSIONS
from warehouse.world.oracle import best_columns, item_indices, worker_threads
from warehouse.world.simulation import Day, build_world, live

Rows = NDArray[np.int64]
REQUESTS_A_BLOCK = 100
# An impression counts one. Far less for an earlier stage orders the items that no time showed.
WORTH = ((IMPRESSED, 1.0), (AUCTIONED, 1e-3), (RANKED, 1e-6))


def contextual_ranking(
    landing_root: Path, as_of: date, request_ids: Sequence[str], *, item_ids: Sequence[str], times: int, depth: int
) -> pl.DataFrame:
    """Return items by the true probability that the request shows them, best first.

    Args:
        landing_root: a landing zone that ``write_world`` wrote.
        as_of: the last day of a request, and the last day on which a candidate can have appeared.
        request_ids: of the impression log.
        item_ids: candidates.
        times: that each request is led through the funnel.
        depth: length of the lists; an item that was never ranked is not in a list.

    Returns:
        ``request_id``, ``rank`` (from 1), ``item_id``; requests in the given order.

    Raises:
        FileNotFoundError: the landing zone holds no synthetic world.
        ValueError: an unknown item, or a request that the world does not have.
    """
    settings = read_settings(landing_root)
    days, numbers = _places(request_ids)
    world = build_world(settings, settings.day_number(as_of))
    column = np.full(world.catalogue.items.count + 1, -1)
    column[item_indices(item_ids, world)] = np.arange(len(item_ids))
    lists: dict[int, NDArray[np.int64]] = {}
    for lived in live(world, int(days.max(initial=0))):
        rows = np.flatnonzero(days == lived.number)
        if not len(rows):
            continue
        of_day = draw_requests(world, lived.state, lived.number, settings.generator("funnel", lived.number))
        if numbers[rows].max() >= len(of_day.row):
            raise ValueError(f"{request_ids[int(rows[numbers[rows].argmax()])]!r} is no request of this world.")

        def lists_of_block(first: int, lived: Day = lived, rows: Rows = rows, of_day: Requests = of_day) -> list[Rows]:
            asked = of_day.take(numbers[rows[first : first + REQUESTS_A_BLOCK]])
            generator = settings.generator("funnel again", lived.number, first)
            funnel = _Funnel.of(world, lived.state, asked, lived.number)
            return best_columns(funnel.worth(times, column, generator), depth)

        with worker_threads() as workers:
            blocks = workers.map(lists_of_block, range(0, len(rows), REQUESTS_A_BLOCK))
            found = [columns for block in blocks for columns in block]
        lists.update(zip(rows.tolist(), found, strict=True))
    missing = sorted(set(range(len(request_ids))) - set(lists))
    if missing:
        raise ValueError(
            f"{request_ids[missing[0]]!r} is no request of this world: its day is not a day until {as_of}."
        )
    ordered = [lists[row] for row in range(len(request_ids))]
    counts = [len(best) for best in ordered]
    places = [np.arange(1, count + 1) for count in counts]
    return pl.DataFrame(
        {
            "request_id": pl.Series(request_ids, dtype=pl.String).gather(np.repeat(np.arange(len(counts)), counts)),
            "rank": np.concatenate([np.zeros(0, np.int64), *places]),
            "item_id": pl.Series(item_ids, dtype=pl.String).gather(np.concatenate([np.zeros(0, np.int64), *ordered])),
        }
    )


@dataclass(frozen=True)
class _Funnel:
    """Some requests of one day, with everything that every time through the funnel shares.

    Attributes:
        cumulative: (requests * leaves * width,) each row of a request and leaf rises to 1, plus the number of the row:
            the whole ascends, so that one search draws from all rows.
        possible: (requests * leaves,) whether anything in the leaf ships to the user's country.
        relevance, affinity: (requests, items).
    """

    world: World
    state: State
    requests: Requests
    day: int
    cumulative: NDArray[np.float64]
    possible: NDArray[np.bool_]
    relevance: NDArray[np.float64]
    affinity: NDArray[np.float64]

    @classmethod
    def of(cls, world: World, state: State, requests: Requests, day: int) -> _Funnel:
        leaves, items = world.catalogue.leaves.count, world.catalogue.items.count
        rows = len(requests.row) * leaves
        choice = world.choose(
            world.catalogue.log_popularity(day),
            np.repeat(state.person[requests.row], leaves),
            np.tile(np.arange(leaves), len(requests.row)),
            style=np.zeros((rows, STYLE_DIMENSIONS)),
            advertiser=np.full(rows, -1),
        )
        cumulative = np.cumsum(choice.probability, axis=1)
        total = cumulative[:, -1:]
        every = np.broadcast_to(np.arange(items), (len(requests.row), items))
        return cls(
            world,
            state,
            requests,
            day,
            cumulative=(cumulative / np.where(total > 0, total, 1.0) + np.arange(rows)[:, None]).ravel(),
            possible=total[:, 0] > 0,
            relevance=true_relevance_of(world, requests, every),
            affinity=affinity_of(world, state, requests.row, every),
        )

    def worth(self, times: int, column: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.float64]:
        """Return what each item reached, by ``WORTH`` (requests, columns); -1 for an item that was never ranked.

        Args:
            column: (items + 1,) of each item, -1 = no candidate.
        """
        catalogue, count = self.world.catalogue, len(self.requests.row)
        request = np.tile(np.arange(count), times)
        tiled = self.requests.take(request)
        recipe, leaf = draw_leaves(self.world, self.state, tiled, day=self.day, generator=generator)
        row = request[:, None] * catalogue.leaves.count + leaf
        width = catalogue.leaf_items.shape[1]
        place = np.searchsorted(self.cumulative, row + generator.random(row.shape), side="right") - row * width
        item = np.where(self.possible[row], catalogue.leaf_items[leaf, np.minimum(place, width - 1)], -1)
        found = send_through(
            tiled,
            recipe,
            item,
            relevance=self.relevance[request[:, None], np.maximum(item, 0)],
            affinity=self.affinity[request[:, None], np.maximum(item, 0)],
            generator=generator,
        )
        total = np.full((count, int(column.max()) + 1), -1.0)
        for stage, worth in WORTH[::-1]:
            asked, slot = np.nonzero(found.valid & (found.stage >= stage))
            at = column[item[asked, slot]]
            there = (request[asked[at >= 0]], at[at >= 0])
            total[there] = np.maximum(total[there], 0.0)
            np.add.at(total, there, worth)
        return total


def _places(request_ids: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the day number and the number within the day of each request: ``r00210-000017`` is the 18th of day 210.

    Raises:
        ValueError: a request that no world has named.
    """
    try:
        pairs = [(int(name[1:6]), int(name[7:])) for name in request_ids]
    except ValueError:
        raise ValueError("a request id is not of the synthetic world, such as r00210-000017") from None
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]
