"""``warehouse.duckdb``: one view per Delta table, for people. No asset ever opens it."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import polars as pl

from warehouse.home import Home
from warehouse.tables import Tables, TableVersion


def rebuild_views(home: Home, tables: Tables) -> None:
    """Replace ``home.views`` by views over the current files of every table, atomically.

    A table without a row has a view with its columns and no rows. Views name files: run this again after writing.
    """
    home.root.mkdir(parents=True, exist_ok=True)
    temporary = home.views.with_name(f".{home.views.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with duckdb.connect(str(temporary)) as connection:
            for name in tables.names():
                connection.execute(_view(connection, name, tables.newest(name)))
        temporary.replace(home.views)
    finally:
        temporary.unlink(missing_ok=True)
        Path(f"{temporary}.wal").unlink(missing_ok=True)


def _view(connection: duckdb.DuckDBPyConnection, name: str, table: TableVersion) -> str:
    if not table.files:
        connection.register("empty", pl.DataFrame(schema=table.schema).to_arrow())
        columns = connection.sql("DESCRIBE empty").fetchall()
        nulls = ", ".join(f"CAST(NULL AS {column[1]}) AS {_identifier(column[0])}" for column in columns)
        return f"CREATE VIEW {_identifier(name)} AS SELECT {nulls} WHERE false"
    partitions = ", ".join(
        f"{_literal(column)}: {'DATE' if table.schema[column] == pl.Date else 'VARCHAR'}"
        for column in table.partition_columns
    )
    paths = ", ".join(_literal(path) for path in table.files)
    hive_types = f", hive_types = {{{partitions}}}" if partitions else ""
    return (
        f"CREATE VIEW {_identifier(name)} AS "
        f"SELECT * FROM read_parquet([{paths}], hive_partitioning = true{hive_types}, union_by_name = true)"
    )


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
