"""Living through the world's days in order, from its start: the only way to a latent state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from warehouse.world.catalogue import build_catalogue
from warehouse.world.dynamics import Sessions, State, World, step
from warehouse.world.market.ads import build_ads
from warehouse.world.market.market import Market, OnsiteDay, run_day
from warehouse.world.population import build_population
from warehouse.world.settings import WorldSettings


@dataclass(frozen=True)
class Day:
    """One lived day.

    Attributes:
        number: day number.
        sessions: the day's shopping.
        state: the state at the day's end; it changes when the next day is lived, so use or copy it before.
        market: the market as the day began. onsite: the day's requests; None before ads were launched.
    """

    number: int
    sessions: Sessions
    state: State
    market: Market
    onsite: OnsiteDay | None


def build_world(settings: WorldSettings, last_day: int) -> World:
    """Return the world with all users and items that appear up to and including ``last_day`` (a day number)."""
    catalogue = build_catalogue(settings, last_day)
    return World(settings, catalogue, build_population(settings, catalogue.leaves, last_day))


def live(world: World, last_day: int) -> Iterator[Day]:
    """Yield the days 0 … ``last_day``. How many later days the world was built for changes no event of a day."""
    joined = world.population.joined
    launch = world.settings.history_days - world.settings.impression_days
    state = State.empty(np.arange(0))
    market = Market.opening(world, build_ads(world.catalogue, last_day))
    for number in range(last_day + 1):
        newcomers = State.empty(np.flatnonzero((joined <= number) & (np.arange(len(joined)) >= len(state.person))))
        state = state.join(newcomers)
        sessions = step(world, state, number, world.settings.generator("sessions", number))
        before, onsite = market, None
        if number >= launch:
            onsite, market = run_day(market, state, number)
        yield Day(number, sessions, state, before, onsite)
