"""The seeded synthetic world, the embedded default source, whose truth is known."""

from __future__ import annotations

from warehouse.world.contextual_oracle import contextual_ranking
from warehouse.world.generate import AnotherEdition, WorldSummary, is_world, read_settings, write_day, write_world
from warehouse.world.market.arms import Arm, run_arms
from warehouse.world.oracle import oracle_ranking
from warehouse.world.planted_disagreement import Disagreement, planted_disagreement
from warehouse.world.settings import WorldSettings
from warehouse.world.true_relevance import TrueRelevance

__all__ = [
    "AnotherEdition",
    "Arm",
    "Disagreement",
    "TrueRelevance",
    "WorldSettings",
    "WorldSummary",
    "contextual_ranking",
    "is_world",
    "oracle_ranking",
    "planted_disagreement",
    "read_settings",
    "run_arms",
    "write_day",
    "write_world",
]
