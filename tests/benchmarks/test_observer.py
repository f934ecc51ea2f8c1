"""The observer sees sessions only, and ranks worse than the oracle but far better than chance."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.observer import SeenSession, SeenUser, measure, seen_user, watch
from warehouse.world import WorldSettings
from warehouse.world.simulation import build_world, live

SETTINGS = WorldSettings(initial_users=400, new_users_per_day=0, history_days=120, initial_items=600)


def test_a_checkout_ends_an_intent_and_begins_its_complement() -> None:
    world = build_world(SETTINGS, 0)
    items, leaves = world.catalogue.items, world.catalogue.leaves
    user, chair = SeenUser(np.zeros(leaves.count)), np.array([5])
    leaf = int(items.leaf[5])
    user.see(world, SeenSession(3, leaf, chair, cart=5, bought=False))
    assert [(intent.leaf, intent.cart) for intent in user.intents] == [(leaf, 5)]
    user.see(world, SeenSession(4, leaf, chair, cart=5, bought=True))
    (lamp,) = user.intents
    assert (lamp.leaf, lamp.opened, lamp.advertiser) == (leaves.complement[leaf], 9, items.advertiser[5])
    np.testing.assert_allclose(lamp.handed_down, items.style[5])
    assert user.openings.sum() == 1  # the complement was not the user's own idea


def test_it_holds_the_intents_that_the_users_hold() -> None:
    """Of the living intents that had a session, it knows nearly all."""
    world, day = build_world(SETTINGS, 100), 100
    person = np.arange(200)
    *_, last = live(world, day)
    living = [{int(leaf) for leaf in last.state.leaf[row] if leaf >= 0} for row in person]
    users = [seen_user(world, sessions) for sessions in watch(world, person, day)]
    seen = [{intent.leaf for intent in user.intents} for user in users]
    known = sum(len(truth & belief) for truth, belief in zip(living, seen, strict=True))
    assert known > 0.95 * sum(map(len, living))


def test_it_ranks_between_chance_and_the_oracle() -> None:
    table = measure(SETTINGS, users=80, futures=60, lengths=[3])
    oracle, observer, share, of_three_events = (float(row[2]) for row in table.rows)
    assert 3 * 100 / 700 < of_three_events < observer < oracle
    assert share == pytest.approx(observer / oracle, abs=1e-3)
