"""An experiment on the market: the days of a window again, once for each arm, with the arm's candidates beside others.

Every arm starts from the same day, with the same requests, the same legacy candidates and the same luck for each pair
of request and item. Budgets and pacing run on in each arm by themselves. The users' intents stay those of the log: a
click of an arm moves nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.world.dynamics import World
from warehouse.world.generate import read_settings
from warehouse.world.market.ads import NO_AD
from warehouse.world.market.downstream import IMPRESSED, RANKED, MarketDay, Outcome
from warehouse.world.market.legacy_generators import LEGACY_SOURCES, Candidates
from warehouse.world.market.luck import Luck
from warehouse.world.market.market import Market, merged
from warehouse.world.market.requests import SURFACES, Requests
from warehouse.world.market.truth import Pairs, Rows, Values
from warehouse.world.names import COUNTRIES, TOP_COUNTRIES
from warehouse.world.oracle import item_indices
from warehouse.world.simulation import build_world, live

SCHEMA = pl.Schema(
    {
        "arm": pl.String(),
        "request_id": pl.String(),
        "user_id": pl.String(),
        "surface": pl.String(),
        "country_group": pl.String(),
        "source": pl.String(),
        "retrieved": pl.Float64(),
        "ranked": pl.Float64(),
        "delivered": pl.Float64(),
        "only_own": pl.Float64(),
        "price_paid": pl.Float64(),
        "clicks": pl.Float64(),
        "conversions": pl.Float64(),
        "value": pl.Float64(),
        "relevance": pl.Float64(),
        "delivered_relevance": pl.Float64(),
    }
)
OWN = len(LEGACY_SOURCES)
"""Number of the source of an arm's own candidates."""


@dataclass(frozen=True)
class Arm:
    """A generator under test.

    Attributes:
        name: the arm's, and of its source.
        candidates: request_id, item_id, rank (from 1); without a row the legacy generators are alone.
        luck: another number is another seed of the luck after retrieval; 0: the luck of the log.
    """

    name: str
    candidates: pl.DataFrame
    luck: int = 0


def run_arms(landing_root: Path, arms: Sequence[Arm], *, since: date, until: date, quota: int) -> pl.DataFrame:
    """Run the market of the days ``since`` to ``until``, both included, once for each arm.

    Args:
        landing_root: a landing zone that ``write_world`` wrote.
        quota: an arm proposes its first so many candidates that an ad makes eligible.

    Returns:
        One row an arm, request and source that proposed anything: arm, request_id, user_id, surface, country_group
        (``top`` or ``other``), source; retrieved, ranked (passed the trim) and delivered candidates; price_paid,
        expected clicks, conversions and value (dollars); relevance and delivered_relevance, sums over the retrieved and
        the delivered candidates; only_own, the delivered ones that no legacy generator proposed.

    Raises:
        FileNotFoundError: the landing zone holds no synthetic world.
        ValueError: an unknown item, a request that the window does not have, or two sources of one name.
    """
    _refuse_equal_names(arms)
    settings = read_settings(landing_root)
    first, last = settings.day_number(since), settings.day_number(until)
    world = build_world(settings, last)
    by_arm = {arm.name: _Proposals.of(arm, world) for arm in arms}
    markets: dict[str, Market] = {}
    frames = []
    for lived in live(world, last):
        if lived.number < first or lived.onsite is None:
            continue
        today, requests = lived.market.day(lived.number), lived.onsite.requests
        for arm in arms:
            market = markets.setdefault(arm.name, lived.market)
            day = replace(today, participation=market.participation)
            own = by_arm[arm.name].on(day, requests, quota)
            candidates = merged(world, own, lived.onsite.candidates)
            outcome, markets[arm.name] = market.run(day, requests, candidates, Luck(settings.seed + arm.luck))
            frames.append(_counted(world, arm.name, requests, candidates=candidates, outcome=outcome))
    for arm in arms:
        by_arm[arm.name].refuse_unknown()
    return pl.concat([pl.DataFrame(schema=SCHEMA), *frames])


def _refuse_equal_names(arms: Sequence[Arm]) -> None:
    names = [*LEGACY_SOURCES, *(arm.name for arm in arms)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{repeated[0]!r} names two sources: give each arm a name that no legacy generator has.")


@dataclass
class _Proposals:
    """The candidates of an arm by request, in the order of their rank."""

    rows_of: dict[str, Rows]

    @classmethod
    def of(cls, arm: Arm, world: World) -> _Proposals:
        ordered = arm.candidates.sort("request_id", "rank")
        found = ordered.with_columns(item=pl.Series(item_indices(ordered["item_id"], world)))
        grouped = found.group_by("request_id", maintain_order=True).agg("item")
        return cls({name: np.array(items, np.int64) for name, items in grouped.iter_rows()})

    def on(self, day: MarketDay, requests: Requests, quota: int) -> Candidates:
        """Return the first ``quota`` eligible candidates of each request of a day."""
        country = day.world.population.country[requests.person]
        request, item = [], []
        for row, name in enumerate(requests.ids):
            proposed = self.rows_of.pop(name, np.zeros(0, np.int64))
            proposed = proposed[(day.best_ad[country[row], proposed] != NO_AD) & (proposed != requests.subject[row])]
            request.append(np.full(len(proposed[:quota]), row))
            item.append(proposed[:quota])
        pairs = Pairs(np.concatenate([np.zeros(0, np.int64), *request]), np.concatenate([np.zeros(0, np.int64), *item]))
        return Candidates(pairs, np.full(len(pairs.item), OWN), np.full(len(pairs.item), np.nan))

    def refuse_unknown(self) -> None:
        """Raise for candidates of a request that no day had.

        Raises:
            ValueError: with the first of these requests.
        """
        if self.rows_of:
            raise ValueError(f"{min(self.rows_of)!r} is no request of the window: its candidates met no market.")


def _counted(world: World, arm: str, requests: Requests, *, candidates: Candidates, outcome: Outcome) -> pl.DataFrame:
    """Return the rows of one arm and day, as ``run_arms``."""
    sources = (*LEGACY_SOURCES, arm)
    cell = candidates.pairs.request * len(sources) + candidates.source
    size = len(requests) * len(sources)

    def total(weights: Values | NDArray[np.bool_]) -> Values:
        return np.asarray(np.bincount(cell, weights, minlength=size), np.float64)

    delivered = outcome.stage >= IMPRESSED
    alone = delivered & (candidates.source == OWN) & ~candidates.proposed_by_legacy
    retrieved = total(np.ones(len(cell)))
    rows = np.flatnonzero(retrieved)
    request, source = np.divmod(rows, len(sources))
    country = pl.Series(COUNTRIES).gather(world.population.country[requests.person[request]])
    sums = {
        "retrieved": retrieved,
        "ranked": total(outcome.stage >= RANKED),
        "delivered": total(delivered),
        "only_own": total(alone),
        "price_paid": total(outcome.price_paid),
        "clicks": total(outcome.expected_clicks),
        "conversions": total(outcome.expected_conversions),
        "value": total(outcome.expected_value),
        "relevance": total(outcome.relevance),
        "delivered_relevance": total(outcome.relevance * delivered),
    }
    return pl.DataFrame(
        {
            "arm": pl.repeat(arm, len(rows), eager=True),
            "request_id": requests.ids.gather(request),
            "user_id": world.population.ids.gather(requests.person[request]),
            "surface": pl.Series(SURFACES).gather(requests.surface[request]),
            "country_group": country.is_in(TOP_COUNTRIES).replace_strict({True: "top", False: "other"}),
            "source": pl.Series(sources).gather(source),
            **{name: values[rows] for name, values in sums.items()},
        }
    )
