"""``adseq forget``: users leave everything that a home keeps."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from assets.common.resources import writing
from ml.figures.history_page import without_users
from pipelines.cli.errors import RunFailed, RunRefused
from settings import Settings
from warehouse.day_records import record_rewritten, untouched_files
from warehouse.duckdb_views import rebuild_views
from warehouse.forget import add_tombstones, forget_in_landing, forget_in_tables, forgotten_users
from warehouse.home import Home, write_atomically
from warehouse.identity import UserKeys, known_ids
from warehouse.landing import Landing
from warehouse.online import OnlineStore, open_store
from warehouse.online.open import recorded_store, without_password
from warehouse.online.publication import FORGOTTEN
from warehouse.online.publication import add_tombstones as add_online_tombstones
from warehouse.tables import Tables

GRACE_SECONDS = 1.0  # a request that began before the tombstone has long ended after them


def forget_users(home: Home, user_ids: Sequence[str], console: Console) -> None:
    """Remove users from the landing zone, the tables and their older versions, the online store and the reports.

    The tombstones come first, in the tables and in the store, so that neither a day that runs again nor a running
    service brings anything back. Records that requests under way still wrote are removed after a moment. After an
    interruption the same command goes on.

    Raises:
        HomeLocked: another process writes to the home.
        RunRefused: there is no such home, or the home publishes to another store than the settings name.
        StoreUnreachable: the online store does not answer; nothing was removed.
        RunFailed: a landing file cannot be read; all else was removed.
    """
    landing, tables, address = Landing(home.landing), Tables(home.tables), Settings(home=home.root).online.store
    if not tables.names() and not landing.root.is_dir():
        raise RunRefused(f"{home.root} holds neither tables nor a landing zone. Name the home with --home.")
    published = recorded_store(home)
    if published is not None and published != without_password(address):
        raise RunRefused(
            f"{home.root} publishes to {published}, and the settings name {without_password(address)}: set "
            "ADSEQ_ONLINE__STORE to the store of the daily run; otherwise the users' records stay in that store."
        )
    ids = pl.Series("user_id", list(dict.fromkeys(user_ids)), dtype=pl.String)
    keys = UserKeys.of(tables, landing).keys(ids).rename("user_id")
    known = known_ids(tables, ids) | set(ids.filter(keys.is_in(forgotten_users(tables).implode())))
    with writing(home, "adseq forget"):
        store = open_store(address, home)
        try:
            forgotten = _forget_everywhere(home, store, ids, keys)
        finally:
            store.close()
    console.print(forgotten.table(without_password(address)))
    _tell_rest(forgotten, [user_id for user_id in ids if user_id not in known | forgotten.users], console)
    if forgotten.unreadable:
        problems = "\n  ".join(forgotten.unreadable)
        raise RunFailed(
            f"{len(forgotten.unreadable)} landing file(s) could not be checked for the users to delete:\n  "
            f"{problems}\nAll else is done. Mend them or take them away, then give the same command again."
        )


@dataclass(frozen=True)
class _Forgotten:
    """The rows, records and pages removed, and the files of the landing zone that nobody looked into.

    Attributes:
        files: the rows removed from each file of the landing zone. users: the ids that these rows named.
        rows: the rows removed from each table. records: those of the online store.
        pages: the number of pages that changed.
        unreadable: a sentence for each file that could not be read. not_looked_into: the other files left alone.
    """

    files: Sequence[int]
    users: Set[str]
    rows: Mapping[str, int]
    records: int
    pages: int
    unreadable: Sequence[str]
    not_looked_into: Sequence[Path]

    def table(self, store: str) -> Table:
        """Return the counts by place; ``store`` is the address of the online store."""
        table = Table(title="Forgotten", title_justify="left")
        table.add_column("where")
        table.add_column("what was removed", justify="right")
        table.add_row("landing zone", f"{sum(self.files):,} rows of {len(self.files)} files")
        for name, count in self.rows.items():
            table.add_row(f"table {name}", f"{count:,} rows")
        table.add_row(f"online store ({store})", f"{self.records:,} records")
        table.add_row("reports", f"{self.pages} pages changed")
        return table


def _forget_everywhere(home: Home, store: OnlineStore, ids: pl.Series, keys: pl.Series) -> _Forgotten:
    landing, tables = Landing(home.landing), Tables(home.tables)
    add_tombstones(tables, keys, datetime.now(UTC).date())
    add_online_tombstones(store, forgotten_users(tables))
    begun = time.monotonic()
    untouched = untouched_files(tables, landing)
    files = forget_in_landing(landing, ids.to_list())
    rows = forget_in_tables(tables, keys)
    rebuild_views(home, tables)
    pages = _forget_in_reports(home, keys)
    time.sleep(max(0.0, begun + GRACE_SECONDS - time.monotonic()))
    late = forget_in_landing(landing, ids.to_list())
    record_rewritten(tables, landing, untouched & {*files.removed, *late.removed})
    return _Forgotten(
        files=[*files.removed.values(), *late.removed.values()],
        users=files.users | late.users,
        rows=rows,
        records=_forget_online(store, keys),
        pages=pages,
        unreadable=list(late.unreadable.values()),
        not_looked_into=list(late.not_looked_into),
    )


def _tell_rest(forgotten: _Forgotten, unknown: Sequence[str], console: Console) -> None:
    """Print the unknown ids, the files left alone, and the aggregates that remain."""
    if unknown:
        console.print(
            f"Not found: {', '.join(map(repr, unknown))}. No row names them: check the spelling. Rows that arrive "
            "under these ids are kept out from now on.",
            style="yellow",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    for path in forgotten.not_looked_into:
        left = f"Not looked into, because it is being written or is no data: {path}"
        console.print(left, highlight=False, markup=False)
    console.print(
        "Their activity remains only in aggregates: item statistics and the weights of trained models; "
        "`adseq run --retrain` "
        "trains a model without. A tombstone (a keyed hash, table `forgotten`) keeps rows that arrive later out. "
        "Copies outside this home, such as the exporting job's own, are yours to remove.",
        highlight=False,
    )


def _forget_online(store: OnlineStore, keys: pl.Series) -> int:
    namespaces = [namespace for namespace in store.namespaces() if namespace != FORGOTTEN]
    return sum(store.remove(namespace, [key.encode() for key in keys]) for namespace in namespaces)


def _forget_in_reports(home: Home, keys: pl.Series) -> int:
    """Remove the users' sections from the pages that show histories. Returns how many pages had a section."""
    changed = 0
    for path in sorted(home.artifacts.rglob("*.html")):
        page = path.read_text()
        kept = without_users(page, keys)
        if kept != page:
            write_atomically(path, kept.encode())
            changed += 1
    return changed
