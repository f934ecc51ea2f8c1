"""A home that was moved, copied or restored: absolute paths in other tools' files are changed to the new place."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb

from warehouse.duckdb_views import rebuild_views
from warehouse.home import Home
from warehouse.tables import TableDamaged, Tables

logger = logging.getLogger(__name__)
ARTIFACT_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
"""Where MLflow's database keeps addresses of artefacts: table and column."""

LOCK_SECONDS = 30.0  # MLflow's own server may be writing


def follow_home(home: Home) -> list[str]:
    """Replace addresses of another place, in MLflow's database and in the views, by addresses in ``home``.

    MLflow writes artefacts to absolute addresses. A copied home would write into the original, and fail when the
    original is gone. The addresses change in one transaction, so that an interruption leaves the old addresses, and the
    next call goes on.

    Returns:
        The addresses of artefacts that were replaced; none where the home has not moved.
    """
    replaced = _move_artifacts(Path(home.tracking_uri.removeprefix("sqlite:///")), home.artifacts)
    if replaced and home.views.exists():
        try:
            rebuild_views(home, Tables(home.tables))
        except (duckdb.Error, OSError, TableDamaged) as error:  # the day that mends the table makes the views, too
            logger.warning("%s still names files of %s: %s", home.views, replaced[0], str(error).splitlines()[0])
    return replaced


def _move_artifacts(database: Path, artifacts: Path) -> list[str]:
    if not database.is_file():
        return []
    now = artifacts.as_uri()
    with closing(sqlite3.connect(database, timeout=LOCK_SECONDS)) as connection:
        before = _earlier_places(connection, artifacts)
        if not before:
            return []
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for place in before:
                for table, column in _present(connection):
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        (now, len(place) + 1, len(place) + 1, f"{place}/"),
                    )
    return before


def _earlier_places(connection: sqlite3.Connection, artifacts: Path) -> list[str]:
    """Return the addresses of artefact directories that experiments name and that are not ``artifacts``.

    Every experiment of adseq lies in such a directory. The address ends like the address in every home:
    mlflow/artifacts.
    """
    if ARTIFACT_COLUMNS[0] not in _present(connection):
        return []
    ending = "/" + "/".join(artifacts.parts[-2:])
    named = connection.execute("SELECT artifact_location FROM experiments")
    places = {str(location).rpartition("/")[0] for (location,) in named}
    return sorted(place for place in places if place.endswith(ending) and place != artifacts.as_uri())


def _present(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the columns of ``ARTIFACT_COLUMNS`` that the database has; an empty database has none."""
    found = []
    for table, column in ARTIFACT_COLUMNS:
        columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        if column in columns:
            found.append((table, column))
    return found
