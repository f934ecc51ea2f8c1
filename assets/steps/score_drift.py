"""Drift of scores: what the best item of a user scores, day by day, under one model version."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from assets.steps.versions import ModelVersion
from warehouse.tables import Tables

DAILY_SCORES = "daily_scores"
WEEK = timedelta(days=7)
FEWEST_DAYS = 4  # of the week before, to be held against
SHOWN = timedelta(days=60)


@dataclass(frozen=True)
class ScoreDrift:
    """A day's scores beside those of the days before.

    Attributes:
        by_day: day, users, lowest (10 %), median, highest (90 %); ascending, the day last.
        shift: of the median against the week before, in that week's ranges from 10 % to 90 %; None with fewer days.
    """

    by_day: pl.DataFrame
    shift: float | None


def record_scores(tables: Tables, version: ModelVersion, day: date, scores: NDArray[np.float32]) -> ScoreDrift:
    """Store the scores of the best items of some users on ``day``, and compare them.

    Args:
        scores: [users], of a sample of the snapshot. Nothing is measured without scores.
    """
    where: dict[str, str | date] = {"model_version": version.name, "day": day}
    if not len(scores):
        tables.remove(DAILY_SCORES, where)
        return ScoreDrift(pl.DataFrame(), None)
    lowest, median, highest = (float(value) for value in np.quantile(scores, (0.1, 0.5, 0.9)))
    row = {"users": len(scores), "lowest": lowest, "median": median, "highest": highest}
    tables.write(DAILY_SCORES, pl.DataFrame([row]), where)
    known = tables.scan(DAILY_SCORES).filter(pl.col("model_version") == version.name, pl.col("day") <= day)
    by_day = known.filter(pl.col("day") > day - SHOWN).drop("model_version").sort("day").collect()
    week = by_day.filter((pl.col("day") < day) & (pl.col("day") >= day - WEEK))
    width = (week["highest"] - week["lowest"]).mean() if len(week) >= FEWEST_DAYS else None
    usual = week["median"].mean()
    shift = (median - usual) / width if width else None  # type: ignore[operator]
    return ScoreDrift(by_day, None if shift is None else float(shift))
