"""How long do the days of the synthetic market take, for requests in their hundreds of thousands, on one core?

The requests of one day of the default world are repeated until there are enough; each has fifty candidates of an arm
beside those of the legacy generators.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from rich.console import Console

from benchmarks.report import Table, at_most
from warehouse.world import WorldSettings
from warehouse.world.market.legacy_generators import Candidates
from warehouse.world.market.luck import Luck
from warehouse.world.market.market import legacy_candidates, merged
from warehouse.world.market.truth import Pairs
from warehouse.world.simulation import build_world, live

REQUESTS, PER_REQUEST = 25_000, 50
SOURCE_OF_THE_ARM = 9


def run(console: Console) -> tuple[dict[str, float], Table]:
    """Return the CPU seconds of each part for 100,000 requests, and their table."""
    settings = WorldSettings(impression_days=1)
    last = settings.history_days - 1
    world = build_world(settings, last)
    *_, lived = live(world, last)
    assert lived.onsite is not None
    of_day = lived.onsite.requests
    requests = replace(of_day.take(np.sort(np.arange(REQUESTS) % len(of_day))), number=np.arange(REQUESTS))
    pairs = Pairs(
        np.repeat(np.arange(REQUESTS), PER_REQUEST),
        np.random.default_rng(0).integers(0, world.catalogue.items.count, REQUESTS * PER_REQUEST),
    )
    nothing = np.full(len(pairs.item), np.nan)
    own = Candidates(pairs, np.full(len(pairs.item), SOURCE_OF_THE_ARM), nothing)
    day, seconds = lived.market.day(last), [time.process_time()]
    legacy = legacy_candidates(world, day, requests)
    seconds.append(time.process_time())
    candidates = merged(world, own, legacy)
    seconds.append(time.process_time())
    lived.market.run(day, requests, candidates, Luck(settings.seed))
    seconds.append(time.process_time())
    names = ("legacy candidates", "an arm's candidates among them", "all stages to the conversion")
    found = dict(zip(names, (np.diff(seconds) * 100_000 / REQUESTS).tolist(), strict=True))
    total = sum(found.values())
    table = Table(
        f"The market: {len(candidates.pairs.item) / REQUESTS:.0f} candidates a request, one core",
        ("CPU seconds for 100,000 requests", "seconds", "target"),
        (
            *((name, f"{value:.1f}", "") for name, value in found.items()),
            ("together", f"{total:.1f}", at_most(total, 60, " s")),
            ("a million requests", f"{10 * total:.0f}", at_most(10 * total, 600, " s")),
        ),
    )
    table.show(console)
    return found, table
