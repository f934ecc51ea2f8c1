"""The users: demographics, activity and lasting tastes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.world.catalogue import Leaves, identifiers, unit
from warehouse.world.names import COUNTRIES, COUNTRY_SHARES, GENDER_SHARES, GENDERS, STYLE_DIMENSIONS
from warehouse.world.settings import WorldSettings

AGE_BANDS = (0, 25, 35, 50)


@dataclass(frozen=True)
class Population:
    """All users who joined by the horizon, in order of joining (an earlier horizon is a prefix).

    Attributes:
        joined: (users,) day number; 0 for the initial ones.
        country, gender: (users,) indices; age: years. The ``_known`` masks say what the users table shows.
        session_probability: (users,) chance of a shopping session on a day.
        extra_visits: (users,) mean page visits of a session beyond the first.
        favourites: (users, favourite_leaves) leaf indices, most loved first.
        style: (users, 8) lasting style, unit norm. price_level: (users,) preferred price level.
    """

    joined: NDArray[np.int64]
    country: NDArray[np.int64]
    gender: NDArray[np.int64]
    age: NDArray[np.int64]
    country_known: NDArray[np.bool_]
    gender_known: NDArray[np.bool_]
    age_known: NDArray[np.bool_]
    session_probability: NDArray[np.float64]
    extra_visits: NDArray[np.float64]
    favourites: NDArray[np.int64]
    style: NDArray[np.float64]
    price_level: NDArray[np.float64]

    @property
    def count(self) -> int:
        return len(self.joined)

    @cached_property
    def ids(self) -> pl.Series:
        return identifiers("u", self.count)

    def frame(self, rows: NDArray[np.int64]) -> pl.DataFrame:
        """Return the users table (``warehouse.contracts``) of some users."""
        known = {
            "age": pl.Series(self.age[rows], dtype=pl.Int32),
            "gender": pl.Series(np.array(GENDERS)[self.gender[rows]]),
            "country": pl.Series(np.array(COUNTRIES)[self.country[rows]]),
        }
        masks = {"age": self.age_known, "gender": self.gender_known, "country": self.country_known}
        frame = pl.DataFrame({"user_id": self.ids.gather(rows), **known})
        return frame.with_columns(
            pl.when(pl.Series(masks[name][rows])).then(pl.col(name)).otherwise(None).alias(name) for name in known
        )


def build_population(settings: WorldSettings, leaves: Leaves, last_day: int) -> Population:
    """Return all users who join up to and including ``last_day`` (a day number)."""
    affinity = _demographic_affinity(settings, leaves.count)
    batches = [
        _user_batch(settings, leaves, affinity, day)
        for day in range(last_day + 1)
        if day == 0 or settings.new_users_per_day
    ]
    return Population(
        **{name: np.concatenate([getattr(batch, name) for batch in batches]) for name in Population.__annotations__}
    )


def _demographic_affinity(settings: WorldSettings, leaves: int) -> NDArray[np.float64]:
    """Return the log affinity (countries, genders, age bands, leaves), a sum of country, gender and age parts."""
    generator, spread = settings.generator("demographics"), settings.demographic_spread / np.sqrt(3)
    country = generator.normal(0, spread, (len(COUNTRIES), 1, 1, leaves))
    gender = generator.normal(0, spread, (1, len(GENDERS), 1, leaves))
    age = generator.normal(0, spread, (1, 1, len(AGE_BANDS), leaves))
    return country + gender + age


def _user_batch(settings: WorldSettings, leaves: Leaves, affinity: NDArray[np.float64], day: int) -> Population:
    """Return the users who join on one day (day 0: the initial users)."""
    generator = settings.generator("users", day)
    count = settings.initial_users if day == 0 else settings.new_users_per_day
    country = generator.choice(len(COUNTRIES), count, p=COUNTRY_SHARES)
    gender = generator.choice(len(GENDERS), count, p=GENDER_SHARES)
    age = np.clip(generator.gamma(9, 4, count), 16, 85).astype(np.int64)
    band = np.searchsorted(np.array(AGE_BANDS), age, side="right") - 1
    regular = generator.random(count) < settings.regular_share
    median = np.where(regular, settings.regular_sessions_per_day, settings.occasional_sessions_per_day)
    rate = median * np.exp(settings.activity_spread * generator.normal(0, 1, count))
    # The Gumbel trick draws favourites without replacement, most loved first.
    utility = np.log(leaves.weight) + affinity[country, gender, band] + generator.gumbel(size=(count, leaves.count))
    number = min(settings.favourite_leaves, leaves.count)
    known = generator.random((3, count)) >= settings.missing_demographics
    return Population(
        joined=np.full(count, day, dtype=np.int64),
        country=country,
        gender=gender,
        age=age,
        country_known=known[0],
        gender_known=known[1],
        age_known=known[2],
        session_probability=1 - np.exp(-rate),
        extra_visits=settings.session_visits * np.exp(0.4 * generator.normal(0, 1, count)),
        favourites=np.argsort(-utility, axis=1, kind="stable")[:, :number],
        style=unit(generator.normal(0, 1, (count, STYLE_DIMENSIONS))),
        price_level=generator.normal(0, 0.8, count),
    )
