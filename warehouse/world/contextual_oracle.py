"""The contextual oracle: the true probability of each item to be delivered, given subject, user and market.

The market of the request's day is run many times, with other luck each time, for the scores that it took to pass the
light ranking and to win a slot. The chance of every item to reach these scores is computed instead of drawn
(Rao-Blackwell), so some runs suffice. Three small effects are left out: a candidate that passes the light ranking takes
a place there, budgets end within the day, and the trim and the auction share one estimate of relevance.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.world.dynamics import World
from warehouse.world.generate import read_settings
from warehouse.world.market.ads import NO_AD
from warehouse.world.market.downstream import MarketDay, Truth, compete, places
from warehouse.world.market.legacy_generators import Shelves, propensity, propose
from warehouse.world.market.luck import Luck
from warehouse.world.market.requests import HOME_FEED, Requests
from warehouse.world.market.truth import Pairs, Rows, Values, relevance
from warehouse.world.oracle import best_columns, item_indices, worker_threads
from warehouse.world.simulation import build_world, live

REQUESTS_A_BLOCK = 50
LUCK_OF_THE_ORACLE = 1_000_000
"""Added to the seed, so that no run of the oracle has the luck of the log or of an arm."""
NAME = re.compile(r"r([0-9]{5,9})-([0-9]{6,9})")
SMALLEST_CHANCE = 5e-3
"""An item that the relevance trim passes less often is left out: a candidate that nothing delivers."""


def contextual_ranking(
    landing_root: Path, as_of: date, request_ids: Sequence[str], *, item_ids: Sequence[str], times: int, depth: int
) -> pl.DataFrame:
    """Return items by the true probability that the request shows them, best first.

    Args:
        landing_root: a landing zone that ``write_world`` wrote.
        as_of: the last day of a request, and the last day on which a candidate can have appeared.
        request_ids: of the impression log.
        item_ids: candidates.
        times: runs of the market for each request.
        depth: length of the lists; an item that cannot be delivered is not in a list.

    Returns:
        ``request_id``, ``rank`` (from 1), ``item_id``; requests in the given order.

    Raises:
        FileNotFoundError: the landing zone holds no synthetic world.
        ValueError: an unknown item, or a request that the world does not have.
    """
    settings = read_settings(landing_root)
    days, numbers = _days_and_numbers(request_ids)
    late = np.flatnonzero(days > settings.day_number(as_of))
    if len(late):
        raise ValueError(f"{request_ids[int(late[0])]!r} is no request until {as_of}, the last day that was asked for.")
    world = build_world(settings, settings.day_number(as_of))
    candidates = item_indices(item_ids, world)
    lists: dict[int, Rows] = {}
    for lived in live(world, int(days.max(initial=0))):
        rows = np.flatnonzero(days == lived.number)
        if not len(rows) or lived.onsite is None:
            continue
        asked = _numbered(lived.onsite.requests, numbers[rows], [request_ids[row] for row in rows.tolist()])
        odds = DeliveryOdds(world, lived.market.day(lived.number), times)

        def lists_of_block(first: int, odds: DeliveryOdds = odds, asked: Requests = asked) -> list[Rows]:
            block = asked.take(np.arange(first, min(first + REQUESTS_A_BLOCK, len(asked))))
            return best_columns(odds.of(block)[:, candidates], depth)

        with worker_threads() as workers:
            blocks = workers.map(lists_of_block, range(0, len(rows), REQUESTS_A_BLOCK))
            found = [columns for block in blocks for columns in block]
        lists.update(zip(rows.tolist(), found, strict=True))
    missing = sorted(set(range(len(request_ids))) - set(lists))
    if missing:
        raise ValueError(
            f"{request_ids[missing[0]]!r} is no request of this world: no day until {as_of} has such a request."
        )
    ordered = [lists[row] for row in range(len(request_ids))]
    counts = [len(best) for best in ordered]
    ranks = [np.arange(1, count + 1) for count in counts]
    return pl.DataFrame(
        {
            "request_id": pl.Series(request_ids, dtype=pl.String).gather(np.repeat(np.arange(len(counts)), counts)),
            "rank": np.concatenate([np.zeros(0, np.int64), *ranks]),
            "item_id": pl.Series(item_ids, dtype=pl.String).gather(np.concatenate([np.zeros(0, np.int64), *ordered])),
        }
    )


@dataclass(frozen=True)
class DeliveryOdds:
    """The chance of delivery on one day, from so many runs of the market."""

    world: World
    day: MarketDay
    times: int

    def of(self, requests: Requests) -> Values:
        """Return the probability that each request delivers each item (requests, items); -1 where it cannot."""
        market, items = self.world.settings.market, self.world.catalogue.items.count
        shelves = Shelves.of(self.world, self.day.best_ad, requests.day)
        country = self.world.population.country[requests.person]
        advertised = self.day.best_ad[country] != NO_AD
        pairs = Pairs(*np.nonzero(advertised & (np.arange(items) != requests.subject[:, None])))
        found = relevance(self.world, requests, pairs)
        passes = _chance((found - market.minimum_relevance) / max(market.trim_noise, 1e-9))
        passes = np.where(requests.surface[pairs.request] == HOME_FEED, 1.0, passes)
        kept = passes >= SMALLEST_CHANCE
        pairs, found, passes = pairs.take(kept), found[kept], passes[kept]
        ad = self.day.best_ad[country[pairs.request], pairs.item]
        truth = Truth.of(self.day, requests, pairs, ad=ad, relevance=found)
        score = truth.log_worth + market.relevance_weight * found
        # The error of a log chance is that of its log-odds times the chance of the opposite, which is nearly 1 here.
        spread = np.sqrt(2 * market.heavy_noise**2 + (market.relevance_weight * market.trim_noise) ** 2)
        wins = np.zeros(len(found))
        for run in range(self.times):
            light, auction = self._cuts(shelves, requests, run)
            ranked = _chance((truth.log_worth - light.of(pairs)) / max(market.light_noise, 1e-9))
            enough = np.maximum(auction.of(pairs), np.log(market.reserve) + market.relevance_weight * found)
            won = _chance((score - enough) / max(spread, 1e-9))
            wins += ranked * won / self.times
        takes_part = propensity(self.world, shelves, requests, pairs) * self.day.participation[ad]
        odds = np.full((len(requests), items), -1.0)
        chance = takes_part * passes * wins
        odds[pairs.request, pairs.item] = np.where(chance > 0, chance, -1.0)
        return odds

    def _cuts(self, shelves: Shelves, requests: Requests, run: int) -> tuple[_Cut, _Cut]:
        """Return the cuts of the light ranking and of the auction in one run of the market."""
        market, settings = self.world.settings.market, self.world.settings
        generator = settings.generator("legacy again", requests.day, (int(requests.number[0]) << 16) + run)
        pairs = propose(self.world, shelves, requests, generator).pairs
        luck, unspent = Luck(settings.seed + LUCK_OF_THE_ORACLE + run), np.zeros(len(self.day.ads))
        seen = compete(self.day, requests, pairs, spent=unspent, luck=luck)
        shape = (len(requests), self.world.catalogue.items.count)
        return (
            _Cut.at(market.light_size, pairs.take(seen.ranked), seen.light, shape),
            _Cut.at(market.slots, pairs.take(seen.bidding), seen.score, shape),
        )


@dataclass(frozen=True)
class _Cut:
    """The score that one more candidate needs to be among the best of a request.

    Attributes:
        last, following: (requests,) the lowest score among the best, and the highest below; -inf where all pass.
        passed: (requests, items) whether the item is among the best: another candidate then takes no place of it.
    """

    last: Values
    following: Values
    passed: NDArray[np.bool_]

    @classmethod
    def at(cls, size: int, pairs: Pairs, score: Values, shape: tuple[int, int]) -> _Cut:
        """Return the cut after the ``size`` best scores [pairs] of each request."""
        best = places(pairs.request, score)
        passed, last, following = np.zeros(shape, bool), np.full(shape[0], -np.inf), np.full(shape[0], -np.inf)
        passed[pairs.request[best < size], pairs.item[best < size]] = True
        last[pairs.request[best == size - 1]] = score[best == size - 1]
        following[pairs.request[best == size]] = score[best == size]
        return cls(last, following, passed)

    def of(self, pairs: Pairs) -> Values:
        """Return the score that each item has to beat [pairs], the item's own score left out."""
        inside = self.passed[pairs.request, pairs.item]
        return np.where(inside, self.following[pairs.request], self.last[pairs.request])


def _numbered(requests: Requests, numbers: Rows, names: Sequence[str]) -> Requests:
    """Return the requests of a day with these numbers, in this order.

    Raises:
        ValueError: a number that the day does not have.
    """
    at = np.full(len(requests), -1)
    at[requests.number] = np.arange(len(requests))
    unknown = np.flatnonzero(numbers >= len(requests))
    if len(unknown):
        raise ValueError(f"{names[int(unknown[0])]!r} is no request of this world.")
    return requests.take(at[numbers])


def _chance(deviations: Values) -> Values:
    """Return the standard normal distribution function, to about three digits, as a logistic curve.

    Source: Bowling et al., 2009, "A logistic approximation to the cumulative normal distribution".
    """
    clipped = np.clip(deviations, -8.0, 8.0)
    chance: NDArray[np.float64] = 1 / (1 + np.exp(-(0.07056 * clipped**3 + 1.5976 * clipped)))
    return chance


def _days_and_numbers(request_ids: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the day number and the number within the day of each request: ``r00210-000017`` is the 18th of day 210.

    Raises:
        ValueError: a request that no world has named.
    """
    found = [NAME.fullmatch(name) for name in request_ids]
    strange = [name for name, match in zip(request_ids, found, strict=True) if match is None]
    if strange:
        raise ValueError(f"{strange[0]!r} is no request id of the synthetic world, such as r00210-000017")
    pairs = np.array([match.groups() for match in found if match], np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
