"""``adseq forget``: users leave everything that a home keeps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl
from rich.console import Console
from rich.table import Table

from assets.resources import writing
from ml.qualitative import without_users
from settings import Settings
from warehouse.forgetting import bury, forget_in_landing, forget_in_tables
from warehouse.home import Home, write_atomically
from warehouse.identity import UserKeys
from warehouse.landing import Landing
from warehouse.online import OnlineStore, open_store
from warehouse.online.publication import FORGOTTEN
from warehouse.online.store import STAMP
from warehouse.tables import Tables
from warehouse.views import rebuild_views


def forget_users(home: Home, user_ids: Sequence[str], console: Console) -> None:
    """Remove users from the landing zone, the tables and their older versions, the online store and the reports.

    The tombstones come first, in the tables and in the store, so that neither a day that runs again nor a running
    service brings anything back. Interrupted, the same command goes on.

    Raises:
        HomeLocked: another process writes to the home.
        StoreUnreachable: the online store does not answer; nothing was removed.
        CannotForget: a landing file cannot be read.
    """
    landing, tables = Landing(home.landing), Tables(home.tables)
    keys = UserKeys.of(tables, landing).keys(pl.Series("user_id", user_ids)).rename("user_id")
    with writing(home, "adseq forget"):
        store = open_store(Settings(home=home.root).online.store, home)
        try:
            bury(tables, keys, datetime.now(UTC).date())
            store.put(FORGOTTEN, [(key.encode(), STAMP.pack(0)) for key in sorted(keys)])
            files = forget_in_landing(landing, user_ids)
            rows = forget_in_tables(tables, keys)
            rebuild_views(home, tables)
            records = _forget_online(store, keys)
            pages = _forget_in_reports(home, keys)
        finally:
            store.close()
    table = Table(title="Forgotten", title_justify="left")
    table.add_column("where")
    table.add_column("what was removed", justify="right")
    table.add_row("landing zone", f"{sum(files.values()):,} rows of {len(files)} files")
    for name, count in rows.items():
        table.add_row(f"table {name}", f"{count:,} rows")
    table.add_row("online store", f"{records:,} records")
    table.add_row("reports", f"{pages} pages changed")
    console.print(table)
    console.print(
        "What they did stays in sums: statistics of items, weights of models trained with it; `adseq run --retrain` "
        "trains a model without. A tombstone (a keyed hash, table `forgotten`) keeps rows that arrive later out. "
        "Copies outside this home, such as the exporting job's own, are yours to remove.",
        highlight=False,
    )


def _forget_online(store: OnlineStore, keys: pl.Series) -> int:
    shelves = [shelf for shelf in store.shelves() if shelf != FORGOTTEN]
    return sum(store.remove(shelf, [key.encode() for key in keys]) for shelf in shelves)


def _forget_in_reports(home: Home, keys: pl.Series) -> int:
    """Take users' sections out of the pages that show histories. Returns how many pages had one."""
    changed = 0
    for path in sorted(home.artifacts.rglob("*.html")):
        page = path.read_text()
        kept = without_users(page, keys)
        if kept != page:
            write_atomically(path, kept.encode())
            changed += 1
    return changed
