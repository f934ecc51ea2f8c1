"""Onsite requests for ads: who asks, from which surface, beside what."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.surfaces import Surface
from warehouse.world.dynamics import State, World
from warehouse.world.log import HOURLY_ACTIVITY
from warehouse.world.names import STYLE_DIMENSIONS, STYLE_WORDS

SURFACES = [surface.value for surface in (Surface.related_pins, Surface.search, Surface.home_feed)]
RELATED_PINS, SEARCH, HOME_FEED = range(3)  # places in SURFACES


@dataclass(frozen=True)
class Requests:
    """The requests of one day in order of time, one row a request, with the asking user as of the end of the day.

    Attributes:
        day: day number. number: (requests,) of the day, from 0 in the order of the users. second: (requests,) of it.
        row: (requests,) walker. person: (requests,) row of the population.
        surface: (requests,) place in ``SURFACES``. subject: (requests,) item index, -1 without.
        leaf: (requests,) of the subject or query, -1 on home_feed.
        style: (requests, 8) of the subject or of the query's adjective, 0 without.
        word: (requests,) the adjective's index, -1 without.
        intent_leaf: (requests, 3) of the user's intents, -1 for none. intent_style: (requests, 3, 8).
        newest: (requests,) leaf of the newest intent, -1 for none.
    """

    day: int
    number: NDArray[np.int64]
    second: NDArray[np.float64]
    row: NDArray[np.int64]
    person: NDArray[np.int64]
    surface: NDArray[np.int64]
    subject: NDArray[np.int64]
    leaf: NDArray[np.int64]
    style: NDArray[np.float64]
    word: NDArray[np.int64]
    intent_leaf: NDArray[np.int64]
    intent_style: NDArray[np.float64]
    newest: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.number)

    def take(self, rows: NDArray[np.int64]) -> Requests:
        """Return some requests, repeats allowed."""
        columns = [name for name in Requests.__annotations__ if name != "day"]
        return Requests(self.day, **{name: getattr(self, name)[rows] for name in columns})

    @property
    def key(self) -> NDArray[np.uint64]:
        """The requests' keys for the luck (requests,)."""
        return (np.uint64(self.day) << np.uint64(32)) + self.number.astype(np.uint64)

    @property
    def ids(self) -> pl.Series:
        """The names: ``r00210-000017`` is the 18th request of day 210."""
        number = pl.Series("number", self.number).cast(pl.String).str.zfill(6)
        return pl.select(pl.lit(f"r{self.day:05d}-") + number).to_series()


def draw_requests(world: World, state: State, day: int) -> Requests:
    """Draw the requests of a day.

    Args:
        state: at the end of the day; it is read only.
    """
    settings, population, leaves = world.settings, world.population, world.catalogue.leaves
    generator = settings.generator("funnel", day)
    present = population.joined[state.person] <= day
    # Whoever shops much also browses much, though not in proportion.
    activity = population.session_probability[state.person]
    weight = 0.3 + 0.7 * activity / max(float(activity.mean()), 1e-12)
    probability = np.clip(settings.request_share * weight, 0, 0.5) * present
    row = np.flatnonzero(generator.random(len(probability)) < probability)
    count, person = len(row), state.person[row]
    shares = np.cumsum([settings.related_pins_share, settings.search_share])
    surface = (generator.random(count)[:, None] >= shares).sum(axis=1)

    newest = state.newest(row)
    from_intent = (state.leaf[row, newest] >= 0) & (generator.random(count) < settings.intent_subject_share)
    favourite = population.favourites[person, generator.integers(0, population.favourites.shape[1], count)]
    anywhere = generator.choice(leaves.count, count, p=leaves.weight_on(day))
    explored = np.where(generator.random(count) < 0.5, favourite, anywhere)
    leaf = np.where(from_intent, state.leaf[row, newest], explored)
    style = np.where(from_intent[:, None], state.style[row, newest], 0.0)
    advertiser = np.where(from_intent, state.advertiser[row, newest], -1)
    choice = world.choose(world.catalogue.log_popularity(day), person, leaf, style=style, advertiser=advertiser)
    possible = np.flatnonzero(choice.probability.any(axis=1))
    subject = np.full(count, -1)
    subject[possible] = choice.sample(possible, generator.random(len(possible)))
    surface = np.where((surface == RELATED_PINS) & (subject < 0), HOME_FEED, surface)

    word = np.where(generator.random(count) < 0.5, generator.integers(0, 2 * STYLE_DIMENSIONS, count), -1)
    word = np.where(surface == SEARCH, word, -1)
    adjective = _style_of(word)
    subject = np.where(surface == RELATED_PINS, subject, -1)
    shown = np.where((subject >= 0)[:, None], world.catalogue.items.style[np.maximum(subject, 0)], adjective)
    hour = generator.choice(24, count, p=HOURLY_ACTIVITY / HOURLY_ACTIVITY.sum())
    second = (hour + generator.random(count)) * 3600
    drawn = Requests(
        day,
        number=np.arange(count),
        second=second,
        row=row,
        person=person,
        surface=surface,
        subject=subject,
        leaf=np.where(surface == HOME_FEED, -1, leaf),
        style=shown,
        word=word,
        intent_leaf=state.leaf[row],
        intent_style=state.style[row],
        newest=np.where(state.leaf[row, newest] >= 0, state.leaf[row, newest], -1),
    )
    return drawn.take(np.argsort(second, kind="stable"))


def queries(world: World, requests: Requests) -> pl.Series:
    """Return the words of each request on search, null elsewhere."""
    nouns, words = _vocabulary(world)
    texts = [
        None if surface != SEARCH else nouns[leaf] if word < 0 else f"{words[word]} {nouns[leaf]}"
        for surface, leaf, word in zip(requests.surface, requests.leaf, requests.word, strict=True)
    ]
    return pl.Series("query", texts, dtype=pl.String)


def meanings(world: World, texts: pl.Series) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the leaf [texts] and the style (texts, 8) that the words of queries stand for.

    The leaf is -1 for null, and for words that nobody types in this world.
    """
    nouns, words = _vocabulary(world)
    known = {noun: (leaf, -1) for leaf, noun in enumerate(nouns)}
    known |= {f"{word} {noun}": (leaf, place) for place, word in enumerate(words) for leaf, noun in enumerate(nouns)}
    leaf, word = np.array([known.get(text, (-1, -1)) for text in texts], np.int64).reshape(-1, 2).T
    return leaf, _style_of(word)


def _vocabulary(world: World) -> tuple[list[str], list[str]]:
    """Return the noun of each leaf, and the adjectives: two for each dimension of style."""
    leaves = world.catalogue.leaves
    nouns = [leaves.noun(leaf).lower() for leaf in range(leaves.count)]
    return nouns, [word.lower() for pair in STYLE_WORDS for word in pair]


def _style_of(word: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the style (words, 8) of adjectives; 0 for -1, which is no adjective."""
    adjective = np.zeros((len(word), STYLE_DIMENSIONS))
    spoken = np.flatnonzero(word >= 0)
    adjective[spoken, word[spoken] // 2] = 1 - 2 * (word[spoken] % 2)
    return adjective
