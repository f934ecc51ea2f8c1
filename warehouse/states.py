"""User states, the feature store, and advertiser candidates: one partition a (model version, day) with only the users
inferred that day.

The snapshot as of a day is the newest row of each user up to it, for one model version; two versions never mix.

Table ``state_origins`` keeps the chain of arrivals (``warehouse.day_records``) that each partition was inferred from: a
partition whose day got other arrivals afterwards is inferred again.

A snapshot would read more partitions with every day. So after ``inference.compaction_days`` of them the snapshot of
that day is written down, and later snapshots begin with it. It is derived: a day written again removes those from that
day on.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import polars as pl

from engine.engine import Part, StageRun
from warehouse.day_records import chain_of, chains_by_day
from warehouse.part_files import write_parts
from warehouse.tables import PartitionValue, Tables
from warehouse.user_ranges import USERS_AT_ONCE, by_range, within

STATE_ORIGINS = "state_origins"
_ORIGIN_SCHEMA = {"day": pl.Date(), "made_of": pl.String()}
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


def write_states(tables: Tables, model_version: str, day: date, run: StageRun[Part]) -> int:
    """Replace the states that ``model_version`` infers on ``day`` by the rows of a stage. Return their number."""
    return _write(tables, USER_STATES, model_version, day=day, schema=STATE_SCHEMA, run=run)


def state_days(tables: Tables, model_version: str) -> list[date]:
    """Return the days with states of ``model_version``, ascending; the first is the version's full inference."""
    return tables.days(USER_STATES, "day", {"model_version": model_version})


def outdated_days(tables: Tables, name: str, model_version: str) -> list[date]:
    """Return the days, ascending, whose partition was inferred from other arrivals than the day has now.

    Args:
        name: ``USER_STATES`` or ``ADVERTISER_CANDIDATES``.
    """
    now = chains_by_day(tables)
    origins = _origins(tables, name, model_version).sort("day")
    return [day for day, made_of in origins.iter_rows() if made_of != now.get(day, made_of)]


def snapshot(tables: Tables, model_version: str, day: date) -> pl.DataFrame:
    """Return the newest state of every user as of ``day``, by user_id: ``STATE_SCHEMA`` and the ``day`` of inference.

    Raises:
        TableMissing: no state was ever written.
    """
    return _newest(_behind(tables, USER_STATES, model_version, day))


def snapshot_of(tables: Tables, model_version: str, day: date, users: pl.Series) -> pl.DataFrame:
    """Return the rows of ``snapshot`` of some users. Only the states of these users are held in memory."""
    return _newest(_behind(tables, USER_STATES, model_version, day).filter(pl.col("user_id").is_in(users.implode())))


def snapshot_batches(
    tables: Tables, model_version: str, day: date, users_at_once: int = USERS_AT_ONCE
) -> Iterator[pl.DataFrame]:
    """Yield the rows of ``snapshot``, the states of some users at a time."""
    for rows in by_range(_behind(tables, USER_STATES, model_version, day), users_at_once):
        yield _newest(rows)


def inferred_days(tables: Tables, model_version: str, day: date) -> pl.DataFrame:
    """Return the day of the newest state of every user as of ``day``: user_id and day. Read no state.

    Raises:
        TableMissing: no state was ever written.
    """
    return _newest(_behind(tables, USER_STATES, model_version, day).select("user_id", "day"))


def write_candidates(tables: Tables, model_version: str, day: date, run: StageRun[Part]) -> int:
    """Replace the lists that ``model_version`` predicts on ``day`` by the rows of a stage. Return their number."""
    return _write(tables, ADVERTISER_CANDIDATES, model_version, day=day, schema=CANDIDATE_SCHEMA, run=run)


def candidates_of_day(tables: Tables, model_version: str, day: date) -> pl.LazyFrame:
    """Return the rows that ``model_version`` predicted on ``day``."""
    of_day = (pl.col("model_version") == model_version) & (pl.col("day") == day)
    return tables.scan(ADVERTISER_CANDIDATES).filter(of_day).select(list(CANDIDATE_SCHEMA))


def candidates_snapshot(tables: Tables, model_version: str, day: date) -> pl.DataFrame:
    """Return the newest prediction for every user as of ``day``: ``CANDIDATE_SCHEMA`` and its ``day``, by user_id.

    Raises:
        TableMissing: no prediction was ever written.
    """
    return _newest(_behind(tables, ADVERTISER_CANDIDATES, model_version, day))


def candidate_batches(
    tables: Tables, model_version: str, day: date, users_at_once: int = USERS_AT_ONCE
) -> Iterator[pl.DataFrame]:
    """Yield the rows of ``candidates_snapshot``, the lists of some users at a time."""
    for rows in by_range(_behind(tables, ADVERTISER_CANDIDATES, model_version, day), users_at_once):
        yield _newest(rows)


def candidates_of(tables: Tables, model_version: str, day: date, users: pl.Series) -> pl.DataFrame:
    """Return the rows of ``candidates_snapshot`` in the range of ``users`` (sorted)."""
    return _newest(_behind(tables, ADVERTISER_CANDIDATES, model_version, day).filter(within(users)))


def newest_of_days(tables: Tables, name: str, model_version: str, days: pl.Expr) -> pl.DataFrame:
    """Return the newest row of each user among the partitions whose ``day`` the expression ``days`` chooses.

    Other partitions are not read.
    """
    rows = tables.scan(name).filter(pl.col("model_version") == model_version, days).drop("model_version")
    return _newest(rows)


def compact(tables: Tables, name: str, model_version: str, *, day: date, after_days: int) -> int:
    """Write the snapshot of ``day`` if the snapshot is made from at least ``after_days`` partitions.

    Returns:
        The number of partitions that a snapshot of ``day`` reads from now on, besides the written snapshot.
    """
    behind = _days_behind(tables, name, model_version, day)
    if len(behind) < after_days:
        return len(behind)
    rows = _behind(tables, name, model_version, day).rename({"day": "inferred"})
    batches = (_newest(some, "inferred") for some in by_range(rows))
    tables.write_batches(_compacted(name), rows.collect_schema(), batches, {"model_version": model_version, "day": day})
    return 0


def _write(
    tables: Tables,
    name: str,
    model_version: str,
    *,
    day: date,
    schema: dict[str, pl.DataType],
    run: StageRun[Part],
) -> int:
    # First what is derived: killed in between, the snapshot is read from the partitions, which are never wrong.
    for later in tables.days(_compacted(name), "day", {"model_version": model_version}):
        if later >= day:
            tables.remove(_compacted(name), {"model_version": model_version, "day": later})
    partition: dict[str, PartitionValue] = {"model_version": model_version, "day": day}
    written = write_parts(tables, name, partition, schema=pl.Schema(schema), run=run)
    origin = pl.DataFrame([{"day": day, "made_of": chain_of(tables, day)}], schema=_ORIGIN_SCHEMA)
    kept = _origins(tables, name, model_version).filter(pl.col("day") != day)
    tables.write(STATE_ORIGINS, pl.concat([kept, origin]), {"state_table": name, "model_version": model_version})
    return written


def _origins(tables: Tables, name: str, model_version: str) -> pl.DataFrame:
    if not tables.exists(STATE_ORIGINS):
        return pl.DataFrame(schema=_ORIGIN_SCHEMA)
    return tables.read(STATE_ORIGINS, {"state_table": name, "model_version": model_version}).select("day", "made_of")


def _compacted(name: str) -> str:
    return f"{name}_compacted"


def _base(tables: Tables, name: str, model_version: str, day: date) -> date | None:
    """Return the day of the newest written snapshot up to ``day``; None without such a snapshot."""
    written = tables.days(_compacted(name), "day", {"model_version": model_version})
    return max((each for each in written if each <= day), default=None)


def _days_behind(tables: Tables, name: str, model_version: str, day: date) -> list[date]:
    base = _base(tables, name, model_version, day) or date.min
    return [each for each in tables.days(name, "day", {"model_version": model_version}) if base < each <= day]


def _behind(tables: Tables, name: str, model_version: str, day: date) -> pl.LazyFrame:
    """Return the rows that a snapshot of ``day`` is made from, and the ``day`` of each."""
    base = _base(tables, name, model_version, day)
    since = tables.scan(name).filter(pl.col("model_version") == model_version, pl.col("day") <= day)
    rows = since.filter(pl.col("day") > (base or date.min)).drop("model_version")
    if base is None:
        return rows
    written = tables.scan(_compacted(name)).filter(pl.col("model_version") == model_version, pl.col("day") == base)
    return pl.concat([written.drop("model_version", "day").rename({"inferred": "day"}), rows], how="diagonal")


def _newest(rows: pl.LazyFrame, day: str = "day") -> pl.DataFrame:
    """Return the newest row of each user, by user_id."""
    return rows.sort(day).unique("user_id", keep="last", maintain_order=True).sort("user_id").collect()
