"""The stages after retrieval, the same for the candidates of every generator.

    candidates of all generators
        -> budget and pacing            may the ad take part in this request?
        -> relevance trim               the estimate of relevance is high enough (not on home_feed)
        -> light ranking                the best thirty over all sources, by a coarse score
        -> heavy scores                 estimates of click and conversion
        -> auction                      bid x click x conversion, weighted by relevance; slots, reserve, second price
        -> impression -> click -> conversion

The stages see estimates, the truth with noise; a click and a conversion follow the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warehouse.world.dynamics import World
from warehouse.world.market.ads import NO_AD, Ads
from warehouse.world.market.luck import Luck
from warehouse.world.market.requests import HOME_FEED, Requests
from warehouse.world.market.truth import (
    Pairs,
    Rows,
    Values,
    click_odds,
    conversion_odds,
    interest,
    relevance,
)

RETRIEVED, TRIMMED, RANKED, AUCTIONED, IMPRESSED, CLICKED, CONVERTED = range(7)  # places in ``contracts.STAGES``


@dataclass(frozen=True)
class Outcome:
    """The fate of candidates, one row a pair.

    Attributes:
        stage: (pairs,) the furthest stage. ad: (pairs,) row of the ads, ``NO_AD`` without an eligible one.
        relevance: (pairs,) the truth, 0 to 1.
        price_paid: (pairs,) dollars for the impression, 0 without one.
        value: (pairs,) dollars of the conversion, 0 without one.
        expected_clicks, expected_conversions, expected_value: (pairs,) clicks, conversions and dollars that an
            impression brings by the truth; 0 without an impression.
    """

    stage: Rows
    ad: Rows
    relevance: Values
    price_paid: Values
    value: Values
    expected_clicks: Values
    expected_conversions: Values
    expected_value: Values


@dataclass(frozen=True)
class MarketDay:
    """The state of the market that does not change during a day.

    Attributes:
        best_ad: (countries, items) as ``Ads.best``. price: (items,) dollars.
        participation: (ads,) probability that the pacing lets each ad take part in a request.
    """

    world: World
    ads: Ads
    best_ad: Rows
    price: Values
    participation: Values


@dataclass(frozen=True)
class Truth:
    """The truth that the stages estimate, and the log bid; all are (pairs,)."""

    click_odds: Values
    conversion_odds: Values
    log_bid: Values

    @classmethod
    def of(cls, day: MarketDay, requests: Requests, pairs: Pairs, *, ad: Rows, relevance: Values) -> Truth:
        """Return the noiseless values of pairs whose ``relevance`` is known."""
        wanted = interest(day.world, requests, pairs)
        return cls(
            click_odds=click_odds(day.world, relevance, wanted),
            conversion_odds=conversion_odds(day.world, requests, pairs, relevance=relevance, interest=wanted),
            log_bid=np.log(day.ads.bid[ad]),
        )

    @property
    def log_worth(self) -> Values:
        """Return the log of bid x click x conversion: the worth of an impression to the advertiser in dollars."""
        return self.log_bid + log_chance(self.click_odds) + log_chance(self.conversion_odds)

    def take(self, rows: Rows | NDArray[np.bool_]) -> Truth:
        return Truth(**{name: getattr(self, name)[rows] for name in Truth.__annotations__})


@dataclass(frozen=True)
class Competition:
    """The candidates that each stage saw, as rows of the candidates, and the scores that they had there.

    Attributes:
        trimmed: (trimmed,) rows. ranked: (ranked,) rows, with the score of the light ranking ``light``.
        bidding: (bidding,) rows, with the score of the auction ``score``; ``weight`` is its part for relevance.
        truth: of ``bidding``.
        relevance: (pairs,) the truth, of all candidates. ad: (pairs,) row of the ads, ``NO_AD`` without.
    """

    trimmed: Rows
    ranked: Rows
    light: Values
    bidding: Rows
    score: Values
    weight: Values
    truth: Truth
    relevance: Values
    ad: Rows


def compete(day: MarketDay, requests: Requests, pairs: Pairs, *, spent: Values, luck: Luck) -> Competition:
    """Lead candidates up to the auction; arguments as ``send``."""
    world, market = day.world, day.world.settings.market
    ad = day.best_ad[world.population.country[requests.person][pairs.request], pairs.item]
    true_relevance = relevance(world, requests, pairs)
    key = requests.key[pairs.request]

    def noise(model: str, rows: Rows) -> Values:
        return luck.normal(model, key[rows], pairs.item[rows])

    solvent = (ad != NO_AD) & (spent < day.ads.daily_budget)[ad]
    paced = luck.uniform("pacing", key, day.ads.keys[ad]) < day.participation[ad]
    rows = np.flatnonzero(solvent & paced)
    seen = true_relevance[rows] + market.trim_noise * noise("relevance model", rows)
    relevant = (seen >= market.minimum_relevance) | (requests.surface[pairs.request[rows]] == HOME_FEED)
    trimmed, rows, seen = rows[~relevant], rows[relevant], seen[relevant]

    ranked = rows
    truth = Truth.of(day, requests, pairs.take(rows), ad=ad[rows], relevance=true_relevance[rows])
    light = truth.log_worth + market.light_noise * noise("light ranking", rows)
    kept = places(pairs.request[rows], light) < market.light_size
    rows, seen, truth = rows[kept], seen[kept], truth.take(kept)

    clicks = log_chance(truth.click_odds + market.heavy_noise * noise("click model", rows))
    buys = log_chance(truth.conversion_odds + market.heavy_noise * noise("conversion model", rows))
    worth, weight = truth.log_bid + clicks + buys, market.relevance_weight * seen
    kept = worth >= np.log(market.reserve)
    return Competition(
        trimmed=trimmed,
        ranked=ranked,
        light=light,
        bidding=rows[kept],
        score=(worth + weight)[kept],
        weight=weight[kept],
        truth=truth.take(kept),
        relevance=true_relevance,
        ad=ad,
    )


def send(day: MarketDay, requests: Requests, pairs: Pairs, *, spent: Values, luck: Luck) -> Outcome:
    """Send candidates through all stages.

    Args:
        pairs: candidates in order of request, an item once a request.
        spent: (ads,) dollars spent since midnight; an ad that has spent its budget takes no part.
    """
    market, seen = day.world.settings.market, compete(day, requests, pairs, spent=spent, luck=luck)
    stage = np.full(len(pairs.item), RETRIEVED)
    stage[seen.trimmed], stage[seen.ranked], stage[seen.bidding] = TRIMMED, RANKED, AUCTIONED
    price_paid, value, expected_clicks, expected_conversions, expected_value = np.zeros((5, len(stage)))

    asked = pairs.request[seen.bidding]
    winners, paid = second_prices(asked, seen.score, seen.weight, slots=market.slots, reserve=market.reserve)
    rows, truth = seen.bidding[winners], seen.truth.take(winners)
    item, key = pairs.item[rows], requests.key[pairs.request[rows]]
    stage[rows], price_paid[rows] = IMPRESSED, paid
    click_chance, conversion_chance = np.exp(log_chance(truth.click_odds)), np.exp(log_chance(truth.conversion_odds))
    expected_clicks[rows], expected_conversions[rows] = click_chance, click_chance * conversion_chance
    expected_value[rows] = expected_conversions[rows] * day.price[item]
    clicked = luck.uniform("click", key, item) < click_chance
    stage[rows[clicked]] = CLICKED
    bought = clicked & (luck.uniform("conversion", key, item) < conversion_chance)
    stage[rows[bought]], value[rows[bought]] = CONVERTED, day.price[item[bought]]
    return Outcome(
        stage, seen.ad, seen.relevance, price_paid, value, expected_clicks, expected_conversions, expected_value
    )


def second_prices(request: Rows, score: Values, weight: Values, *, slots: int, reserve: float) -> tuple[Rows, Values]:
    """Return the winners of the slots of each request, as rows, and the price of each impression in dollars.

    A winner pays the least bid with which the winner would have kept the slot: a generalised second-price auction with
    a reserve. Source: Edelman, Ostrovsky and Schwarz, 2007, "Internet advertising and the generalized second-price
    auction"; with scores in logarithms, weighted as in Lahaie and Pennock, 2007.

    Three ads ask for two slots. The first pays the second's worth, the second pays the third's:

    >>> one, worth = np.zeros(3, int), np.log([4.0, 3.0, 2.0])
    >>> rows, prices = second_prices(one, worth, np.zeros(3), slots=2, reserve=0.1)
    >>> rows.tolist(), prices.round(6).tolist()
    ([0, 1], [3.0, 2.0])

    Args:
        request: (rows,). score: (rows,) log worth of an impression in dollars, plus the weight of relevance.
        weight: (rows,) the part of the score that no money buys.
    """
    order = np.lexsort((-score, request))
    asked, ranked = request[order], score[order]
    following = np.append(ranked[1:], -np.inf)
    last = np.append(asked[1:] != asked[:-1], True) if len(asked) else np.zeros(0, bool)
    following = np.where(last, -np.inf, following)
    won = places(asked, ranked) < slots
    rows = order[won]
    return rows, np.maximum(np.exp(following[won] - weight[rows]), reserve)


def places(request: Rows, score: Values) -> Rows:
    """Return the place (0 is best) of each row among the rows of its request, by score [rows].

    >>> places(np.array([0, 0, 1]), np.array([0.1, 0.9, 0.5])).tolist()
    [1, 0, 0]
    """
    order = np.lexsort((-score, request))
    ordered = request[order]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered, side="left")
    return place


def log_chance(odds: Values) -> Values:
    """Return the logarithm of the probability of each log-odds."""
    chance: NDArray[np.float64] = -np.logaddexp(0.0, -odds)
    return chance
