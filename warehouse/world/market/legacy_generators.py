"""The legacy generators: candidates by category and popularity, drawn with a known probability.

Each generator draws a Poisson number of items with replacement, so that the items of a request are drawn independently
of each other: an item with the expected number of draws ``x`` over all generators is a candidate with the probability
``1 - exp(-x)``, which the log holds as the propensity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warehouse.world.catalogue import LEAVES_PER_CATEGORY
from warehouse.world.dynamics import World
from warehouse.world.market.ads import NO_AD
from warehouse.world.market.requests import Requests
from warehouse.world.market.truth import Pairs, Rows, Values

CATEGORY, SIBLING, COMPLEMENT, PROFILE, POPULAR = range(5)
LEGACY_SOURCES = ("category_match", "sibling_category", "complement", "profile", "popular")


@dataclass(frozen=True)
class Candidates:
    """Candidates of requests in order of request, one row a pair; a request has an item once.

    Attributes:
        pairs: (pairs,) requests and items.
        source: (pairs,) number of the generator; the first in the order of generators that proposed the item.
        propensity: (pairs,) probability that the legacy generators propose the item on the request; NaN for a
            candidate that they did not propose.
    """

    pairs: Pairs
    source: Rows
    propensity: Values

    @property
    def proposed_by_legacy(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.propensity)


@dataclass(frozen=True)
class Shelves:
    """The advertised items of a day by leaf, for draws in proportion to their popularity.

    Attributes:
        items: (items,) item indices in order of leaf. starts: (leaves + 1,) first place of each leaf.
        cumulative: (countries, items + 1) popularity of the items before each place; 0 where nothing is advertised.
    """

    items: Rows
    starts: Rows
    cumulative: Values

    @classmethod
    def of(cls, world: World, best_ad: Rows, day: int) -> Shelves:
        """Return the shelves of a day; ``best_ad``: (countries, items) as ``Ads.best``."""
        catalogue = world.catalogue
        order = np.argsort(catalogue.items.leaf, kind="stable")
        weight = np.exp(catalogue.log_popularity(day))[order] * (best_ad[:, order] != NO_AD)
        starts = np.searchsorted(catalogue.items.leaf[order], np.arange(catalogue.leaves.count + 1))
        zero = np.zeros((len(weight), 1))
        return cls(order, starts, np.concatenate([zero, np.cumsum(weight, axis=1)], axis=1))

    def total(self, country: Rows, leaf: Rows) -> Values:
        """Return the popularity of each leaf in each country [pairs]; leaf -1: of the whole catalogue."""
        low, high = self._bounds(country, leaf)
        return high - low

    def draw(self, country: Rows, leaf: Rows, uniform: Values) -> Rows:
        """Draw an item of each leaf [draws] by popularity; leaf -1: of the whole catalogue. No leaf may be empty."""
        low, high = self._bounds(country, leaf)
        wanted = np.minimum(low + uniform * (high - low), np.nextafter(high, low))  # rounding may reach the next leaf
        place = np.zeros(len(leaf), np.int64)
        for each in np.unique(country):
            at = country == each
            place[at] = np.searchsorted(self.cumulative[each], wanted[at], side="right") - 1
        return self.items[place]

    def weight(self, country: Rows, place: Rows) -> Values:
        """Return the popularity of the item at a place in a country [pairs]."""
        return self.cumulative[country, place + 1] - self.cumulative[country, place]

    def _bounds(self, country: Rows, leaf: Rows) -> tuple[Values, Values]:
        first = np.where(leaf < 0, 0, self.starts[leaf])
        last = np.where(leaf < 0, len(self.items), self.starts[leaf + 1])
        return self.cumulative[country, first], self.cumulative[country, last]


@dataclass(frozen=True)
class Recipes:
    """The leaves from which each request's candidates are drawn, and how often (requests, recipes).

    ``leaf`` -1 stands for the whole catalogue. ``rate`` is the expected number of draws, 0 where nothing is advertised.
    """

    source: Rows
    leaf: Rows
    rate: Values


def propose(world: World, shelves: Shelves, requests: Requests, random: np.random.Generator) -> Candidates:
    """Draw the candidates of requests of one day by the legacy generators."""
    recipes = recipes_of(world, shelves, requests)
    count = random.poisson(recipes.rate)
    request, recipe = np.nonzero(count)
    draws = count[request, recipe]
    request, recipe = np.repeat(request, draws), np.repeat(recipe, draws)
    country = world.population.country[requests.person[request]]
    item = shelves.draw(country, recipes.leaf[request, recipe], random.random(len(request)))
    pair, first = np.unique(request * world.catalogue.items.count + item, return_index=True)
    pairs = Pairs(*np.divmod(pair, world.catalogue.items.count))
    kept = pairs.item != requests.subject[pairs.request]
    pairs = pairs.take(kept)
    return Candidates(pairs, recipes.source[recipe[first[kept]]], propensity(world, shelves, requests, pairs))


def propensity(world: World, shelves: Shelves, requests: Requests, pairs: Pairs) -> Values:
    """Return the probability that the legacy generators propose each item on each request [pairs]."""
    recipes = recipes_of(world, shelves, requests)
    country = world.population.country[requests.person]
    total = shelves.total(country[:, None], recipes.leaf)
    rate = np.divide(recipes.rate, total, out=np.zeros_like(total), where=total > 0)
    leaf = world.catalogue.items.leaf[pairs.item]
    of_recipe = recipes.leaf[pairs.request]
    expected = (rate[pairs.request] * ((of_recipe == leaf[:, None]) | (of_recipe < 0))).sum(axis=1)
    place = np.empty(len(shelves.items), np.int64)
    place[shelves.items] = np.arange(len(shelves.items))
    found: Values = -np.expm1(-expected * shelves.weight(country[pairs.request], place[pairs.item]))
    return found


def recipes_of(world: World, shelves: Shelves, requests: Requests) -> Recipes:
    """Return the recipes of each request, in the order in which a source keeps an item that several sources draw."""
    settings, leaves = world.settings.market, world.catalogue.leaves
    own = requests.leaf
    first = own // LEAVES_PER_CATEGORY * LEAVES_PER_CATEGORY
    siblings = [first + (own + offset) % LEAVES_PER_CATEGORY for offset in range(1, LEAVES_PER_CATEGORY)]
    favourites = world.population.favourites[requests.person]
    shopped = np.where(requests.newest < 0, favourites[:, 0], requests.newest)
    everywhere = np.full(len(requests), -1)
    plan = [
        (CATEGORY, own, settings.category_draws),
        *((SIBLING, leaf, settings.sibling_draws / len(siblings)) for leaf in siblings),
        (COMPLEMENT, leaves.complement[own], settings.complement_draws),
        (PROFILE, shopped, settings.profile_draws / 2),
        *((PROFILE, leaf, settings.profile_draws / 2 / favourites.shape[1]) for leaf in favourites.T),
        (POPULAR, everywhere, settings.popular_draws),
    ]
    source = np.array([source for source, _, _ in plan])
    leaf = np.stack([leaf for _, leaf, _ in plan], axis=1)
    rate = np.broadcast_to([rate for _, _, rate in plan], leaf.shape)
    needs_subject = np.isin(source, (CATEGORY, SIBLING, COMPLEMENT))
    country = world.population.country[requests.person]
    possible = (shelves.total(country[:, None], leaf) > 0) & ~(needs_subject & (own < 0)[:, None])
    return Recipes(source, leaf, rate * possible)
