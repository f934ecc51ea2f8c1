"""User states, the feature store, and advertiser candidates: one partition a (model version, day) with only the users
inferred that day.

The snapshot as of a day is the newest row of each user up to it, for one model version; two versions never mix.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from warehouse.tables import Tables

USER_STATES = "user_states"
STATE_SCHEMA = {
    "user_id": pl.String(),
    "events": pl.Int64(),
    "last_event_time": pl.Datetime("us", "UTC"),
    "state": pl.List(pl.Float32()),
}
ADVERTISER_CANDIDATES = "advertiser_candidates"
CANDIDATE_SCHEMA = {
    "user_id": pl.String(),
    "advertiser_ids": pl.List(pl.String()),
    "scores": pl.List(pl.Float32()),
}


def write_states(tables: Tables, model_version: str, day: date, states: pl.DataFrame) -> None:
    """Replace the states that ``model_version`` inferred on ``day``."""
    frame = states.select(list(STATE_SCHEMA)).cast(STATE_SCHEMA)  # type: ignore[arg-type]
    tables.write(USER_STATES, frame, {"model_version": model_version, "day": day})


def state_days(tables: Tables, model_version: str) -> list[date]:
    """Days with states of ``model_version``, ascending; the first is its full inference."""
    return tables.days(USER_STATES, "day", {"model_version": model_version})


def snapshot(tables: Tables, model_version: str, day: date) -> pl.DataFrame:
    """The newest state of every user as of ``day``: ``STATE_SCHEMA`` and the ``day`` it was inferred, by user_id.

    Raises:
        TableMissing: no state was ever written.
    """
    return _newest(tables, USER_STATES, model_version, day)


def write_candidates(tables: Tables, model_version: str, day: date, candidates: pl.DataFrame) -> None:
    """Replace the advertisers that ``model_version`` predicted on ``day`` for the users active that day."""
    frame = candidates.select(list(CANDIDATE_SCHEMA)).cast(CANDIDATE_SCHEMA)  # type: ignore[arg-type]
    tables.write(ADVERTISER_CANDIDATES, frame, {"model_version": model_version, "day": day})


def candidates_snapshot(tables: Tables, model_version: str, day: date) -> pl.DataFrame:
    """The newest prediction for every user as of ``day``: ``CANDIDATE_SCHEMA`` and the ``day`` of it, by user_id.

    Raises:
        TableMissing: nothing was ever predicted.
    """
    return _newest(tables, ADVERTISER_CANDIDATES, model_version, day)


def _newest(tables: Tables, name: str, model_version: str, day: date) -> pl.DataFrame:
    return (
        tables.scan(name)
        .filter(pl.col("model_version") == model_version, pl.col("day") <= day)
        .drop("model_version")
        .sort("day")
        .unique("user_id", keep="last", maintain_order=True)
        .sort("user_id")
        .collect()
    )
