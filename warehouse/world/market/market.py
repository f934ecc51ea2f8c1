"""The market from day to day: every request of a day through the funnel, budgets and pacing, the effect of clicks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from warehouse.world.catalogue import unit
from warehouse.world.dynamics import LAST_STAGE, State, World
from warehouse.world.market.ads import Ads
from warehouse.world.market.downstream import CLICKED, MarketDay, Outcome, send
from warehouse.world.market.legacy_generators import Candidates, Shelves, propose
from warehouse.world.market.luck import Luck
from warehouse.world.market.requests import Requests, draw_requests
from warehouse.world.market.truth import Pairs, Values

BLOCKS = 4
"""Parts of a day after which spending is added up: an ad stops up to six hours late."""
SECONDS_A_BLOCK = 86_400 / BLOCKS


@dataclass(frozen=True)
class OnsiteDay:
    """The requests of one day, their candidates and the fate of each candidate."""

    requests: Requests
    candidates: Candidates
    outcome: Outcome


@dataclass(frozen=True)
class Market:
    """The ads and their pacing, which depends on the days before.

    Attributes:
        participation: (ads,) probability of taking part in a request on the coming day.
    """

    world: World
    ads: Ads
    participation: Values

    @classmethod
    def opening(cls, world: World, ads: Ads) -> Market:
        return cls(world, ads, np.ones(len(ads)))

    def day(self, number: int) -> MarketDay:
        catalogue = self.world.catalogue
        return MarketDay(self.world, self.ads, self.ads.best(number), catalogue.prices(number), self.participation)

    def run(self, day: MarketDay, requests: Requests, candidates: Candidates, luck: Luck) -> tuple[Outcome, Market]:
        """Send a whole day's candidates through the funnel; return their fate and the market of the next day.

        Args:
            requests: of the day, in order of time. candidates: of these requests.
        """
        spent = np.zeros(len(self.ads))
        block = np.minimum((requests.second / SECONDS_A_BLOCK).astype(np.int64), BLOCKS - 1)
        bounds = np.searchsorted(block[candidates.pairs.request], np.arange(BLOCKS + 1))
        outcomes = []
        for low, high in pairwise(bounds.tolist()):
            part = Pairs(candidates.pairs.request[low:high], candidates.pairs.item[low:high])
            outcome = send(day, requests, part, spent=spent, luck=luck)
            paying = outcome.price_paid > 0
            np.add.at(spent, outcome.ad[paying], outcome.price_paid[paying])
            outcomes.append(outcome)
        joined = Outcome(
            **{name: np.concatenate([getattr(each, name) for each in outcomes]) for name in Outcome.__annotations__}
        )
        return joined, replace(self, participation=self._paced(spent))

    def _paced(self, spent: Values) -> Values:
        """Return the participation of the next day, so that a budget lasts for it if the day is like this one.

        Source: probabilistic throttling; Agarwal et al., 2014, "Budget pacing for targeted online ads at
        LinkedIn", in its simplest form, once a day.
        """
        floor = self.world.settings.market.participation_floor
        wanted = np.divide(spent, self.participation)
        rate = np.divide(self.ads.daily_budget, wanted, out=np.full(len(spent), np.inf), where=wanted > 0)
        changed = np.where(wanted > 0, rate, np.minimum(self.participation * 1.5, 1.0))
        paced: Values = np.clip(changed, floor, 1.0)
        return paced


def legacy_candidates(world: World, day: MarketDay, requests: Requests) -> Candidates:
    """Return the candidates of the legacy generators for the requests of a whole day, the same at each call."""
    shelves = Shelves.of(world, day.best_ad, requests.day)
    return propose(world, shelves, requests, world.settings.generator("legacy", requests.day))


def run_day(market: Market, state: State, number: int) -> tuple[OnsiteDay, Market]:
    """Live through one day on site under the legacy generators, and let clicks move the users' intents.

    Args:
        state: at the end of the day's shopping; clicks change it in place.

    Returns:
        The day, and the market of the next day.
    """
    world = market.world
    requests, day = draw_requests(world, state, number), market.day(number)
    candidates = legacy_candidates(world, day, requests)
    outcome, following = market.run(day, requests, candidates, Luck(world.settings.seed))
    _move_intents(world, state, requests, candidates=candidates, outcome=outcome)
    return OnsiteDay(requests, candidates, outcome), following


def _move_intents(world: World, state: State, requests: Requests, *, candidates: Candidates, outcome: Outcome) -> None:
    """Let a clicked item open an intent, or turn the living intent of its leaf to the item's style."""
    market, items = world.settings.market, world.catalogue.items
    clicked = np.flatnonzero(outcome.stage >= CLICKED)
    asked, item = candidates.pairs.request[clicked], candidates.pairs.item[clicked]
    moved = Luck(world.settings.seed).uniform("intent", requests.key[asked], item) < market.click_opens_intent
    row, first = np.unique(requests.row[asked[moved]], return_index=True)
    item = item[moved][first]
    leaf, same = items.leaf[item], state.leaf[row] == items.leaf[item][:, None]
    living = same.any(axis=1)
    free = np.where(state.leaf[row] >= 0, state.opened[row], -1).argmin(axis=1)
    slot = np.where(living, same.argmax(axis=1), free)
    style = unit(items.style[item] + world.population.style[state.person[row]])

    new = ~living
    state.open(row[new], slot[new], leaf[new], style=style[new], when=2 * requests.day + 1)
    state.advertiser[row[new], slot[new]] = items.advertiser[item[new]]
    turned = (row[living], slot[living])
    state.style[turned] = unit(state.style[turned] + items.style[item[living]])
    state.stage[turned] = np.minimum(state.stage[turned] + 1, LAST_STAGE)


def merged(world: World, own: Candidates, legacy: Candidates) -> Candidates:
    """Return the candidates of one more generator and of the legacy generators, each item once a request.

    An item that both propose counts for the one more, and keeps the propensity of the legacy generators.
    """
    both = (own, legacy)
    key = np.concatenate([each.pairs.request * world.catalogue.items.count + each.pairs.item for each in both])
    _, last = np.unique(key[::-1], return_index=True)
    key, first = np.unique(key, return_index=True)
    propensity = np.concatenate([each.propensity for each in both])
    return Candidates(
        Pairs(*np.divmod(key, world.catalogue.items.count)),
        np.concatenate([each.source for each in both])[first],
        propensity[len(propensity) - 1 - last],
    )
