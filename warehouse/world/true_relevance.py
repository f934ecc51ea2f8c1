"""The true relevance of an item beside a subject, which no model reads."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.world.funnel import relevance_to_subjects
from warehouse.world.generate import read_settings
from warehouse.world.oracle import item_indices
from warehouse.world.simulation import build_world


def true_relevance(landing_root: Path, as_of: date, subject_ids: pl.Series, item_ids: pl.Series) -> NDArray[np.float64]:
    """Return the true relevance of each item beside its subject, 0 to 1 [pairs].

    Args:
        landing_root: a landing zone that ``write_world`` wrote.
        as_of: the last day on which an item of the pairs can have appeared.

    Raises:
        FileNotFoundError: the landing zone holds no synthetic world.
        ValueError: an unknown item.
    """
    settings = read_settings(landing_root)
    world = build_world(settings, settings.day_number(as_of))
    return relevance_to_subjects(world, item_indices(subject_ids, world), item_indices(item_ids, world))
