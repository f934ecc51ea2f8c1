"""One day of shopping: the step that both the generator and the oracle take.

A user holds up to three *intents*: a leaf category, a style vector, an advertiser, a stage. On a day with a session
the user turns to one intent, visits pages, perhaps adds to the cart, perhaps checks out. A checkout completes the
intent and usually opens its complement. All users are stepped at once; the random numbers of a day come from one
generator, so a state can be resumed on any day.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warehouse.world.catalogue import WorldCatalogue, unit
from warehouse.world.names import STYLE_DIMENSIONS
from warehouse.world.population import Population
from warehouse.world.settings import WorldSettings

SLOTS = 3
NONE = -1
MAXIMUM_VISITS = 12
LAST_STAGE = 2
WEEKDAY_ACTIVITY = np.array([0.95, 0.9, 0.9, 0.95, 1.0, 1.15, 1.15])


@dataclass
class State:
    """The latent state of some walkers at the end of a day. Changed in place by ``step``.

    Attributes:
        person: (walkers,) row of the population; the oracle lets several walkers start from one person.
        leaf: (walkers, 3) leaf category of each intent, -1 for none.
        stage: (walkers, 3) 0 browsing, 1 comparing, 2 deciding.
        opened: (walkers, 3) when the intent began, to tell the newest (in half days: complements follow their cause).
        advertiser: (walkers, 3) of the intent's first visit, -1 before it.
        cart: (walkers, 3) item last added to the cart, -1 for none.
        style: (walkers, 3, 8) unit vectors.
    """

    person: NDArray[np.int64]
    leaf: NDArray[np.int64]
    stage: NDArray[np.int64]
    opened: NDArray[np.int64]
    advertiser: NDArray[np.int64]
    cart: NDArray[np.int64]
    style: NDArray[np.float64]

    @classmethod
    def empty(cls, person: NDArray[np.int64]) -> State:
        """Return walkers without intents."""
        shape = (len(person), SLOTS)
        leaf, stage, opened, advertiser, cart = (np.full(shape, NONE, dtype=np.int64) for _ in range(5))
        style = np.zeros((*shape, STYLE_DIMENSIONS))
        return cls(person.copy(), leaf, stage, opened, advertiser, cart, style)

    def take(self, rows: NDArray[np.int64]) -> State:
        """Return a copy of some walkers, repeats allowed."""
        return State(**{name: getattr(self, name)[rows] for name in State.__annotations__})

    def newest(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the slot of the newest living intent of each row (slot 0 where there is none)."""
        slot: NDArray[np.int64] = np.where(self.leaf[rows] >= 0, self.opened[rows], NONE).argmax(axis=1)
        return slot

    def join(self, other: State) -> State:
        """Return these walkers, then the others."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in State.__annotations__}
        return State(**{name: np.concatenate(pair) for name, pair in pairs.items()})

    def open(
        self,
        rows: NDArray[np.int64],
        slots: NDArray[np.int64],
        leaf: NDArray[np.int64],
        *,
        style: NDArray[np.float64],
        when: int,
    ) -> None:
        self.close(rows, slots)
        self.leaf[rows, slots] = leaf
        self.stage[rows, slots] = 0
        self.opened[rows, slots] = when
        self.style[rows, slots] = style

    def close(self, rows: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        for values in (self.leaf, self.stage, self.opened, self.advertiser, self.cart):
            values[rows, slots] = NONE


@dataclass(frozen=True)
class ItemChoice:
    """The items that each session may visit.

    Attributes:
        items: (sessions, width) item indices, padded with the number of items.
        probability: (sessions, width), rows sum to 1, padding has 0.
    """

    items: NDArray[np.int64]
    probability: NDArray[np.float64]

    def sample(self, rows: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """Draw an item index (draws,) for each uniform number (draws,), from the choice of the session in ``rows``."""
        cumulative = np.cumsum(self.probability, axis=1)
        # Scaled by the last value rather than to 1, so that padding can never be drawn.
        position = (uniform[:, None] * cumulative[rows, -1:] >= cumulative[rows]).sum(axis=1)
        drawn: NDArray[np.int64] = self.items[rows, position]
        return drawn


@dataclass(frozen=True)
class Sessions:
    """The sessions of one day, one row a session; a walker has at most one session a day.

    Attributes:
        rows: (sessions,) walkers. leaf: of the intent. stage: as the session began.
        choice: the items of a page visit, with probabilities. visits: number of page visits.
        visited: (sessions, 12) item indices, beyond ``visits`` the number of items. carted: (sessions, 12) bool.
        bought: (sessions,) item of the checkout, -1 for none.
        opened: (sessions,) whether the intent began here unprompted. signed_up, searched: bool.
    """

    rows: NDArray[np.int64]
    leaf: NDArray[np.int64]
    stage: NDArray[np.int64]
    choice: ItemChoice
    visits: NDArray[np.int64]
    visited: NDArray[np.int64]
    carted: NDArray[np.bool_]
    bought: NDArray[np.int64]
    opened: NDArray[np.bool_]
    signed_up: NDArray[np.bool_]
    searched: NDArray[np.bool_]


@dataclass(frozen=True)
class World:
    """Everything that does not change from day to day."""

    settings: WorldSettings
    catalogue: WorldCatalogue
    population: Population

    def choose(
        self,
        log_popularity: NDArray[np.float64],
        person: NDArray[np.int64],
        leaf: NDArray[np.int64],
        *,
        style: NDArray[np.float64],
        advertiser: NDArray[np.int64],
    ) -> ItemChoice:
        """Return the softmax over the items of the leaf.

        The logit adds popularity, style match, price match and loyalty to the intent's advertiser. An item that does
        not ship to the person's country has probability 0.

        Args:
            log_popularity: (items,) of the day, -inf where an item does not exist yet.
            person, leaf, advertiser: (sessions,); style: (sessions, 8).
        """
        popularity = np.append(log_popularity, -np.inf)[self.catalogue.leaf_items]
        items = self.catalogue.leaf_items[leaf]
        probability = np.zeros(items.shape)
        for rows, width in self.catalogue.by_width(leaf):
            probability[rows, :width] = self._softmax(
                popularity, person[rows], leaf[rows], style=style[rows], advertiser=advertiser[rows], width=width
            )
        return ItemChoice(items, probability)

    def _softmax(
        self,
        popularity: NDArray[np.float64],
        person: NDArray[np.int64],
        leaf: NDArray[np.int64],
        *,
        style: NDArray[np.float64],
        advertiser: NDArray[np.int64],
        width: int,
    ) -> NDArray[np.float64]:
        """Return the probabilities (sessions, width) of sessions in leaves of at most ``width`` items.

        Args:
            popularity: (leaves, items of the largest leaf) log popularity.
        """
        settings, tables = self.settings, self.catalogue.leaf_tables
        logit = settings.style_strength * np.einsum("nwd,nd->nw", tables.style[leaf, :width], style)
        logit += popularity[leaf, :width]
        dearer = tables.price_level[leaf, :width] - self.population.price_level[person][:, None]
        logit -= settings.price_strength * dearer**2
        logit += settings.advertiser_loyalty * (tables.advertiser[leaf, :width] == advertiser[:, None])
        logit += tables.bars[self.population.country[person], leaf, :width]
        highest = logit.max(axis=1, keepdims=True)
        weight = np.exp(logit - np.where(np.isfinite(highest), highest, 0.0))
        # cumsum, not sum: its result does not depend on how much padding follows, so horizons agree to the last bit.
        total = np.cumsum(weight, axis=1)[:, -1:]
        return weight / np.where(total > 0, total, 1.0)


def step(world: World, state: State, day: int, generator: np.random.Generator) -> Sessions:
    """Live through one day: ``state`` becomes the state at the day's end.

    Returns:
        The day's sessions, in the order of the walkers.
    """
    settings, population = world.settings, world.population
    faded = (state.leaf >= 0) & (generator.random(state.leaf.shape) < settings.daily_end_probability)
    state.close(*np.nonzero(faded))
    weekday = WEEKDAY_ACTIVITY[settings.day_date(day).weekday()]
    probability = np.minimum(population.session_probability[state.person] * weekday, 0.97)
    probability = np.where(population.joined[state.person] <= day, probability, 0.0)
    rows = np.flatnonzero(generator.random(len(probability)) < probability)

    slot, opened = _turn_to_an_intent(world, state, rows, day=day, generator=generator)
    person, leaf, stage = state.person[rows], state.leaf[rows, slot], state.stage[rows, slot]
    log_popularity = world.catalogue.log_popularity(day)
    choice = world.choose(
        log_popularity, person, leaf, style=state.style[rows, slot], advertiser=state.advertiser[rows, slot]
    )
    visits = np.minimum(1 + generator.poisson(population.extra_visits[person]), MAXIMUM_VISITS)
    visits = np.where(choice.probability.any(axis=1), visits, 0)  # a leaf in which nothing ships to the user's country
    happened = np.arange(MAXIMUM_VISITS) < visits[:, None]
    visited = np.full(happened.shape, world.catalogue.items.count)
    visited[happened] = choice.sample(np.nonzero(happened)[0], generator.random(int(happened.sum())))
    cart_probability = np.array(settings.cart_probabilities)[stage]
    carted = happened & (generator.random(happened.shape) < cart_probability[:, None])
    bought = _close_session(
        world, state, rows, slot=slot, visited=visited, visits=visits, carted=carted, day=day, generator=generator
    )
    return Sessions(
        rows=rows,
        leaf=leaf,
        stage=stage,
        choice=choice,
        visits=visits,
        visited=visited,
        carted=carted,
        bought=bought,
        opened=opened,
        signed_up=opened & (visits > 0) & (generator.random(len(rows)) < settings.signup_probability),
        searched=(visits > 0) & (generator.random(len(rows)) < settings.search_probability),
    )


def _turn_to_an_intent(
    world: World, state: State, rows: NDArray[np.int64], *, day: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the slot of each session's intent, and whether the intent opens now, unprompted."""
    settings, population, leaves = world.settings, world.population, world.catalogue.leaves
    living = state.leaf[rows] >= 0
    newest = state.newest(rows)
    # An older intent: the living one with the highest random number, the newest only where it is the only one.
    others = living & (np.arange(SLOTS) != newest[:, None])
    older = np.where(others, generator.random(living.shape), -1.0).argmax(axis=1)
    focused = (generator.random(len(rows)) < settings.focus) | ~others.any(axis=1)
    slot = np.where(focused, newest, older)

    opened = ~living.any(axis=1) | (generator.random(len(rows)) < settings.new_intent_probability)
    # A free slot, else the slot of the oldest intent, which is forgotten.
    free = np.where(living, state.opened[rows], NONE).argmin(axis=1)
    slot = np.where(opened, free, slot)

    person = state.person[rows]
    rank = np.minimum(generator.geometric(0.5, len(rows)) - 1, population.favourites.shape[1] - 1)
    anywhere = generator.choice(leaves.count, len(rows), p=leaves.weight_on(day))
    favourite = generator.random(len(rows)) < settings.favourite_share
    leaf = np.where(favourite, population.favourites[person, rank], anywhere)
    loyalty = settings.style_loyalty
    noise = unit(generator.normal(0, 1, (len(rows), STYLE_DIMENSIONS)))
    style = unit(loyalty * population.style[person] + np.sqrt(1 - loyalty**2) * noise)
    state.open(rows[opened], slot[opened], leaf[opened], style=style[opened], when=2 * day)
    return slot, opened


def _close_session(
    world: World,
    state: State,
    rows: NDArray[np.int64],
    *,
    slot: NDArray[np.int64],
    visited: NDArray[np.int64],
    visits: NDArray[np.int64],
    carted: NDArray[np.bool_],
    day: int,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Deepen, buy, move on. Return the item bought by each session, -1 for none."""
    settings, catalogue = world.settings, world.catalogue
    first = (state.advertiser[rows, slot] < 0) & (visits > 0)
    advertiser = catalogue.items.advertiser[np.minimum(visited[:, 0], catalogue.items.count - 1)]
    state.advertiser[rows[first], slot[first]] = advertiser[first]

    any_carted = carted.any(axis=1)
    last_carted = MAXIMUM_VISITS - 1 - carted[:, ::-1].argmax(axis=1)
    in_cart = np.where(any_carted, visited[np.arange(len(rows)), last_carted], state.cart[rows, slot])
    deeper = generator.random(len(rows)) < settings.deepen_probability
    stage = np.where(any_carted, LAST_STAGE, np.minimum(state.stage[rows, slot] + deeper, LAST_STAGE))
    state.cart[rows, slot] = in_cart
    state.stage[rows, slot] = stage

    buys = (in_cart >= 0) & (visits > 0) & (generator.random(len(rows)) < settings.checkout_probability)
    bought = np.where(buys, in_cart, NONE)
    lost = ~buys & (generator.random(len(rows)) < settings.session_end_probability)
    goes_on = buys & (generator.random(len(rows)) < settings.complement_probability)
    noise = unit(generator.normal(0, 1, (len(rows), STYLE_DIMENSIONS)))
    style = unit(state.style[rows, slot] + settings.complement_drift * noise)
    complement = catalogue.leaves.complement[state.leaf[rows, slot]]
    loyal = state.advertiser[rows, slot]
    ended = lost | (buys & ~goes_on)
    state.close(rows[ended], slot[ended])
    state.open(rows[goes_on], slot[goes_on], complement[goes_on], style=style[goes_on], when=2 * day + 1)
    state.advertiser[rows[goes_on], slot[goes_on]] = loyal[goes_on]
    return bought
