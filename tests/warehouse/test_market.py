"""The market of the world: luck that belongs to a pair, known propensities, fair prices, budgets, ads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.assets.world import WORLD
from warehouse.world.dynamics import World
from warehouse.world.market.ads import NO_AD, build_ads
from warehouse.world.market.downstream import AUCTIONED, CLICKED, CONVERTED, IMPRESSED, RETRIEVED, second_prices
from warehouse.world.market.legacy_generators import Candidates, Shelves, propensity, propose
from warehouse.world.market.luck import Luck
from warehouse.world.market.market import BLOCKS, Market, OnsiteDay, legacy_candidates, merged
from warehouse.world.market.truth import Pairs
from warehouse.world.names import COUNTRIES
from warehouse.world.simulation import Day, build_world, live

# Budgets that end within the day, and conversions that can be counted.
MARKET = {"budgeted_share": 0.6, "daily_budget": 0.2, "conversion_base": -1.5}
SETTINGS = WORLD.model_copy(
    update={
        "history_days": 30,
        "impression_days": 6,
        "request_share": 0.4,
        "market": WORLD.market.model_copy(update=MARKET),
    }
)
LAST = SETTINGS.history_days - 1


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(SETTINGS, LAST)


@pytest.fixture(scope="module")
def day(world: World) -> Day:
    *_, last = live(world, LAST)
    return last


@pytest.fixture(scope="module")
def onsite(day: Day) -> OnsiteDay:
    assert day.onsite is not None
    return day.onsite


def test_luck_belongs_to_the_pair_and_is_uniform() -> None:
    request, item = np.tile(np.arange(300, dtype=np.uint64), 200), np.repeat(np.arange(200), 300)
    luck = Luck(3)
    drawn = luck.uniform("click", request, item)
    backwards = luck.uniform("click", request[::-1], item[::-1])[::-1]
    assert (drawn == backwards).all()
    assert drawn[17] == luck.uniform("click", request[17:18], item[17:18])[0]
    counts, _ = np.histogram(drawn, 20, (0, 1))
    assert ((counts - len(drawn) / 20) ** 2 / (len(drawn) / 20)).sum() < 43.8  # chi-squared, 19 degrees, p = .001
    others = (luck.uniform("conversion", request, item), Luck(4).uniform("click", request, item))
    table = drawn.reshape(200, 300)
    pairs = [*((drawn, other) for other in others), (table[:-1], table[1:]), (table[:, :-1], table[:, 1:])]
    for one, other in pairs:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(len(drawn))
    normal = luck.normal("model", request, item)
    assert abs(normal.mean()) < 4 / np.sqrt(len(normal))
    assert abs(normal.std() - 1) < 4 / np.sqrt(2 * len(normal))


def test_an_item_is_proposed_as_often_as_its_propensity_says(world: World, day: Day, onsite: OnsiteDay) -> None:
    requests, times = onsite.requests.take(np.arange(12)), 1500
    shelves = Shelves.of(world, day.market.day(LAST).best_ad, LAST)
    every = Pairs(*(each.ravel() for each in np.indices((12, world.catalogue.items.count))))
    expected = propensity(world, shelves, requests, every).reshape(12, -1)
    expected[np.arange(12)[requests.subject >= 0], requests.subject[requests.subject >= 0]] = 0
    generator, found = SETTINGS.generator("again"), np.zeros_like(expected)
    for _ in range(times):
        pairs = propose(world, shelves, requests, generator).pairs
        found[pairs.request, pairs.item] += 1 / times
    error = np.abs(found - expected) / np.sqrt(expected * (1 - expected) / times + 1e-9)
    assert ((expected > 0.2) & (expected < 0.9)).sum() > 100
    assert error.max() < 5.5
    assert (found[expected == 0] == 0).all()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(-3, 3), st.floats(0, 1)), min_size=1, max_size=40),
    st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_a_winner_pays_what_the_place_takes_and_never_more_than_the_own_worth(
    bids: list[tuple[int, float, float]], slots: int
) -> None:
    request, worth, weight = (np.array(each) for each in zip(*bids, strict=True))
    reserve = float(np.exp(worth.min()))
    winners, paid = second_prices(request, worth + weight, weight, slots=slots, reserve=reserve)
    assert (paid >= reserve).all()
    assert (paid <= np.exp(worth[winners]) + 1e-9).all()
    assert np.bincount(request[winners]).max() <= slots
    # A winner who had bid the price, and a trifle more, would have won a slot too.
    for row, price in zip(winners, paid, strict=True):
        lower = worth.copy()
        lower[row] = np.log(price) + 1e-6
        again, _ = second_prices(request, lower + weight, weight, slots=slots, reserve=reserve)
        assert row in again


def test_a_day_run_again_is_the_same_day(world: World, day: Day, onsite: OnsiteDay) -> None:
    market, today = day.market, day.market.day(LAST)
    candidates = legacy_candidates(world, today, onsite.requests)
    again, _ = market.run(today, onsite.requests, candidates, Luck(SETTINGS.seed))
    for name in ("stage", "price_paid", "value", "expected_value"):
        assert (getattr(again, name) == getattr(onsite.outcome, name)).all()


def test_a_candidate_has_the_same_luck_whoever_proposes_it(world: World, day: Day, onsite: OnsiteDay) -> None:
    """A generator that proposes the legacy candidates again changes nothing but the names of the sources."""
    own = replace(onsite.candidates, source=np.full(len(onsite.candidates.source), 9))
    both = merged(world, own, onsite.candidates)
    assert (both.source == 9).all()
    outcome, _ = day.market.run(day.market.day(LAST), onsite.requests, both, Luck(SETTINGS.seed))
    assert (outcome.stage == onsite.outcome.stage).all()
    assert outcome.price_paid.sum() == pytest.approx(onsite.outcome.price_paid.sum())


def test_candidates_that_nobody_wants_change_no_impression(world: World, day: Day, onsite: OnsiteDay) -> None:
    today = day.market.day(LAST)
    asked = np.flatnonzero(onsite.requests.leaf >= 0)
    far = np.array([int(np.argmax(world.catalogue.items.leaf // 12 != leaf // 12)) for leaf in onsite.requests.leaf])
    others = Candidates(Pairs(asked, far[asked]), np.full(len(asked), 9), np.full(len(asked), np.nan))
    both = merged(world, others, onsite.candidates)
    outcome, _ = day.market.run(today, onsite.requests, both, Luck(SETTINGS.seed))
    assert (outcome.stage[both.source == 9] < AUCTIONED).all()
    assert outcome.price_paid.sum() == pytest.approx(onsite.outcome.price_paid.sum())


def test_what_runs_is_what_the_dates_and_the_advertiser_say(world: World) -> None:
    ads, number = build_ads(world.catalogue, LAST), LAST - 3
    best = ads.best(number)
    for country in range(len(COUNTRIES)):
        for item in range(world.catalogue.items.count):
            running = [
                row
                for row in np.flatnonzero(ads.item == item)
                if ads.first_day[row] <= number <= ads.last_day[row]
                and number < ads.paused_on[row]
                and ads.country[row] in (country, NO_AD)
                and world.catalogue.items.ships_to[item, country]
            ]
            highest = max((ads.bid[row] for row in running), default=None)
            assert (best[country, item] == NO_AD) == (highest is None)
            assert highest is None or ads.bid[best[country, item]] == highest


def test_a_spent_budget_ends_the_day_of_an_advertisement(world: World, day: Day, onsite: OnsiteDay) -> None:
    paced = day.market.participation
    assert (paced < 1).sum() > 5
    unpaced = Market(world, day.market.ads, np.ones(len(paced)))
    outcome, _ = unpaced.run(unpaced.day(LAST), onsite.requests, onsite.candidates, Luck(SETTINGS.seed))
    spent = np.bincount(np.maximum(outcome.ad, 0), outcome.price_paid, minlength=len(paced))
    over = np.flatnonzero(spent > day.market.ads.daily_budget)
    assert len(over) > 3
    block = (onsite.requests.second / 86_400 * BLOCKS).astype(int)[onsite.candidates.pairs.request]
    for ad in over:
        shown = (outcome.ad == ad) & (outcome.stage >= IMPRESSED)
        before = outcome.price_paid[shown & (block < block[shown].max())].sum()
        assert before < day.market.ads.daily_budget[ad]  # the last part of the day began within the budget
    within = np.bincount(np.maximum(onsite.outcome.ad, 0), onsite.outcome.price_paid, minlength=len(paced))
    assert within[over].sum() < spent[over].sum()


def test_clicks_and_conversions_come_as_often_as_their_chances_say(world: World) -> None:
    clicked, converted, clicks, conversions = 0, 0, 0.0, 0.0
    for lived in live(world, LAST):
        if lived.onsite is None:
            continue
        outcome = lived.onsite.outcome
        shown = outcome.stage >= IMPRESSED
        clicked += int((outcome.stage >= CLICKED).sum())
        converted += int((outcome.stage == CONVERTED).sum())
        clicks, conversions = clicks + outcome.expected_clicks.sum(), conversions + outcome.expected_conversions.sum()
        assert ((outcome.value > 0) == (outcome.stage == CONVERTED)).all()
        assert (outcome.price_paid[~shown] == 0).all()
        assert (outcome.price_paid[shown] >= SETTINGS.market.reserve).all()
        assert (outcome.stage[outcome.ad == NO_AD] == RETRIEVED).all()
    assert clicks > 100
    assert abs(clicked - clicks) < 4 * np.sqrt(clicks)
    assert conversions > 20
    assert abs(converted - conversions) < 4 * np.sqrt(conversions)


def test_a_high_reserve_leaves_slots_empty_and_nobody_pays_less(world: World, day: Day, onsite: OnsiteDay) -> None:
    reserve = float(np.quantile(onsite.outcome.price_paid[onsite.outcome.price_paid > 0], 0.8))
    market = SETTINGS.market.model_copy(update={"reserve": reserve})
    dear = replace(world, settings=SETTINGS.model_copy(update={"market": market}))
    today = replace(day.market.day(LAST), world=dear)
    outcome, _ = replace(day.market, world=dear).run(today, onsite.requests, onsite.candidates, Luck(SETTINGS.seed))
    shown = outcome.stage >= IMPRESSED
    assert 0 < shown.sum() < 0.8 * (onsite.outcome.stage >= IMPRESSED).sum()
    assert (outcome.price_paid[shown] >= reserve).all()


def test_ads_go_on_as_long_as_the_world_does() -> None:
    """Nearly as many items are advertised after three years as in the beginning."""
    lasting = WORLD.model_copy(update={"new_items_per_day": 0})
    ads = build_ads(build_world(lasting, 0).catalogue, 1100)
    shares = [float((ads.best(day) != NO_AD).any(axis=0).mean()) for day in (100, 1100)]
    assert shares[1] > 0.9 * shares[0] > 0.6


def test_an_ad_is_paused_only_if_its_advertiser_paused_it(world: World) -> None:
    ads = build_ads(world.catalogue, LAST)
    frame = ads.frame(np.arange(len(ads)), LAST)
    began = frame.filter(pl.col("starts") <= SETTINGS.midnight(LAST))
    share = (began["status"] == "paused").mean()
    assert share == pytest.approx(SETTINGS.market.paused_share, abs=0.03)
    arriving = {int(row) for number in range(LAST + 1) for row in ads.arrivals(number)}
    paused = {int(row) for row in np.flatnonzero((frame["status"] == "paused").to_numpy() & (ads.paused_on >= 0))}
    assert paused <= arriving
