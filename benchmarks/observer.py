"""How much of the oracle's lead can be seen in the log?

``python -m benchmarks.observer`` ranks items for users of the synthetic world twice: by the oracle, who knows each
user's intents and tastes, and by an observer, who knows every rule and parameter of the world (the true style of each
item, its popularity, which category completes which) but of the users only their sessions. The observer puts together
what the sessions say, draws what they leave open, and then simulates futures as the oracle does. No model that learns
from the log can be expected to do better than the observer, who has nothing to learn.

With ``--newest N ...`` further observers see only the newest sessions of each user, up to N events. The rest of the
observer's recall is what longer sequences can give.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from benchmarks.report import Table
from warehouse.world import WorldSettings
from warehouse.world.catalogue import unit
from warehouse.world.dynamics import LAST_STAGE, SLOTS, Sessions, State, World
from warehouse.world.names import STYLE_DIMENSIONS
from warehouse.world.oracle import Knowledge, know, positive_probabilities
from warehouse.world.simulation import build_world, live

WINDOW_DAYS = 28
DEPTHS = (10, 100)
# How the observer weighs evidence, in visits: of an intent's style, what it was handed and what the user likes in all;
# of a user's favourite categories, openings against the popularity of categories.
HANDED_DOWN, LASTING, OPENING, POPULARITY = 2.0, 0.7, 0.8, 1.5


@dataclass(frozen=True)
class SeenSession:
    """One session as the log shows it."""

    day: int
    leaf: int
    visited: NDArray[np.int64]  # items
    cart: int  # item, -1 for none
    bought: bool

    @property
    def events(self) -> int:
        return len(self.visited) + (self.cart >= 0) + self.bought


@dataclass
class SeenIntent:
    """The facts that the sessions of one intent show."""

    leaf: int
    opened: int  # in half days, as ``State.opened``
    last_day: int
    advertiser: int  # of the first visit, -1 before it
    handed_down: NDArray[np.float64]  # (8,) style of the intent it completes, zero for an unprompted one
    style: NDArray[np.float64] = field(default_factory=lambda: np.zeros(STYLE_DIMENSIONS))  # sum over visits
    sessions: int = 0
    cart: int = -1


@dataclass
class SeenUser:
    """The facts that the sessions of one user show."""

    openings: NDArray[np.float64]  # (leaves,) intents begun
    intents: list[SeenIntent] = field(default_factory=list)  # that may be alive
    style: NDArray[np.float64] = field(default_factory=lambda: np.zeros(STYLE_DIMENSIONS))  # sum over visits
    price_level: float = 0.0  # sum over visits
    visits: int = 0

    def see(self, world: World, session: SeenSession) -> None:
        """Observe one session."""
        items, day, leaf, visited = world.catalogue.items, session.day, session.leaf, session.visited
        intent = next((each for each in self.intents if each.leaf == leaf), None)
        if intent is None:
            intent = SeenIntent(leaf, 2 * day, day, -1, np.zeros(STYLE_DIMENSIONS))
            self.openings[leaf] += 1
            self._add(intent)
        style = items.style[visited].sum(axis=0)
        intent.style, intent.last_day, intent.sessions = intent.style + style, day, intent.sessions + 1
        if intent.advertiser < 0:
            intent.advertiser = int(items.advertiser[visited[0]])
        intent.cart = session.cart if session.cart >= 0 else intent.cart
        self.style, self.visits = self.style + style, self.visits + len(visited)
        self.price_level += float(items.price_level[visited].sum())
        if session.bought:
            complement = int(world.catalogue.leaves.complement[leaf])
            handed_down = _unit(intent.style + HANDED_DOWN * intent.handed_down)
            self.intents = [each for each in self.intents if each.leaf not in (leaf, complement)]
            self._add(SeenIntent(complement, 2 * day + 1, day, intent.advertiser, handed_down))

    def _add(self, intent: SeenIntent) -> None:
        """Add an intent; the oldest one is forgotten, as users do."""
        self.intents = sorted([*self.intents, intent], key=lambda each: each.opened)[-SLOTS:]


def watch(world: World, person: NDArray[np.int64], last_day: int) -> list[list[SeenSession]]:
    """Return the sessions of each user, oldest first, up to and including ``last_day`` (a day number)."""
    found: list[list[SeenSession]] = [[] for _ in person]
    rows_of = np.full(world.population.count, -1)
    rows_of[person] = np.arange(len(person))
    for lived in live(world, last_day):
        sessions = lived.sessions
        row = rows_of[sessions.rows]
        for number in np.flatnonzero((row >= 0) & (sessions.visits > 0)).tolist():
            found[row[number]].append(_session(sessions, number, lived.number))
    return found


def newest(sessions: list[SeenSession], events: int | None) -> list[SeenSession]:
    """Return the newest sessions that together have at most so many events, at least one session; None: all.

    >>> visits = SeenSession(day=1, leaf=0, visited=np.array([5, 6]), cart=-1, bought=False)
    >>> len(newest([visits, visits, visits], events=5)), len(newest([visits, visits], events=1))
    (2, 1)
    """
    if events is None:
        return sessions
    total = np.cumsum([session.events for session in reversed(sessions)])
    return sessions[-max(1, int((total <= events).sum())) :]


def seen_user(world: World, sessions: list[SeenSession]) -> SeenUser:
    """Return a user as the sessions show the user."""
    user = SeenUser(np.zeros(world.catalogue.leaves.count))
    for session in sessions:
        user.see(world, session)
    return user


def _session(sessions: Sessions, number: int, day: int) -> SeenSession:
    visited = sessions.visited[number, : sessions.visits[number]]
    carted = visited[sessions.carted[number, : len(visited)]]
    cart = int(carted[-1]) if len(carted) else -1
    return SeenSession(day, int(sessions.leaf[number]), visited, cart, bool(sessions.bought[number] >= 0))


def imagine(
    world: World, person: NDArray[np.int64], users: list[SeenUser], *, day: int, random: np.random.Generator
) -> tuple[World, State]:
    """Return one world that agrees with the users' sessions: lasting tastes, and the state at the end of ``day``."""
    settings, population = world.settings, world.population
    favourites, style, price_level = (
        population.favourites.copy(),
        population.style.copy(),
        population.price_level.copy(),
    )
    state = State.empty(person)
    for row, user in enumerate(users):
        likely = OPENING * user.openings + POPULARITY * world.catalogue.leaves.weight
        chosen = random.choice(len(likely), favourites.shape[1], replace=False, p=likely / likely.sum())
        favourites[person[row]], style[person[row]] = chosen, _unit(user.style)
        price_level[person[row]] = user.price_level / (user.visits + 1)
        alive = [each for each in user.intents if random.random() < _survival(settings, each, day)]
        for slot, intent in enumerate(alive):
            state.leaf[row, slot], state.opened[row, slot] = intent.leaf, intent.opened
            state.advertiser[row, slot], state.cart[row, slot] = intent.advertiser, intent.cart
            deepened = random.binomial(intent.sessions, settings.deepen_probability)
            state.stage[row, slot] = LAST_STAGE if intent.cart >= 0 else min(deepened, LAST_STAGE)
            evidence = intent.style + HANDED_DOWN * intent.handed_down + LASTING * _unit(user.style)
            state.style[row, slot] = _unit(evidence)
    people = replace(population, favourites=favourites, style=style, price_level=price_level)
    return replace(world, population=people), state


def _survival(settings: WorldSettings, intent: SeenIntent, day: int) -> float:
    """Return the probability that an intent still lives at the end of ``day``."""
    began = settings.complement_probability if not intent.sessions else 1.0
    faded = (1 - settings.daily_end_probability) ** (day - intent.last_day)
    return float(began * faded * (1 - settings.session_end_probability) ** intent.sessions)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return unit(vector[None])[0] if vector.any() else vector


def observed_probabilities(knowledge: Knowledge, users: list[SeenUser], futures: int) -> NDArray[np.float64]:
    """Return (users, items) the probability of a positive within the window, given what the sessions show."""
    person, rows = knowledge.state.person, np.arange(len(knowledge.state.person))
    total = np.zeros(knowledge.seen.shape)
    for future in track(range(futures), "Futures of the observer", transient=True):
        random = knowledge.world.settings.generator("observer", knowledge.day, future)
        world, state = imagine(knowledge.world, person, users, day=knowledge.day, random=random)
        imagined = replace(knowledge, world=world, state=state)
        total += positive_probabilities(imagined, rows, WINDOW_DAYS, futures=1, first_future=future)
    return total / futures


def positives(knowledge: Knowledge) -> NDArray[np.bool_]:
    """Return (users, items) the items that users add to the cart in the window and had not engaged with before."""
    world, last_day = knowledge.world, knowledge.day + WINDOW_DAYS
    found = np.zeros((len(knowledge.seen), knowledge.seen.shape[1] + 1), dtype=bool)
    rows_of = np.full(world.population.count, -1)
    rows_of[knowledge.state.person] = np.arange(len(knowledge.state.person))
    for lived in live(world, last_day):
        if lived.number > knowledge.day:
            row = rows_of[lived.sessions.rows]
            ours = row >= 0
            carted = np.where(lived.sessions.carted[ours], lived.sessions.visited[ours], -1)
            found[row[ours][:, None], carted] = True
    return found[:, :-1] & ~knowledge.seen


def recall(probability: NDArray[np.float64], knowledge: Knowledge, positive: NDArray[np.bool_]) -> list[float]:
    """Return recall at each of ``DEPTHS``: hits over positives."""
    best = np.argsort(-np.where(knowledge.seen, -1.0, probability), axis=1, kind="stable")
    return [float(np.take_along_axis(positive, best[:, :k], axis=1).sum() / positive.sum()) for k in DEPTHS]


def measure(settings: WorldSettings, users: int, futures: int, lengths: Sequence[int] = ()) -> Table:
    """Measure oracle and observer on users with positives in the newest window of the history.

    ``lengths``: the events that further observers see of each user.
    """
    as_of = settings.day_date(settings.history_days - WINDOW_DAYS - 1)
    world = build_world(settings, settings.history_days - 1)
    everybody = know(settings, as_of, world.population.ids.to_list(), WINDOW_DAYS)
    buyers = np.flatnonzero(positives(everybody).any(axis=1))
    chosen = settings.generator("benchmark").choice(buyers, min(users, len(buyers)), replace=False)
    ids = world.population.ids.gather(np.sort(chosen)).to_list()
    knowledge = know(settings, as_of, ids, WINDOW_DAYS)
    positive, rows = positives(knowledge), np.arange(len(ids))
    oracle = recall(positive_probabilities(knowledge, rows, WINDOW_DAYS, futures=futures), knowledge, positive)
    watched = watch(knowledge.world, knowledge.state.person, knowledge.day)

    def observer(events: int | None) -> list[float]:
        seen = [seen_user(knowledge.world, newest(sessions, events)) for sessions in watched]
        return recall(observed_probabilities(knowledge, seen, futures), knowledge, positive)

    of_all = observer(None)
    shares = [seen / known for seen, known in zip(of_all, oracle, strict=True)]
    shorter = [(f"observer of {events} events", observer(events)) for events in lengths]
    named = (("oracle", oracle), ("observer", of_all), ("observer / oracle", shares), *shorter)
    return Table(
        f"World {settings.seed}: {len(ids)} users, {positive.sum()} positives, {futures} futures a user",
        ("", *(f"recall@{k}" for k in DEPTHS)),
        tuple((name, *(f"{value:.4f}" for value in values)) for name, values in named),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the world")
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--futures", type=int, default=300)
    parser.add_argument("--newest", type=int, nargs="*", default=[], help="events that further observers see of a user")
    arguments = parser.parse_args()
    if min(arguments.newest, default=1) < 1:
        parser.error("--newest: an observer sees at least one event")
    settings = WorldSettings(seed=arguments.seed)
    measure(settings, arguments.users, arguments.futures, arguments.newest).show(Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
