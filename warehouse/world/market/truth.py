"""The truth about a candidate on a request: its relevance, the user's interest, the odds of a click and a conversion.

No model of adseq and no stage of the funnel reads it; the stages see it with noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warehouse.world.catalogue import LEAVES_PER_CATEGORY, LEAVES_PER_DEPARTMENT
from warehouse.world.dynamics import World
from warehouse.world.market.requests import HOME_FEED, Requests
from warehouse.world.names import COUNTRY_VALUES

Rows = NDArray[np.int64]
Values = NDArray[np.float64]
RELEVANCE_WITHOUT_SUBJECT = 0.5
MAXIMUM_PRICE_DISTANCE = 2.0


@dataclass(frozen=True)
class Pairs:
    """Candidates of requests; both are (pairs,): ``request`` a row of the requests, ``item`` an item index."""

    request: Rows
    item: Rows

    def take(self, rows: Rows | NDArray[np.bool_]) -> Pairs:
        return Pairs(self.request[rows], self.item[rows])


def relevance(world: World, requests: Requests, pairs: Pairs) -> Values:
    """Return the relevance of each pair, 0 to 1: of the item to the subject or query, whoever the user is [pairs].

    Without a subject or query the relevance is ``RELEVANCE_WITHOUT_SUBJECT``.
    """
    found = _relevance(
        world,
        pairs.item,
        leaf=requests.leaf[pairs.request],
        style=requests.style[pairs.request],
        subject=requests.subject[pairs.request],
    )
    found[requests.surface[pairs.request] == HOME_FEED] = RELEVANCE_WITHOUT_SUBJECT
    return found


def relevance_beside(world: World, subject: Rows, item: Rows) -> Values:
    """Return the relevance of items beside subjects, 0 to 1 [pairs]; both are item indices."""
    items = world.catalogue.items
    return _relevance(world, item, leaf=items.leaf[subject], style=items.style[subject], subject=subject)


def relevance_to_query(world: World, leaf: Rows, style: Values, *, item: Rows) -> Values:
    """Return the relevance of items to search queries, 0 to 1 [pairs]: ``leaf`` and ``style`` as of ``Requests``."""
    return _relevance(world, item, leaf=leaf, style=style, subject=np.full(len(item), -1))


def _relevance(world: World, item: Rows, *, leaf: Rows, style: Values, subject: Rows) -> Values:
    """Return the relevance of items [pairs] to what is shown: its leaf, its style (pairs, 8) and its item, -1 for none.

    The closeness of the categories sets a level. Style, use and price level move it, but make no item of another
    department relevant.
    """
    settings, items = world.settings.market, world.catalogue.items
    level = _closeness(world, items.leaf[item], leaf)
    match = np.einsum("pd,pd->p", items.style[item], style)
    shown = subject >= 0
    same_use = shown & (items.use[item] == items.use[subject])
    step = np.where(shown, items.price_level[item] - items.price_level[subject], 0.0)
    distance = np.clip(step, -MAXIMUM_PRICE_DISTANCE, MAXIMUM_PRICE_DISTANCE) ** 2
    beyond = settings.style_relevance * match + settings.use_relevance * same_use - settings.price_relevance * distance
    found: Values = np.clip(level + beyond * (level > 0), 0.0, 1.0)
    return found


def interest(world: World, requests: Requests, pairs: Pairs) -> Values:
    """Return the interest of the user in each item, whatever the subject is [pairs].

    An item of a living intent's leaf counts up to 1, by its style; favourite leaves, the lasting style and the price
    level count beside it.
    """
    settings, items, population = world.settings.market, world.catalogue.items, world.population
    leaf, person = items.leaf[pairs.item], requests.person[pairs.request]
    wanted = np.zeros(len(leaf))
    for slot in range(requests.intent_leaf.shape[1]):
        at = np.flatnonzero(requests.intent_leaf[pairs.request, slot] == leaf)
        match = np.einsum("pd,pd->p", items.style[pairs.item[at]], requests.intent_style[pairs.request[at], slot])
        wanted[at] = np.maximum(wanted[at], 0.6 + 0.4 * match)
    favourite = (population.favourites[person] == leaf[:, None]).any(axis=1)
    wanted = np.maximum(wanted, settings.favourite_interest * favourite)
    style = np.einsum("pd,pd->p", items.style[pairs.item], population.style[person])
    step = items.price_level[pairs.item] - population.price_level[person]
    found: Values = wanted + settings.style_interest * style - settings.price_interest * step**2
    return found


def click_odds(world: World, relevance: Values, interest: Values) -> Values:
    """Return the log-odds of a click on each shown pair [pairs]."""
    settings = world.settings.market
    odds: Values = settings.click_base + settings.click_relevance * relevance + settings.click_interest * interest
    return odds


def conversion_odds(world: World, requests: Requests, pairs: Pairs, *, relevance: Values, interest: Values) -> Values:
    """Return the log-odds of a conversion after a click on each pair [pairs]; countries differ."""
    settings = world.settings.market
    country = world.population.country[requests.person[pairs.request]]
    odds: Values = (
        settings.conversion_base
        + settings.conversion_relevance * relevance
        + settings.conversion_interest * interest
        + np.log(np.array(COUNTRY_VALUES))[country]
    )
    return odds


def _closeness(world: World, leaf: Rows, own: Rows) -> Values:
    """Return the level of relevance that two leaves have by their places in the tree [pairs]; ``own`` -1: none."""
    settings, leaves = world.settings.market, world.catalogue.leaves
    level: Values = np.select(
        [
            leaf == own,
            leaf == leaves.complement[own],
            leaf // LEAVES_PER_CATEGORY == own // LEAVES_PER_CATEGORY,
            leaf // LEAVES_PER_DEPARTMENT == own // LEAVES_PER_DEPARTMENT,
        ],
        [settings.same_leaf, settings.complement_leaf, settings.same_category, settings.same_department],
        0.0,
    )
    return level
