"""The accepted rows of an arrival, out of staging: under their users' keys, each key of the contract once, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from warehouse.contracts import KEYS, SCHEMAS, LandingTable
from warehouse.identity import IDENTITY_SCHEMA, UserKeys
from warehouse.ingest.validate_rows import USER
from warehouse.spill import Staging, in_full_order
from warehouse.user_buckets import EVERYONE, UserBucket

ACCEPTED = "accepted"  # staged: contract columns and the sequence
SEQUENCE = "sequence"  # the order in which rows were read
# Not an anti join, which may keep all rows in memory to look the few up among them.
_IS_FIRST = f"{SEQUENCE} NOT IN (SELECT {SEQUENCE} FROM surplus)"


@dataclass(frozen=True)
class EventArrival:
    """An arrival of events, and the events before it.

    Attributes:
        day: the arrival day.
        begin: the begin of the day; an event before it is late. None for the history, where no event is late.
        earlier: files of the event table with all events that arrived before.
    """

    day: date
    begin: datetime | None
    earlier: Sequence[str]


def accepted_columns(table: LandingTable) -> pl.Schema:
    """Return the columns of the rows that are staged as ``accepted``."""
    return pl.Schema({SEQUENCE: pl.Int64(), **pl.Schema(SCHEMAS[table])})


def written_columns(table: LandingTable) -> pl.Schema:
    """Return the columns of a partition."""
    schema = pl.Schema(SCHEMAS[table])
    return pl.Schema({**schema, "late": pl.Boolean()}) if table is LandingTable.events else schema


def name_users(staged: Staging, table: LandingTable, keys: UserKeys, tombstones: pl.Series) -> int:
    """Make view ``named``: the accepted rows under their users' keys, without the rows of forgotten users.

    Returns:
        The number of accepted rows of forgotten users.
    """
    if USER not in pl.Schema(SCHEMAS[table]):
        staged.execute(f"CREATE VIEW named AS SELECT * FROM {ACCEPTED}")
        return 0
    staged.add("identities", pl.DataFrame(schema=IDENTITY_SCHEMA))
    ids = f"SELECT DISTINCT user_id AS external_id FROM {ACCEPTED}"
    for batch in staged.batches(ids, pl.Schema({"external_id": pl.String()})):
        pairs = batch.select(keys.keys(batch["external_id"]).alias(USER), "external_id")
        staged.add("identities", pairs.filter(~pl.col(USER).is_in(tombstones.implode())))
    # The number of a user orders as the key does, and is sorted in half the time.
    staged.execute(
        "CREATE TABLE numbered AS SELECT user_id, external_id, "
        "CAST(dense_rank() OVER (ORDER BY user_id) AS INTEGER) AS number FROM identities"
    )
    staged.execute(
        "CREATE VIEW named AS SELECT numbered.user_id, number, accepted.* EXCLUDE (user_id) "
        f"FROM {ACCEPTED} AS accepted JOIN numbered ON accepted.user_id = numbered.external_id"
    )
    if tombstones.is_empty():
        return 0
    theirs = f"SELECT count(*) FROM {ACCEPTED} WHERE user_id NOT IN (SELECT external_id FROM identities)"
    return int(staged.rows(theirs)[0][0])


def number_users(staged: Staging) -> None:
    """Make view ``named``: the accepted rows, which are under their users' keys already."""
    staged.execute(
        "CREATE TABLE numbered AS SELECT user_id, CAST(row_number() OVER (ORDER BY user_id) AS INTEGER) AS number "
        f"FROM (SELECT DISTINCT user_id FROM {ACCEPTED})"
    )
    staged.execute(f"CREATE VIEW named AS SELECT * FROM {ACCEPTED} JOIN numbered USING (user_id)")


def identities(staged: Staging) -> Iterator[pl.DataFrame]:
    """Yield the key and the external id of each user of an arrival, by key."""
    return staged.batches("SELECT * FROM identities ORDER BY user_id", pl.Schema(IDENTITY_SCHEMA))


def combined(staged: Staging, table: LandingTable, keys: UserKeys, tombstones: pl.Series) -> Iterator[pl.DataFrame]:
    """Yield the accepted rows of tables other than events in the order of reading; of several with one key the first.

    Only the keys are sorted: rows may be wide, such as items with embeddings.
    """
    _find_repeated(staged, table, SEQUENCE)
    for piece in staged.pieces(ACCEPTED):
        rows = piece.filter(~pl.col(SEQUENCE).is_in(staged.within("surplus", SEQUENCE, piece).implode()))
        if USER in rows.columns:
            rows = rows.with_columns(keys.keys(rows[USER]).alias(USER))
            rows = rows.filter(~pl.col(USER).is_in(tombstones.implode()))
        yield rows.select(written_columns(table).names())


def combined_events(staged: Staging, arrival: EventArrival, users: UserBucket = EVERYONE) -> Iterator[pl.DataFrame]:
    """Yield events by user and time, of one key the earliest; leave out keys that arrived on an earlier day.

        sequence  user  event  time
        1         ann   a      10:05   left out: the same key at 10:03
        2         ann   a      10:03   yielded
        3         bob   a      10:04   yielded: the key is (user_id, event_id)
        4         bob   b      09:00   left out: the key arrived on an earlier day

    Args:
        users: who the accepted rows are about.
    """
    _find_repeated(staged, LandingTable.events, f"event_time, {SEQUENCE}")
    if arrival.earlier:
        key = ", ".join(KEYS[LandingTable.events])
        staged.view("arrived", arrival.earlier)
        staged.execute(
            f"INSERT INTO surplus SELECT {SEQUENCE} FROM named SEMI JOIN "
            f"(SELECT {key} FROM arrived WHERE arrival_date < $day AND {users.sql()}) AS earlier USING ({key})",
            {"day": arrival.day},
        )
    rows = f"""
        SELECT *, coalesce(event_time < $begin, false) AS late
        FROM named WHERE {_IS_FIRST}
        ORDER BY number, event_time
    """
    batches = staged.batches(rows, written_columns(LandingTable.events), {"begin": arrival.begin})
    return in_full_order(batches, ["user_id", "event_time"], "event_id")


def _find_repeated(staged: Staging, table: LandingTable, order: str) -> None:
    """Make table ``surplus``: the sequence numbers of all rows of a key but the first row in ``order``.

    Keys that share a hash with another row are few, and only their rows are numbered. A row of a forgotten user is not
    numbered, for it is not written: another user's row of the same key is then the first.
    """
    key = ", ".join(KEYS[table])
    shared = USER in pl.Schema(SCHEMAS[table]) and USER not in KEYS[table]  # users may have rows of one key
    kept = "AND user_id IN (SELECT external_id FROM identities)" if shared else ""
    staged.execute(
        f"CREATE TABLE surplus AS SELECT {SEQUENCE} FROM ("
        f"SELECT {SEQUENCE}, row_number() OVER (PARTITION BY {key} ORDER BY {order}) AS place FROM {ACCEPTED} "
        f"WHERE hash({key}) IN (SELECT hash({key}) AS code FROM {ACCEPTED} GROUP BY code HAVING count(*) > 1) {kept}"
        ") WHERE place > 1"
    )
